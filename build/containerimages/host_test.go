//go:build host

package containerimages

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rackseed/rackseed/build/debian"
	"github.com/rackseed/rackseed/build/goprog"
	"github.com/rackseed/rackseed/build/pins"
	"github.com/rackseed/rackseed/build/step"
)

// The real containerd imports images of small programs, twice: the results have
// the same bytes, and a containerd that starts on one has all images, unpacked.
func TestStore(t *testing.T) {
	ctx := t.Context()
	cacheDir, err := step.DefaultDir()
	if err != nil {
		t.Fatal(err)
	}
	repository, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	cache := &step.Cache{Dir: cacheDir, Progress: t.Output()}
	archive := &debian.Archive{Repository: repository, Cache: cacheDir, Log: t.Output()}
	node, err := archive.Unpacked(ctx, "node")
	if err != nil {
		t.Fatal(err)
	}
	dirs, err := cache.Build(ctx, node, containerdStep(t, repository))
	if err != nil {
		t.Fatal(err)
	}
	p := programs{debian: dirs[0]}
	for name, field := range map[string]*string{"kubernetes": &p.kubernetes, "etcd": &p.etcd, "coredns": &p.coredns, "pause": &p.pause} {
		*field = filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(*field, []byte("#!/bin/false "+name+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	containerd, ctr := filepath.Join(dirs[1], "containerd"), filepath.Join(dirs[1], "ctr")
	var made [2][]byte
	for i := range made {
		out := t.TempDir()
		if err := makeStore(ctx, out, p, containerd, ctr, t.Output()); err != nil {
			t.Fatal(err)
		}
		if made[i], err = os.ReadFile(filepath.Join(out, StoreFile)); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(made[0], made[1]) {
		t.Error("the same programs gave two different folders for containerd")
	}

	root := filepath.Join(t.TempDir(), "root")
	untar(t, root, made[0])
	c, err := startContainerd(ctx, containerd, root, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.stop(); err != nil {
			t.Error(err)
		}
	}()
	var list bytes.Buffer
	if err := c.ctr(ctx, ctr, &list, "images", "list"); err != nil {
		t.Fatal(err)
	}
	var snapshots bytes.Buffer
	if err := c.ctr(ctx, ctr, &snapshots, "snapshots", "--snapshotter", "overlayfs", "list"); err != nil {
		t.Fatal(err)
	}
	for _, img := range images {
		for _, name := range img.names {
			if !strings.Contains(list.String(), name+" ") {
				t.Errorf("image %s is not there:\n%s", name, list.String())
			}
		}
	}
	if n := strings.Count(snapshots.String(), "Committed"); n != 5 {
		t.Errorf("%d snapshots, want 5: one a layer\n%s", n, snapshots.String())
	}
	// Collection must find nothing to take away: everything is referred to.
	if err := c.ctr(ctx, ctr, t.Output(), "content", "prune", "references"); err != nil {
		t.Fatal(err)
	}
	var after bytes.Buffer
	if err := c.ctr(ctx, ctr, &after, "snapshots", "--snapshotter", "overlayfs", "list"); err != nil {
		t.Fatal(err)
	}
	if got, want := table(after.String()), table(snapshots.String()); got != want {
		t.Errorf("after a collection:\n%swant\n%s", got, want)
	}
	// The snapshots are what a container starts from.
	for _, name := range []string{pins.ImageProxy, pins.ImagePause} {
		if err := c.ctr(ctx, ctr, t.Output(), "images", "usage", "--snapshotter", "overlayfs", name); err != nil {
			t.Errorf("%s is not complete: %v", name, err)
		}
	}
}

// table leaves ctr's warnings out of what it printed: they carry the time.
func table(printed string) string {
	var b strings.Builder
	for line := range strings.Lines(printed) {
		if !strings.HasPrefix(line, "time=") {
			b.WriteString(line)
		}
	}
	return b.String()
}

func containerdStep(t *testing.T, repository string) *step.Step {
	t.Helper()
	input, err := goprog.ModuleInput(repository, "build/modules/containerd")
	if err != nil {
		t.Fatal(err)
	}
	for _, set := range goprog.Nested(nil) {
		if set.Name == "go-containerd" {
			return goprog.Step(repository, set, input)
		}
	}
	t.Fatal("no set go-containerd")
	return nil
}
