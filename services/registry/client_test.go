package registry

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

func image(t *testing.T, size int64, layers int64) ggcr.Image {
	t.Helper()
	i, err := random.Image(size, layers)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func digest(t *testing.T, i interface{ Digest() (ggcr.Hash, error) }) ggcr.Hash {
	t.Helper()
	d, err := i.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// fetch reads all of an image; the client compares digests.
func fetch(t *testing.T, i ggcr.Image) {
	t.Helper()
	if _, err := i.RawConfigFile(); err != nil {
		t.Fatal(err)
	}
	layers, err := i.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		content, err := l.Compressed()
		readAll(t, content, err)
	}
}

// An image and an index are pushed by an operator and pulled by anybody, by tag
// and digest, also after a restart.
func TestPushAndPull(t *testing.T) {
	r := newDiskRig(t, Limits{})
	app := image(t, 3<<20, 3)
	both := mutate.AppendManifests(mutate.IndexMediaType(emptyIndex, "application/vnd.oci.image.index.v1+json"),
		mutate.IndexAddendum{Add: app}, mutate.IndexAddendum{Add: image(t, 1000, 1)})
	repo := r.repository("lab/app")
	if err := remote.Write(repo.Tag("v1"), app, r.operator()...); err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(repo.Tag("all"), both, r.operator()...); err != nil {
		t.Fatal(err)
	}
	if n := r.checks(); n != 1 {
		t.Errorf("the password was checked %d times, once is enough", n)
	}
	for _, restarted := range []bool{false, true} {
		if restarted {
			r.restart()
			repo = r.repository("lab/app")
		}
		for _, ref := range []name.Reference{repo.Tag("v1"), repo.Digest(digest(t, app).String())} {
			got, err := remote.Image(ref, r.anybody()...)
			if err != nil {
				t.Fatal(err)
			}
			if fetch(t, got); digest(t, got) != digest(t, app) {
				t.Errorf("%s, restarted %v: another image", ref, restarted)
			}
		}
		index, err := remote.Index(repo.Tag("all"), r.anybody()...)
		if err != nil {
			t.Fatal(err)
		}
		if digest(t, index) != digest(t, both) {
			t.Errorf("index, restarted %v: another one", restarted)
		}
		tags, err := remote.List(repo, r.anybody()...)
		if err != nil || !slices.Equal(tags, []string{"all", "v1"}) {
			t.Errorf("tags %v, %v", tags, err)
		}
		all, err := remote.Catalog(t.Context(), repo.Registry, r.anybody()...)
		if err != nil || !slices.Equal(all, []string{"lab/app"}) {
			t.Errorf("repositories %v, %v", all, err)
		}
	}
	// What a tag named before can still be had by digest.
	next := image(t, 1000, 1)
	if err := remote.Write(repo.Tag("v1"), next, r.operator()...); err != nil {
		t.Fatal(err)
	}
	for ref, want := range map[name.Reference]ggcr.Image{repo.Tag("v1"): next, repo.Digest(digest(t, app).String()): app} {
		if got, err := remote.Head(ref, r.anybody()...); err != nil || got.Digest != digest(t, want) {
			t.Errorf("%s: %v, %v", ref, got, err)
		}
	}
}

// What came with the release can be pulled by its name, and not be replaced.
func TestOurs(t *testing.T) {
	r := newRig(t, Limits{})
	m := r.artifact("node", "root.erofs", "a root file system")
	repo := r.repository("rackseed/node")
	for _, ref := range []name.Reference{repo.Tag("latest"), repo.Digest(digestOf(m))} {
		got, err := remote.Get(ref, r.anybody()...)
		if err != nil {
			t.Fatal(err)
		}
		if string(got.Manifest) != m || string(got.MediaType) != "application/vnd.oci.image.manifest.v1+json" {
			t.Errorf("%s: %s: %s", ref, got.MediaType, got.Manifest)
		}
	}
	layer, err := remote.Layer(repo.Digest(digestOf("a root file system")), r.anybody()...)
	if err != nil {
		t.Fatal(err)
	}
	content, err := layer.Compressed()
	if got := readAll(t, content, err); string(got) != "a root file system" {
		t.Errorf("layer: %q", got)
	}
	for _, tag := range []string{"latest", "v2"} {
		err = remote.Write(repo.Tag(tag), image(t, 10, 1), r.operator()...)
		if err == nil || !strings.Contains(err.Error(), "came with this release") {
			t.Errorf("pushed to %s: %v", tag, err)
		}
	}
	if _, err := remote.Head(repo.Tag("v2"), r.anybody()...); err == nil {
		t.Error("another tag of ours is there")
	}
	if tags, err := remote.List(repo, r.anybody()...); err != nil || !slices.Equal(tags, []string{"latest"}) {
		t.Errorf("tags %v, %v", tags, err)
	}
}

// Many push at once, some the same layers, some the same tag: each push ends
// well, and a tag names one of those pushed to it.
func TestConcurrentPushes(t *testing.T) {
	r := newRig(t, Limits{})
	base := image(t, 1<<20, 2)
	repo := r.repository("lab/app")
	var all sync.WaitGroup
	var mu sync.Mutex
	pushed := map[ggcr.Hash]bool{}
	for i := range 8 {
		all.Go(func() {
			layer, err := random.Layer(100_000, "application/vnd.oci.image.layer.v1.tar+gzip")
			if err != nil {
				t.Error(err)
				return
			}
			app, err := mutate.AppendLayers(base, layer)
			if err != nil {
				t.Error(err)
				return
			}
			for _, tag := range []string{"latest", fmt.Sprint("v", i)} {
				if err := remote.Write(repo.Tag(tag), app, r.operator()...); err != nil {
					t.Errorf("push %d to %s: %v", i, tag, err)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			pushed[digest(t, app)] = true
		})
	}
	all.Wait()
	got, err := remote.Image(repo.Tag("latest"), r.anybody()...)
	if err != nil {
		t.Fatal(err)
	}
	if fetch(t, got); !pushed[digest(t, got)] {
		t.Errorf("latest is %s", digest(t, got))
	}
	if tags, err := remote.List(repo, r.anybody()...); err != nil || len(tags) != 9 {
		t.Errorf("tags %v, %v", tags, err)
	}
	if left := r.aside(); len(left) != 0 {
		t.Errorf("left aside: %v", left)
	}
}

// Who is nobody cannot push, and reads what it may.
func TestStrangersCannotPush(t *testing.T) {
	r := newRig(t, Limits{})
	repo := r.repository("lab/app")
	for who, auth := range map[string]authn.Authenticator{
		"anybody":           authn.Anonymous,
		"a wrong password":  &authn.Basic{Username: "ann", Password: "wrong"},
		"an unknown user":   &authn.Basic{Username: "eve", Password: password},
		"another's token":   &authn.Basic{Username: "eve", Password: token},
		"a made-up bearer":  &authn.Bearer{Token: "rs_made up"},
		"a made-up session": &authn.Bearer{Token: strings.Repeat("0", 64)},
	} {
		err := remote.Write(repo.Tag("v1"), image(t, 10, 1), append(r.anybody(), remote.WithAuth(auth))...)
		if e, ok := errors.AsType[*transport.Error](err); !ok || e.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s: %v", who, err)
		}
	}
	for who, auth := range map[string]authn.Authenticator{
		"a token as password": &authn.Basic{Username: "ann", Password: token},
		"a token":             &authn.Bearer{Token: token},
	} {
		if err := remote.Write(repo.Tag("v1"), image(t, 10, 1), append(r.anybody(), remote.WithAuth(auth))...); err != nil {
			t.Errorf("%s: %v", who, err)
		}
	}
	// Basic with each request, as from a hosts.toml.
	for secret, status := range map[string]int{password: http.StatusAccepted, token: http.StatusAccepted, "wrong": http.StatusUnauthorized} {
		r.want(status, "POST", "/v2/lab/app/blobs/uploads/", "", basic("ann", secret))
	}
}
