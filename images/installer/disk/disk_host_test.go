//go:build host

package disk

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rackseed/rackseed/images/installer/contents"
	"github.com/rackseed/rackseed/images/installer/internal/specimen"
	"github.com/rackseed/rackseed/images/pid1/gpt"
	"golang.org/x/sys/unix"
)

// A block device that held others' data is prepared for real, with discards, and
// libblkid finds nothing of them on it: neither on the whole nor in any
// partition. (Partition itself is tried where the kernel is our own: in virtual
// machines.)
func TestPrepareABlockDevice(t *testing.T) {
	for _, name := range []string{"Red Hat", "TrueNAS", "mdraid 1.0, its beginning wiped", "Windows", "btrfs"} {
		i := slices.IndexFunc(specimen.All, func(s specimen.Specimen) bool { return s.Name == name })
		path := filepath.Join(t.TempDir(), "disk")
		specimen.All[i].Make().File(t, path)
		at := specimen.Loop(t, path, 0, specimen.Size)
		table, err := Layout(specimen.Size, 512, gpt.NewGUID)
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(at, os.O_RDWR|unix.O_EXCL, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(prepare(t.Context(), discarding{t, device{f}}, table), f.Close()); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		part := func(number int) string {
			p := Part(table, number)
			return specimen.Loop(t, path, int64(p.First)*512, int64(p.Last-p.First+1)*512)
		}
		bios, esp, rootA, rootB, data := part(BIOS), part(ESP), part(RootA), part(RootB), part(Data)
		for _, args := range [][]string{
			{"mkfs.fat", "-F", "32", "-n", "RS-ESP", esp},
			{"mke2fs", "-q", "-F", "-t", "ext4", "-E", "nodiscard", "-L", "rs-data", "-m", "1", data},
		} {
			if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
				t.Fatalf("%s: %v\n%s", args[0], err, out)
			}
		}
		if err := Finish(at, table, "node-1"); err != nil {
			t.Fatal(err)
		}
		for at, want := range map[string]string{
			at: "PMBR gpt", bios: "", esp: "vfat", rootA: "", rootB: "", data: "ext4",
		} {
			out, err := exec.Command("wipefs", "--no-act", "--noheadings", "--output", "TYPE", at).Output()
			if err != nil {
				t.Fatal(err)
			}
			found := strings.Fields(string(out))
			slices.Sort(found)
			if got := strings.Join(slices.Compact(found), " "); got != want {
				t.Errorf("%s: %s holds %q, want %q", name, at, got, want)
			}
		}
		f, err = os.Open(at)
		if err != nil {
			t.Fatal(err)
		}
		if text, err := contents.Describe(f, specimen.Size, 512); err != nil || text != "Rackseed node node-1" {
			t.Errorf("%s: %q, %v", name, text, err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A disk in use is not touched.
func TestPartitionRefusesADiskInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	specimen.New(specimen.Size).File(t, path)
	device := specimen.Loop(t, path, 0, specimen.Size)
	if out, err := exec.Command("mke2fs", "-q", "-F", device).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	at := t.TempDir()
	if out, err := exec.Command("mount", device, at).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", at).CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	table, err := Layout(specimen.Size, 512, gpt.NewGUID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Partition(t.Context(), device, table); err == nil || !strings.Contains(err.Error(), "opening it for ourselves alone") {
		t.Errorf("%v", err)
	}
}

// discarding is a disk that must take the hint.
type discarding struct {
	t *testing.T
	device
}

func (d discarding) Discard(first, length int64) error {
	err := d.device.Discard(first, length)
	if err != nil {
		d.t.Errorf("discarding %d bytes at %d: %v", length, first, err)
	}
	return err
}
