//go:build host

package iso_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rackseed/rackseed/build/debian"
	"github.com/rackseed/rackseed/build/iso"
	"github.com/rackseed/rackseed/build/pins"
	"github.com/rackseed/rackseed/build/step"
	"github.com/rackseed/rackseed/build/tools"
	"github.com/rackseed/rackseed/images/pid1/gpt"
)

// Assembled twice, in different folders, the image has the same bytes; its
// partitions are those that the appliance looks for; and the site file is
// there, whole.
func TestSameInputsSameImage(t *testing.T) {
	toolsDir, boot := unpacked(t, "tools"), unpacked(t, "boot")
	root := tools.Root(toolsDir)
	run := func(ctx context.Context, name string, args ...string) (*exec.Cmd, error) {
		return root.Command(ctx, name, args...)
	}
	kernels, err := filepath.Glob(filepath.Join(boot, "boot/vmlinuz-*"))
	if err != nil || len(kernels) != 1 {
		t.Fatalf("kernels: %v, %v", kernels, err)
	}
	site := []byte("version: 1\nname: a site\n")
	var images [][]byte
	var dir string
	for range 2 {
		dir = t.TempDir()
		oci := filepath.Join(dir, "oci")
		for name, text := range map[string]string{"index.json": "{}", "blobs/sha256/aa": "blob a", "blobs/sha256/bb": "blob b", "initrd": "initrd"} {
			p := filepath.Join(oci, name)
			if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		err := iso.Base(t.Context(), dir, iso.Spec{
			Kernel: kernels[0], Initrd: filepath.Join(oci, "initrd"), OCI: oci, Boot: boot,
			Build: "test", Epoch: pins.SourceDateEpoch, Run: run, Log: t.Output(),
		})
		if err != nil {
			t.Fatal(err)
		}
		out := filepath.Join(dir, "personal.iso")
		err = iso.Personalise(t.Context(), dir, out, iso.Personal{
			Site: site, Readme: []byte("readme\n"), Epoch: pins.SourceDateEpoch, Run: run, Log: t.Output(),
		})
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		images = append(images, b)
	}
	if !bytes.Equal(images[0], images[1]) {
		t.Error("assembled twice, the images differ")
	}

	table, err := gpt.Read(bytes.NewReader(images[1]), int64(len(images[1])), 512)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(table.Partitions); n != 3 || table.Partitions[1].Type != gpt.TypeESP || table.Partitions[2].Type != gpt.TypeBasicData {
		t.Fatalf("partitions: %+v", table.Partitions)
	}

	var layout iso.Layout
	b, err := os.ReadFile(filepath.Join(dir, "layout.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &layout); err != nil {
		t.Fatal(err)
	}
	fat := filepath.Join(dir, "fat.img")
	if err := os.WriteFile(fat, images[1][layout.SiteOffset:][:layout.SiteSize], 0o600); err != nil {
		t.Fatal(err)
	}
	cmd, err := run(t.Context(), "mtype", "-i", fat, "::/site.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := cmd.Output(); err != nil || !bytes.Equal(got, site) {
		t.Errorf("the site file reads %q, %v", got, err)
	}
}

// GRUB's own checker reads what we wrote for it.
func TestMenuIsGRUBScript(t *testing.T) {
	root := tools.Root(unpacked(t, "tools"))
	file := filepath.Join(t.TempDir(), "grub.cfg")
	if err := os.WriteFile(file, []byte(iso.Menu("2026-11-24-00-00-00-00")), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd, err := root.Command(t.Context(), "grub-script-check", file)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("grub-script-check: %v\n%s", err, out)
	}
}

func unpacked(t *testing.T, set string) string {
	t.Helper()
	cache, err := step.DefaultDir()
	if err != nil {
		t.Fatal(err)
	}
	repo, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	archive := &debian.Archive{Repository: repo, Cache: cache, Log: t.Output()}
	s, err := archive.Unpacked(t.Context(), set)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := (&step.Cache{Dir: cache, Progress: t.Output()}).Get(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}
