package kmod

import (
	"errors"
	"fmt"
	"log/slog"
	"path"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"

	"golang.org/x/sys/unix"
)

var tree = fstest.MapFS{
	"modules.dep": {Data: []byte(`kernel/fs/ext4/ext4.ko.xz: kernel/fs/jbd2/jbd2.ko.xz kernel/fs/mbcache.ko.xz kernel/lib/crc16.ko.xz
kernel/fs/jbd2/jbd2.ko.xz: kernel/lib/crc16.ko.xz
kernel/fs/mbcache.ko.xz:
kernel/lib/crc16.ko.xz:
kernel/crypto/crc32c-generic.ko.xz:
kernel/arch/crc32c-intel.ko.xz:
kernel/drivers/e1000e.ko.xz:
kernel/drivers/snd-x.ko.xz:
`)},
	"modules.alias": {Data: []byte(`# Aliases extracted from modules themselves.
alias fs-ext4 ext4
alias crypto-crc32c crc32c_generic
alias crypto-crc32c crc32c_intel
alias pci:v00008086d000010D3sv*sd*bc*sc*i* e1000e
alias pci:v00008086d*sv*sd*bc04sc03i* snd-x
alias acpi*:PNP0C0A:* gone
alias cpu:type:x86,ven*fam*mod*:feature:*0094* crc32c_intel
`)},
	"modules.softdep": {Data: []byte("softdep ext4 pre: crypto-crc32c nothing post: snd-x\n")},
	"modules.builtin": {Data: []byte("kernel/fs/proc-fs.ko\n")},
}

func index(t *testing.T) *Index {
	t.Helper()
	x, err := ReadIndex(tree)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func TestPlan(t *testing.T) {
	var got []string
	for _, s := range index(t).Plan("ext4") {
		got = append(got, fmt.Sprintf("%s %v", path.Base(s.Path), s.Soft))
	}
	want := []string{"crc32c-generic.ko.xz true", "crc32c-intel.ko.xz true", "crc16.ko.xz false", "mbcache.ko.xz false",
		"jbd2.ko.xz false", "ext4.ko.xz false", "snd-x.ko.xz true"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("plan %q\nwant %q", got, want)
	}
}

func TestResolve(t *testing.T) {
	x := index(t)
	for word, want := range map[string]string{
		"ext4": "ext4", "fs-ext4": "ext4", "snd_x": "snd_x", "snd-x": "snd_x", "proc-fs": "builtin", "nothing": "",
		"crypto_crc32c": "crc32c_generic crc32c_intel",
		"pci:v00008086d000010D3sv00008086sd0000A01Fbc02sc00i00": "e1000e",
		"pci:v00008086d000010D3sv00008086sd0000A01Fbc04sc03i00": "e1000e snd_x",
		"pci:v00008086": "",
		"cpu:type:x86,ven0000fam0006mod0055:feature:,0000,0094,": "crc32c_intel",
		"acpi:PNP0C0A:": "", // its module is not in this tree
	} {
		modules, builtin := x.Resolve(word)
		got := strings.Join(modules, " ")
		if builtin {
			got = "builtin"
		}
		if got != want {
			t.Errorf("%s: %q, want %q", word, got, want)
		}
	}
}

// modprobe's short way must answer as the whole index does.
func TestReadIndexFor(t *testing.T) {
	whole := index(t)
	for _, word := range []string{"ext4", "fs-ext4", "crypto-crc32c", "snd-x", "nothing", "proc-fs", "pci:v00008086d000010D3sv00008086sd0000A01Fbc04sc03i00"} {
		x, err := readIndexFor(tree, []string{word})
		if err != nil {
			t.Fatal(err)
		}
		got, builtin := x.Resolve(word)
		want, wantBuiltin := whole.Resolve(word)
		if !reflect.DeepEqual(got, want) || builtin != wantBuiltin {
			t.Errorf("%s: %q, want %q", word, got, want)
		}
		for _, m := range want {
			if !reflect.DeepEqual(x.Plan(m), whole.Plan(m)) {
				t.Errorf("%s: another plan for %s", word, m)
			}
		}
	}
}

func TestAliasWithWildcardBus(t *testing.T) {
	a := newAliases()
	a.add("acpi*:PNP0C0A:*", "battery")
	a.add("acpi*:INT-33:*", "x")
	for modalias, want := range map[string][]string{"acpi:PNP0C0A:": {"battery"}, "acpi:INT_33:": {"x"}, "pci:PNP0C0A:": nil} {
		if got := a.match(modalias); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %q, want %q", modalias, got, want)
		}
	}
}

func TestLoad(t *testing.T) {
	var loaded []string
	broken := map[string]error{"crc32c-intel.ko.xz": unix.ENODEV, "crc16.ko.xz": nil}
	l := newLoader(index(t), "/m", slog.New(slog.DiscardHandler))
	l.insert = func(p string) error {
		loaded = append(loaded, path.Base(p))
		return broken[path.Base(p)]
	}
	if err := l.Load("ext4", "fs-ext4"); err != nil {
		t.Fatalf("a soft dependency that failed stopped ext4: %v", err)
	}
	if got := strings.Join(loaded, " "); got != "crc32c-generic.ko.xz crc32c-intel.ko.xz crc16.ko.xz mbcache.ko.xz jbd2.ko.xz ext4.ko.xz snd-x.ko.xz" {
		t.Errorf("loaded %s", got)
	}
	if err := l.Load("crc32c_intel"); !errors.Is(err, unix.ENODEV) || !strings.Contains(err.Error(), "crc32c_intel") {
		t.Errorf("a module that fails: %v", err)
	}
	if err := l.Load("zfs"); !errors.Is(err, ErrUnknown) {
		t.Errorf("a module that is not there: %v", err)
	}
	n := len(loaded)
	seen := map[string]bool{}
	l.plug("pci:v00008086d000010D3sv0sd0bc02sc00i00", Storage, seen)
	if len(loaded) != n {
		t.Error("a network card's driver was loaded when only storage was asked for")
	}
	l.plug("pci:v00008086d000010D3sv0sd0bc02sc00i00", nil, seen)
	if len(loaded) != n+1 {
		t.Error("the network card's driver was not loaded")
	}
}

