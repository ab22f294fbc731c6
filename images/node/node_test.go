// Package node holds what the node's image is made of, as files; here is what
// must hold between them.
package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// systemd takes the first match over all preset files in order of their names.
func TestPreset(t *testing.T) {
	const dir = "files/usr/lib/systemd/"
	lines := strings.Split(strings.TrimSpace(read(t, dir+"system-preset/90-rackseed.preset")), "\n")
	if last := lines[len(lines)-1]; last != "disable *" {
		t.Errorf("the preset must end with disable *, not %q: Debian's would enable everything that is installed", last)
	}
	enabled := map[string]bool{}
	for _, l := range lines {
		if unit, ok := strings.CutPrefix(l, "enable "); ok {
			enabled[unit] = true
		}
	}
	units, err := filepath.Glob(dir + "system/*.service")
	if err != nil || len(units) != 3 {
		t.Fatalf("units %v, %v", units, err)
	}
	for _, u := range units {
		if !enabled[filepath.Base(u)] {
			t.Errorf("%s is not enabled", u)
		}
		text := read(t, u)
		for _, want := range []string{"Restart=always", "WantedBy=multi-user.target"} {
			if !strings.Contains(text, want) {
				t.Errorf("%s lacks %s", u, want)
			}
		}
	}
}

// Both slots and what the installer writes for them.
func TestGRUBConfiguration(t *testing.T) {
	text := read(t, "grub.cfg")
	for _, want := range []string{"source /rackseed/a/cmdline.cfg", "source /rackseed/b/cmdline.cfg", "linux /rackseed/a/vmlinuz", "initrd /rackseed/b/initrd.img",
		"load_env", "save_env A_TRY B_TRY", "$rs_cmdline"} {
		if !strings.Contains(text, want) {
			t.Errorf("grub.cfg lacks %q", want)
		}
	}
}
