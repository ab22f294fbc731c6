package tools

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestClean(t *testing.T) {
	got := clean([]string{"PATH=/bin", "LD_PRELOAD=x", "LANG=de_DE", "PERL5LIB=/x", "TZ=Asia/Tokyo", "HOME=/h", "SOURCE_DATE_EPOCH=1"})
	want := []string{"PATH=/bin", "HOME=/h", "LC_ALL=C.UTF-8", "TZ=UTC"}
	if !slices.Equal(got, want) {
		t.Errorf("clean = %q, want %q", got, want)
	}
}

func TestCommandLine(t *testing.T) {
	root := Root(t.TempDir())
	for name, text := range map[string]string{"usr/sbin/mkfs.fat": "\x7fELF", "usr/bin/mmdebstrap": "#!/usr/bin/perl\n"} {
		if err := os.MkdirAll(filepath.Dir(root.at(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(root.at(name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd, err := root.Command(t.Context(), "mkfs.fat", "-n", "X")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{root.at(loader), "--library-path", root.at(libDir), "--argv0", "mkfs.fat", root.at("usr/sbin/mkfs.fat"), "-n", "X"}
	if !slices.Equal(cmd.Args, want) {
		t.Errorf("mkfs.fat runs as %q, want %q", cmd.Args, want)
	}
	cmd, err = root.Command(t.Context(), "mmdebstrap")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(cmd.Args, root.at(perlBin)) {
		t.Errorf("a Perl script runs as %q, without the root's perl", cmd.Args)
	}
	if _, err := root.Command(t.Context(), "absent"); err == nil || !strings.Contains(err.Error(), "packages.yaml") {
		t.Errorf("a tool that is not there: %v, want an error that names packages.yaml", err)
	}
	if _, err := root.Command(t.Context(), "../bin/sh"); err == nil {
		t.Error("a path was taken for a tool's name")
	}
}
