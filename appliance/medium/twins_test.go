package medium

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rackseed/rackseed/images/pid1/block"
)

// plug puts a stick with an ISO9660 volume into a sysfs: the whole disk and
// its partition 1 show the same volume, as of a hybrid image.
func plug(t *testing.T, h block.Host, disk string, cd bool) {
	t.Helper()
	volume := make([]byte, 1<<20)
	copy(volume[32<<10+1:], "CD001")
	copy(volume[32<<10+830:], "2026112412345600")
	put := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	at := filepath.Join(h.Sys, "devices", disk)
	put(at+"/size", "2048\n")
	put(at+"/queue/logical_block_size", map[bool]string{true: "2048\n", false: "512\n"}[cd])
	put(filepath.Join(h.Dev, disk), string(volume))
	names := map[string]string{disk: at}
	if !cd {
		p := filepath.Join(at, disk+"1")
		put(p+"/size", "2048\n")
		put(p+"/partition", "1\n")
		put(filepath.Join(h.Dev, disk+"1"), string(volume))
		names[disk+"1"] = p
	}
	for name, at := range names {
		if err := os.MkdirAll(filepath.Join(h.Sys, "class/block"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(at, filepath.Join(h.Sys, "class/block", name)); err != nil {
			t.Fatal(err)
		}
	}
}

func unplug(t *testing.T, h block.Host, disk string) {
	t.Helper()
	for _, name := range []string{disk, disk + "1"} {
		if err := os.Remove(filepath.Join(h.Sys, "class/block", name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
}

func TestFindRefusesTwins(t *testing.T) {
	const uuid = "2026-11-24-12-34-56-00"
	for name, cd := range map[string]bool{"two sticks": false, "a stick and a CD": true} {
		synctest.Test(t, func(t *testing.T) {
			dir := t.TempDir()
			h := block.Host{Sys: filepath.Join(dir, "sys"), Dev: filepath.Join(dir, "dev")}
			plug(t, h, "sda", false)
			// The second shows up when the first was found already.
			timer := time.AfterFunc(time.Second, func() { plug(t, h, "sdb", cd) })
			defer timer.Stop()
			var twins *TwinsError
			if m, err := Find(t.Context(), h, uuid); !errors.As(err, &twins) || !strings.Contains(err.Error(), "/dev/sda and "+h.Dev+"/sdb") {
				t.Fatalf("%s: %+v, %v", name, m, err)
			}
			unplug(t, h, "sda")
			m, err := Find(t.Context(), h, uuid)
			if err != nil || !strings.HasPrefix(m.Volume.Name, "sdb") || (m.Disk.Name == "sdb") == cd {
				t.Errorf("%s, one unplugged: %+v, %v", name, m, err)
			}
		})
	}
}
