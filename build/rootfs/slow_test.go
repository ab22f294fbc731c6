//go:build slow

package rootfs

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rackseed/rackseed/build/debian"
	"github.com/rackseed/rackseed/build/pins"
	"github.com/rackseed/rackseed/build/step"
	"github.com/rackseed/rackseed/build/tartree"
	"github.com/rackseed/rackseed/build/tools"
)

// The root file system is built twice from nothing but the packages, and has
// the same bytes; and it has what the node's parts expect of it.
func TestSameBytesTwice(t *testing.T) {
	cache, err := step.DefaultDir()
	if err != nil {
		t.Fatal(err)
	}
	repository, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	var sums [2][sha256.Size]byte
	var image, toolsDir string
	for i := range sums {
		archive := &debian.Archive{Repository: repository, Cache: cache, Log: t.Output()}
		image, toolsDir = buildOnce(t, archive, filepath.Join(repository, "images/node/files"))
		b, err := os.ReadFile(image)
		if err != nil {
			t.Fatal(err)
		}
		sums[i] = sha256.Sum256(b)
	}
	if sums[0] != sums[1] {
		t.Errorf("two builds differ: %x and %x", sums[0], sums[1])
	}

	unpacked := filepath.Join(t.TempDir(), "root")
	fsck, err := tools.Root(toolsDir).Command(t.Context(), "fsck.erofs", "--extract="+unpacked, "--no-preserve", image)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := fsck.CombinedOutput(); err != nil {
		t.Fatalf("fsck.erofs: %v\n%s", err, out)
	}
	for _, p := range []string{"usr/sbin/sshd", "usr/sbin/nft", "usr/lib/systemd/systemd", "var/lib/containerd/here", "usr/local/bin/kubernetes", "data", "var/roothome", "etc/machine-id"} {
		if _, err := os.Stat(filepath.Join(unpacked, p)); err != nil {
			t.Error(err)
		}
	}
	modules, err := filepath.Glob(filepath.Join(unpacked, "usr/lib/modules/*/modules.dep"))
	if err != nil || len(modules) != 1 {
		t.Errorf("indexes of modules: %v, %v; want one", modules, err)
	}
	for p, want := range map[string]string{"root": "var/roothome", "usr/local/bin/kubelet": "kubernetes", "etc/systemd/system/multi-user.target.wants/containerd.service": "/usr/lib/systemd/system/containerd.service"} {
		if got, err := os.Readlink(filepath.Join(unpacked, p)); err != nil || got != want {
			t.Errorf("/%s → %q, %v; want %q", p, got, err, want)
		}
	}
	if keys, err := filepath.Glob(filepath.Join(unpacked, "etc/ssh/ssh_host_*")); err != nil || len(keys) > 0 {
		t.Errorf("host keys that all nodes would share: %v, %v", keys, err)
	}
}

// buildOnce makes everything anew in a cache of its own, with small programs.
func buildOnce(t *testing.T, archive *debian.Archive, files string) (image, toolsDir string) {
	t.Helper()
	ctx := t.Context()
	cache := &step.Cache{Dir: t.TempDir(), Progress: t.Output()}
	unpack := func(set string) *step.Step {
		s, err := archive.Unpacked(ctx, set)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	toolsStep := unpack("tools")
	small := &step.Step{Name: "small", Make: func(ctx context.Context, out string, _ []string, _ io.Writer) error {
		store := tartree.Tree{}
		return errors.Join(
			store.Bytes("here", 0o644, nil),
			store.Bytes("kubernetes", 0o755, []byte(strings.Repeat("program", 20000))),
			store.Write(ctx, filepath.Join(out, "store.tar"), pins.Epoch()),
			os.WriteFile(filepath.Join(out, "kubernetes"), []byte(strings.Repeat("program", 20000)), 0o755))
	}}
	base, err := Base(ctx, archive, toolsStep)
	if err != nil {
		t.Fatal(err)
	}
	root, err := Image(Spec{
		Base: base, Kernel: Kernel(unpack("boot"), toolsStep), Tools: toolsStep, Files: files,
		Store:    step.File{Step: small, Path: "store.tar"},
		Programs: map[string]step.File{"/usr/local/bin/kubernetes": {Step: small, Path: "kubernetes"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	dirs, err := cache.Build(ctx, root, toolsStep)
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dirs[0], "root.erofs"), dirs[1]
}
