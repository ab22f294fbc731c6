package debian

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const sum = "6c8fc627b5f0886fd785d623bb9a3494bfa44365cfc7186e135601634ada39f4"

func TestLockIsReadAsItWasWritten(t *testing.T) {
	l := Lock{Packages: []Package{
		{"tools", "zstd", "1.5.7+dfsg-1", "amd64", sum, 10},
		{"boot", "ipxe", "1:1.21", "all", sum, 20},
	}}
	text := l.format()
	got, err := parseLock(text)
	if err != nil {
		t.Fatal(err)
	}
	if got.Packages[0].Name != "ipxe" || got.Packages[1].Set != "tools" || !bytes.Equal(got.format(), text) {
		t.Errorf("read back as\n%s\nwant\n%s", got.format(), text)
	}
}

func TestParseLockRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"tools zstd 1 amd64 " + sum:                      "line 1: expected: set name",
		"# comment\n\ntools zstd 1 amd64 " + sum + " -1": "line 3: size",
		"tools zstd 1 amd64 abcd 10":                     "not a SHA-256",
	} {
		if _, err := parseLock([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q in it", text, err, want)
		}
	}
}

// What a build takes from the cache counts as used: its files are named alike by
// whoever fetches them and by the lock file.
func TestFetchFromTheCache(t *testing.T) {
	a := &Archive{Repository: t.TempDir(), Cache: t.TempDir()}
	p := Package{"tools", "zstd", "1.5.7+dfsg-1", "amd64", sum, 3}
	deb := filepath.Join(a.cache().Packages(), sum+".deb")
	past := time.Unix(1, 0)
	if err := errors.Join(os.MkdirAll(filepath.Dir(deb), 0o755), os.WriteFile(deb, []byte("deb"), 0o600), os.Chtimes(deb, past, past)); err != nil {
		t.Fatal(err)
	}
	files, err := a.Fetch(t.Context(), []Package{p})
	if err != nil || files["zstd"] != deb {
		t.Fatalf("fetched %v, %v", files, err)
	}
	if info, err := os.Stat(deb); err != nil || info.ModTime().Equal(past) {
		t.Errorf("it does not count as used (%v)", err)
	}

	if _, err := a.Locked(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a lock file: %v", err)
	}
	if err := errors.Join(os.MkdirAll(filepath.Dir(a.lockFile()), 0o755), os.WriteFile(a.lockFile(), Lock{Packages: []Package{p}}.format(), 0o600)); err != nil {
		t.Fatal(err)
	}
	if names, err := a.Locked(); err != nil || !slices.Equal(names, []string{filepath.Base(deb)}) {
		t.Errorf("locked are %v, %v", names, err)
	}
}

func TestChanges(t *testing.T) {
	before := Lock{Packages: []Package{{Set: "a", Name: "gone", Version: "1"}, {Set: "a", Name: "moved", Version: "1"}, {Set: "a", Name: "other", Version: "1", SHA256: "x"}}}
	after := Lock{Packages: []Package{{Set: "a", Name: "moved", Version: "2"}, {Set: "a", Name: "new", Version: "1"}, {Set: "a", Name: "other", Version: "1", SHA256: "y"}}}
	want := []string{"- a gone 1", "  a moved 1 → 2", "+ a new 1", "! a other 1: the same version with other contents"}
	if got := Changes(before, after); !slices.Equal(got, want) {
		t.Errorf("changes %q, want %q", got, want)
	}
}

func TestParseURIs(t *testing.T) {
	got, err := parseURIs("NOTE: something\n'http://m/debian/pool/x/qemu_10.0%2bds.deb' qemu_1%3a10.0+ds-1~deb13u1_amd64.deb 123 SHA256:" + sum + "\n")
	if err != nil {
		t.Fatal(err)
	}
	want := Package{Name: "qemu", Version: "1:10.0+ds-1~deb13u1", Arch: "amd64", SHA256: sum, Size: 123}
	if len(got) != 1 || got[0] != want {
		t.Errorf("got %v, want %v", got, want)
	}
	for line, want := range map[string]string{
		"'u' a_1_amd64.deb 5 MD5Sum:aa":        "not a SHA-256",
		"'u' a_1.deb 5 SHA256:" + sum:          "file name",
		"'u' a_1_amd64.deb five SHA256:" + sum: "size",
		"'u' a_1_amd64.deb":                    "unexpected line",
	} {
		if _, err := parseURIs(line + "\n"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q in it", line, err, want)
		}
	}
}