func TestStorage(t *testing.T) {
	for modalias, want := range map[string]bool{
		"virtio:d00000002v00001AF4": true, "virtio:d00000008v00001AF4": true, "virtio:d00000001v00001AF4": false,
		"pci:v00001AF4d00001042sv00001AF4sd00001100bc01sc00i00": true,
		"pci:v00008086d000010D3sv00008086sd0000A01Fbc02sc00i00": false,
		"pci:v00001B36d0000000Csv00001B36sd00000000bc06sc04i00": true,
		"usb:v1234p0001d0100dc00dsc00dp00ic08isc06ip50in00":     false,
		"scsi:t-0x00": true, "": false,
	} {
		if Storage(modalias) != want {
			t.Errorf("%s: want %v", modalias, want)
		}
	}
}

func TestUevent(t *testing.T) {
	for message, want := range map[string]string{
		"add@/devices/x\x00ACTION=add\x00DEVPATH=/devices/x\x00MODALIAS=virtio:d2v1\x00": "true virtio:d2v1",
		"add@/devices/x\x00ACTION=add\x00SUBSYSTEM=block\x00":                            "true ",
		"remove@/devices/x\x00ACTION=remove\x00MODALIAS=a:b\x00":                         "false a:b",
		"": "false ",
	} {
		add, modalias := parseUevent([]byte(message))
		if got := fmt.Sprint(add, " ", modalias); got != want {
			t.Errorf("%q: %q, want %q", message, got, want)
		}
	}
}

func TestParseModprobe(t *testing.T) {
	for line, want := range map[string]string{
		"-q -- fs-ext4": "true fs-ext4", "ext4": "false ext4", "-abq loop dm_mod": "true loop,dm_mod",
		"--quiet -- -odd": "true -odd", "bonding mode=1": "false bonding", "": "error", "-q --": "error", "-r ext4": "error", "--remove x": "error",
	} {
		c, err := parseModprobe(strings.Fields(line))
		got := fmt.Sprint(c.quiet, " ", strings.Join(c.words, ","))
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("modprobe %s: %q, want %q", line, got, want)
		}
	}
}

func TestGlob(t *testing.T) {
	for _, c := range []struct {
		pattern, s string
		want       bool
	}{
		{"", "", true}, {"*", "", true}, {"a*b*c", "aXbXbc", true}, {"a*b*c", "aXbX", false}, {"?", "", false},
		{"[a-c]x", "bx", true}, {"[!a-c]x", "bx", false}, {"[!a-c]x", "dx", true}, {"[a", "a", false}, {"v*p*d0[0-9]*", "v1p2d05", true},
		{"a*", "b", false}, {"abc", "abcd", false}, {"[-a]", "-", true},
	} {
		if glob(c.pattern, c.s) != c.want {
			t.Errorf("glob(%q, %q): want %v", c.pattern, c.s, c.want)
		}
	}
}

// The fast matcher against the library's, on what both understand alike.
func FuzzGlob(f *testing.F) {
	f.Add("pci:v*d0001sv*", "pci:v1d0001sv2")
	f.Add("a[0-9]*?", "a7xy")
	f.Fuzz(func(t *testing.T, pattern, s string) {
		if strings.ContainsAny(pattern, "[]\\/") || strings.Contains(s, "/") || !ascii(pattern) || !ascii(s) {
			glob(pattern, s) // must end, no more
			return
		}
		want, err := path.Match(pattern, s)
		if err == nil && glob(pattern, s) != want {
			t.Errorf("glob(%q, %q) is %v", pattern, s, !want)
		}
	})
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

func FuzzReadIndex(f *testing.F) {
	f.Add("a.ko: b.ko\nb.ko: a.ko\n", "alias x:* a\n", "softdep a pre: x post: a\n")
	f.Fuzz(func(t *testing.T, dep, alias, soft string) {
		x, err := ReadIndex(fstest.MapFS{"modules.dep": {Data: []byte(dep)}, "modules.alias": {Data: []byte(alias)}, "modules.softdep": {Data: []byte(soft)}})
		if err != nil {
			return
		}
		for name := range x.files {
			if plan := x.Plan(name); len(plan) > len(x.files) {
				t.Errorf("a plan of %d steps from %d modules", len(plan), len(x.files))
			}
		}
		x.Resolve("x:y")
	})
}

// A machine of a few hundred devices against a Debian kernel's patterns.
func BenchmarkMatch(b *testing.B) {
	a := newAliases()
	for v := range 200 {
		for d := range 100 {
			a.add(fmt.Sprintf("pci:v%08Xd%08Xsv*sd*bc*sc*i*", v, d), "m")
		}
	}
	for b.Loop() {
		a.match("pci:v00000042d00000042sv00008086sd0000A01Fbc02sc00i00")
	}
}
