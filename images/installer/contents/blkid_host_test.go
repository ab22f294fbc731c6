//go:build host

package contents_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rackseed/rackseed/images/installer/contents"
	"github.com/rackseed/rackseed/images/installer/internal/specimen"
	"github.com/rackseed/rackseed/images/pid1/block"
)

// signature is one that wipefs lists.
type signature struct{ Type, Label string }

func wipefs(t *testing.T, path string) []signature {
	t.Helper()
	out, err := exec.Command("wipefs", "--no-act", "--json", "--output", "TYPE,LABEL", path).Output()
	if err != nil {
		t.Fatalf("wipefs %s: %v", path, err)
	}
	var list struct{ Signatures []signature }
	if len(out) > 0 { // it prints nothing where nothing is
		if err := json.Unmarshal(out, &list); err != nil {
			t.Fatalf("wipefs %s: %v: %s", path, err, out)
		}
	}
	return slices.DeleteFunc(list.Signatures, func(s signature) bool { return slices.Contains([]string{"gpt", "PMBR", "dos"}, s.Type) })
}

func TestLibblkidFindsNothingElse(t *testing.T) {
	for _, s := range specimen.All {
		d := s.Make()
		if d.Fill != 0 || d.Data != nil {
			continue
		}
		path := filepath.Join(t.TempDir(), "disk")
		d.File(t, path)
		found, err := block.ProbeAll(d, d.Size)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range wipefs(t, path) {
			if !slices.ContainsFunc(found, func(f block.Signature) bool {
				return f.Type == want.Type && (want.Label == "" || f.Label == want.Label)
			}) {
				t.Errorf("%s: libblkid finds %+v; here %+v", s.Name, want, found)
			}
		}
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
}

// What the tools make is found as what they call it, and the same after it was
// used.
func TestWhatToolsMake(t *testing.T) {
	lvm := func(device string, args ...string) []string {
		return append([]string{"lvm", args[0], "-q", "--config", `devices{use_devicesfile=0 scan="/dev" global_filter=["a|^` + device + `$|","r|.*|"]} activation{udev_sync=0 udev_rules=0} global{locking_type=1}`}, args[1:]...)
	}
	for _, c := range []struct {
		want   string
		device bool // it takes no file
		in     string
		make   func(path string) [][]string
	}{
		{`ext4 "root"`, false, "", func(p string) [][]string { return [][]string{{"mke2fs", "-q", "-F", "-t", "ext4", "-L", "root", p}} }},
		{"ext3", false, "", func(p string) [][]string { return [][]string{{"mke2fs", "-q", "-F", "-t", "ext3", p}} }},
		{`FAT "EFI"`, false, "", func(p string) [][]string { return [][]string{{"mkfs.fat", "-F", "32", "-n", "EFI", p}} }},
		{`swap "sw"`, false, "", func(p string) [][]string { return [][]string{{"mkswap", "-q", "-L", "sw", p}} }},
		{`LUKS (encrypted) "vault"`, false, "secret", func(p string) [][]string {
			return [][]string{{"cryptsetup", "-q", "luksFormat", "--type", "luks2", "--label", "vault", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", p, "-"}}
		}},
		{"LUKS (encrypted)", false, "secret", func(p string) [][]string {
			return [][]string{{"cryptsetup", "-q", "luksFormat", "--type", "luks1", "--pbkdf-force-iterations", "1000", p, "-"}}
		}},
		{`LVM "vg0"`, true, "", func(p string) [][]string {
			return [][]string{lvm(p, "pvcreate", "-ff", "-y", p), lvm(p, "vgcreate", "vg0", p), lvm(p, "vgchange", "--addtag", "used", "vg0")}
		}},
		{"GPT, 2 partitions: 2 × empty", false, "label: gpt\nsize=100M,type=U\nsize=200M,type=L\n", func(p string) [][]string { return [][]string{{"sfdisk", "-q", p}} }},
		{"MBR, 3 partitions: 3 × empty", false, "label: dos\n1: size=100M,type=83\n2: size=600M,type=5\n5: size=200M,type=82\n6: size=200M,type=83\n", func(p string) [][]string { return [][]string{{"sfdisk", "-q", p}} }},
	} {
		path := filepath.Join(t.TempDir(), "disk")
		const size = 1 << 30
		specimen.New(size).File(t, path)
		at := path
		if c.device {
			at = specimen.Loop(t, path, 0, size)
		}
		for _, args := range c.make(at) {
			cmd := exec.Command(args[0], args[1:]...)
			cmd.Stdin = strings.NewReader(c.in)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
			}
			if args[0] == "lvm" && args[1] == "pvcreate" {
				continue
			}
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := contents.Describe(f, size, 512); err != nil || got != c.want {
				t.Errorf("%s: %q, %v, want %q", args[0], got, err, c.want)
			}
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}