func TestFindMirrors(t *testing.T) {
	deb822 := "Types: deb\n# URIs: http://no/debian\nURIs: http://a/debian\nSuites: bookworm\n\nTypes: deb\nURIs:\n http://a/debian-security/\nSuites: bookworm-security\n"
	for _, c := range []struct {
		name  string
		files map[string]string
		env   map[string]string
		want  mirrors
		err   string
	}{
		{"deb822", map[string]string{"sources.list.d/debian.sources": deb822}, nil, mirrors{"http://a/debian", "http://a/debian-security"}, ""},
		{"one line", map[string]string{"sources.list": "# deb http://no/debian x main\ndeb [arch=amd64 trusted=no] http://b/debian/ bookworm main\ndeb-src http://no/debian-security x main\n"},
			nil, mirrors{"http://b/debian", "http://b/debian-security"}, ""},
		{"cloud image", map[string]string{"sources.list.d/debian.sources": "Types: deb deb-src\nURIs: mirror+file:///etc/apt/mirrors/debian.list\nSuites: trixie\n"},
			nil, mirrors{"mirror+file:///etc/apt/mirrors/debian.list", "mirror+file:///etc/apt/mirrors/debian-security.list"}, ""},
		{"variable first", map[string]string{"sources.list.d/debian.sources": deb822}, map[string]string{MirrorVariable: "http://v/debian"},
			mirrors{"http://v/debian", "http://v/debian-security"}, ""},
		{"both variables", nil, map[string]string{MirrorVariable: "http://v/deb", SecurityMirrorVariable: "http://v/sec"}, mirrors{"http://v/deb", "http://v/sec"}, ""},
		{"no guess", nil, map[string]string{MirrorVariable: "http://v/deb"}, mirrors{}, SecurityMirrorVariable},
		{"disabled", map[string]string{"sources.list.d/debian.sources": "Enabled: no\n" + deb822[:strings.Index(deb822, "\n\n")+1]}, nil, mirrors{}, MirrorVariable},
		{"other vendors only", map[string]string{"sources.list.d/x.list": "deb https://x/apt stable main\n"}, nil, mirrors{}, MirrorVariable},
	} {
		t.Run(c.name, func(t *testing.T) {
			etc := t.TempDir()
			for name, text := range c.files {
				file := filepath.Join(etc, name)
				if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			got, err := findMirrors(func(name string) string { return c.env[name] }, etc)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("error %v, want %q in it", err, c.err)
				}
				return
			}
			if err != nil || got != c.want {
				t.Errorf("%+v, %v; want %+v", got, err, c.want)
			}
		})
	}
}

func TestNetworkSettings(t *testing.T) {
	dump := "APT::Install-Recommends \"1\";\nAcquire::http::Proxy \"http://p:3128\";\nAcquire::GzipIndexes \"true\";\nAcquire::https::Verify-Peer \"true\";\nAcquire::Retries \"5\";\nDPkg::Post-Invoke:: \"rm x\";\n"
	want := "Acquire::http::Proxy \"http://p:3128\";\nAcquire::https::Verify-Peer \"true\";\nAcquire::Retries \"5\";\n"
	if got := networkSettings(dump); got != want {
		t.Errorf("taken over:\n%s\nwant\n%s", got, want)
	}
}

func TestSets(t *testing.T) {
	s, err := parseSets([]byte("sets:\n  node:\n    closure: together\n    packages: [a, b]\n  boot:\n    packages: [a, b]\n    only: [linux-image-*]\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Sets["node"].installs(); len(got) != 1 || !slices.Equal(got[0], []string{"?essential", "apt", "a", "b"}) {
		t.Errorf("together: %q", got)
	}
	if got := s.Sets["boot"].installs(); len(got) != 2 {
		t.Errorf("with: %q, want one run a package", got)
	}
	if !s.Sets["boot"].keeps("linux-image-6.12") || s.Sets["boot"].keeps("a") || !s.Sets["node"].keeps("anything") {
		t.Error("only: the patterns are not what chooses")
	}
	for text, want := range map[string]string{
		"sets: {}": "no sets",
		"sets: {a: {closure: all, packages: [x]}}": `closure "all"`,
		"sets: {a: {}}":                           "no packages",
		"sets: {a: {packages: [x], onyl: [y]}}":   "onyl",
		"sets: {a: {packages: [x], only: ['[']}}": "syntax error",
	} {
		if _, err := parseSets([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q in it", text, err, want)
		}
	}
}

// The lock and the list of sets in the repository are read, and fit together.
func TestRepositoryLock(t *testing.T) {
	s, err := readSets("../locks/packages.yaml")
	if err != nil {
		t.Fatal(err)
	}
	l, err := ReadLock("../locks/debian.lock")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range s.names() {
		locked, err := l.Set(name)
		if err != nil {
			t.Error(err)
			continue
		}
		for _, want := range s.Sets[name].Packages {
			if !slices.ContainsFunc(locked, func(p Package) bool { return p.Name == want }) {
				t.Errorf("set %s: %s is wanted and not locked: run \"make lock\"", name, want)
			}
		}
	}
	for _, p := range l.Packages {
		if _, ok := s.Sets[p.Set]; !ok {
			t.Errorf("%s is locked for set %s, which there is not: run \"make lock\"", p.Name, p.Set)
		}
	}
}

func TestProxies(t *testing.T) {
	for _, c := range []struct {
		name     string
		in, want []string
	}{
		{"none", []string{"HOME=/root"}, []string{"HOME=/root"}},
		{"capitals alone", []string{"HTTP_PROXY=http://p:3128", "NO_PROXY=lan"}, []string{"HTTP_PROXY=http://p:3128", "NO_PROXY=lan", "http_proxy=http://p:3128", "no_proxy=lan"}},
		{"both", []string{"HTTPS_PROXY=http://a", "https_proxy=http://b"}, []string{"HTTPS_PROXY=http://a", "https_proxy=http://b"}},
		{"empty", []string{"HTTP_PROXY=", "https_proxy=", "HTTPS_PROXY=http://a"}, []string{"HTTP_PROXY=", "https_proxy=", "HTTPS_PROXY=http://a", "https_proxy=http://a"}},
	} {
		if got := proxies(c.in); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
