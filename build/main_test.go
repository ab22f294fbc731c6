package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rackseed/rackseed/services/site"
)

// The site file of a stick that nobody wrote one for must set nothing up, and
// become the example again when its marks are taken away.
func TestTemplateSetsNothingUp(t *testing.T) {
	example, err := os.ReadFile("../docs/site.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text := template(example)
	for line := range strings.Lines(string(text)) {
		if l := strings.TrimSpace(line); l != "" && !strings.HasPrefix(l, "#") {
			t.Errorf("line %q is in force", l)
		}
	}
	if _, err := site.Parse("site.yaml", text); err == nil {
		t.Error("the template is taken for a site file")
	}
	if _, err := site.Parse("site.yaml", []byte(strings.ReplaceAll(string(text), "#- ", ""))); err != nil {
		t.Errorf("without its marks: %v", err)
	}
}

func TestSiteFileIsCheckedBeforeItIsWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "my.yaml")
	if err := os.WriteFile(path, []byte("version: 2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b := &builder{repo: ".."}
	if _, _, err := b.siteFile(path); err == nil || !strings.Contains(err.Error(), "my.yaml:1:") {
		t.Errorf("got %v", err)
	}
	if _, _, err := b.siteFile("/nowhere/site.yaml"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

// Whoever makes a stick is told what it will do.
func TestSummary(t *testing.T) {
	b := &builder{repo: ".."}
	for path, want := range map[string]string{"": "serves nothing until it is set up", "../docs/site.example.yaml": "nothing is installed without asking"} {
		_, s, err := b.siteFile(path)
		if got := strings.Join(summary(s), "\n"); err != nil || !strings.Contains(got, want) {
			t.Errorf("SITE=%s: %v, %s; want %q", path, err, got, want)
		}
	}
}

func TestSame(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"a": "x", "b": "x", "c": "y"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := same(filepath.Join(dir, "a"), filepath.Join(dir, "b")); err != nil {
		t.Error(err)
	}
	if err := same(filepath.Join(dir, "a"), filepath.Join(dir, "c")); err == nil {
		t.Error("files that differ were taken for the same")
	}
}

func TestDoctorNamesWhatIsMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	var b strings.Builder
	err := doctor(context.Background(), t.TempDir(), &b)
	if err == nil || !strings.Contains(b.String(), "NO    git") || !strings.Contains(b.String(), "install git") {
		t.Errorf("%v\n%s", err, b.String())
	}
}
