package cli

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// TestPushAndPull sends images through the registry and back: of an archive, by
// a pipe, and of a layout with several.
func TestPushAndPull(t *testing.T) {
	r := newRig(t)
	r.fails("rackseed login", "", "image", "push", t.TempDir(), "lab/app:v1")
	r.setup()
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	image := func() (v1.Image, string) {
		t.Helper()
		i, err := random.Image(1<<20, 2)
		must(err)
		d, err := i.Digest()
		must(err)
		return i, d.String()
	}

	app, _ := image()
	archive := filepath.Join(dir, "app.tar")
	must(tarball.WriteToFile(archive, name.MustParseReference("lab/app:v1"), app))
	// An archive holds layers without compression: the digest is another.
	loaded, err := tarball.ImageFromPath(archive, nil)
	must(err)
	appDigest, err := loaded.Digest()
	must(err)
	if out := r.must("", "image", "push", archive, "lab/app:v1"); out != "lab/app:v1 is "+appDigest.String()+"\n" {
		t.Errorf("pushed: %s", out)
	}
	content, err := os.ReadFile(archive)
	must(err)
	var out bytes.Buffer
	must(execute(t.Context(), bytes.NewReader(content), &out, io.Discard, "image", "push", "-", "lab/app:v2"))

	// The name by which nodes pull it, and other clients push it, is the same.
	for _, host := range []string{"rackseed.local", strings.TrimPrefix(r.url, "https://")} {
		if out := r.must("", "image", "push", archive, host+"/lab/app:v1"); out != "lab/app:v1 is "+appDigest.String()+"\n" {
			t.Errorf("pushed to %s: %s", host, out)
		}
	}

	two, err := layout.Write(filepath.Join(dir, "two"), empty.Index)
	must(err)
	one, oneDigest := image()
	other, _ := image()
	must(two.AppendImage(one, layout.WithAnnotations(map[string]string{refName: "lab/one:v1"})))
	must(two.AppendImage(other, layout.WithAnnotations(map[string]string{refName: "other"})))
	r.fails("it has 2 images (lab/one:v1, other), and none is called lab/two:v1", "", "image", "push", string(two), "lab/two:v1")
	if out := r.must("", "image", "push", string(two), "lab/one:v1"); !strings.Contains(out, oneDigest) {
		t.Errorf("pushed of a layout: %s", out)
	}
	index, err := random.Index(1<<10, 1, 3)
	must(err)
	set, err := layout.Write(filepath.Join(dir, "set"), empty.Index)
	must(err)
	must(set.AppendIndex(index))
	r.must("", "image", "push", string(set), "lab/set:v1")

	list := r.must("", "image", "list")
	if strings.Contains(list, "rackseed.local") || strings.Contains(list, "127.0.0.1") {
		t.Errorf("a host is part of a name:\n%s", list)
	}
	for _, want := range []string{"lab/app:v1", "lab/app:v2", "lab/one:v1", "lab/set:v1", "rackseed/node:latest"} {
		if !strings.Contains(list, want+" ") {
			t.Errorf("the list lacks %s:\n%s", want, list)
		}
	}
	pulled := filepath.Join(dir, "pulled")
	for _, n := range []string{"lab/app:v1", "lab/set:v1", "lab/one@" + oneDigest} {
		r.must("", "image", "pull", n, pulled)
	}
	got, err := layout.ImageIndexFromPath(pulled)
	must(err)
	manifest, err := got.IndexManifest()
	must(err)
	if len(manifest.Manifests) != 3 || manifest.Manifests[0].Annotations[refName] != "lab/app:v1" || manifest.Manifests[0].Digest != appDigest || !manifest.Manifests[1].MediaType.IsIndex() {
		t.Errorf("pulled: %+v", manifest.Manifests)
	}

	// Pulled again, it takes the place of what is called so, whatever that is.
	r.must("", "image", "push", string(set), "lab/app:v1")
	for range 2 {
		r.must("", "image", "pull", "rackseed.local/lab/app:v1", pulled)
		got, err := layout.ImageIndexFromPath(pulled)
		must(err)
		manifest, err := got.IndexManifest()
		must(err)
		d, err := pick(manifest.Manifests, "lab/app:v1")
		if err != nil || len(manifest.Manifests) != 3 || !d.MediaType.IsIndex() {
			t.Errorf("pulled again: %+v, %v", manifest.Manifests, err)
		}
	}

	r.fails("lab/none:v1 is not published", "", "image", "pull", "lab/none:v1", pulled)
	r.fails("came with this release", "", "image", "push", archive, "rackseed/node:latest")
	r.fails("not an archive", "", "image", "push", os.Args[0], "lab/app:v3")
	r.fails("not an OCI layout", "", "image", "push", dir, "lab/app:v3")
	r.fails("a name is expected", "", "image", "pull", "Lab", pulled)
	t.Setenv("RACKSEED_TOKEN", "wrong")
	r.fails("", "", "image", "push", archive, "lab/app:v3")
	// Anybody may pull, but this command needs to know where.
	if out := r.must("", "__complete", "image", "pull", ""); out != ":4\n" {
		t.Errorf("completed with a wrong token: %q", out)
	}
}
