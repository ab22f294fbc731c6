package tools

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A loader that prints its arguments shows what a script starts.
func TestScriptsStartTheRootsPrograms(t *testing.T) {
	root := Root(filepath.Join(t.TempDir(), "it's a $HOME"))
	for name, text := range map[string]string{
		loader:                          "#!/bin/sh\nprintf '%s\\n' \"$@\"\n",
		"usr/sbin/nft":                  "\x7fELF",
		"usr/sbin/kea-ctl":              "#!/bin/sh\n",
		"usr/bin/swtpm":                 "\x7fELF",
		libDir + "/swtpm/libswtpm.so.0": "\x7fELF",
	} {
		if err := os.MkdirAll(filepath.Dir(root.at(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(root.at(name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	bin := t.TempDir()
	if err := root.WriteScripts(bin, "nft"); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(filepath.Join(bin, "nft"), "-f", "a b").CombinedOutput()
	want := strings.Join([]string{"--library-path", root.at(libDir), "--argv0", "nft", root.at("usr/sbin/nft"), "-f", "a b", ""}, "\n")
	if err != nil || string(out) != want {
		t.Errorf("%v, the loader got\n%swant\n%s", err, out, want)
	}
	if err := root.WriteScripts(bin, "swtpm"); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(filepath.Join(bin, "swtpm")).Output(); err != nil || !strings.Contains(string(out), "\n"+root.at(libDir)+":"+root.at(libDir+"/swtpm")+"\n") {
		t.Errorf("with libraries of its own: %v, %s", err, out)
	}
	for name, want := range map[string]string{"kea-ctl": "is a script", "absent": "packages.yaml"} {
		if err := root.WriteScripts(bin, name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want an error with %q", name, err, want)
		}
	}
}
