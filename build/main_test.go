package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
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

// What the program on the stick says of a site file counts when the stick is made.
func TestValidate(t *testing.T) {
	rackseed := filepath.Join(t.TempDir(), "rackseed")
	for _, c := range []struct{ script, want, fails string }{
		{`echo '{"valid": true, "problems": [], "warnings": [{"line": 7, "column": 1, "path": "links", "text": "x"}]}'`, "s.yaml:7:1: warning: links: x", ""},
		{`echo '{"problems": [{"line": 3, "column": 9, "path": "profiles[0].ignition", "text": "not JSON"}]}'; exit 1`, "", "SITE names:\nmy/s.yaml:3:9: profiles[0].ignition: not JSON"},
		{`echo 'no such thing' >&2; exit 2`, "", "SITE=my/s.yaml: exit status 2"},
	} {
		if err := os.WriteFile(rackseed, []byte("#!/bin/sh\n[ \"$*\" = 'site validate --output json my/s.yaml' ] || exit 9\n"+c.script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		warnings, err := validate(t.Context(), rackseed, "my/s.yaml")
		got := ""
		for _, w := range warnings {
			got += w.Warning("s.yaml")
		}
		if got != c.want || (err == nil) != (c.fails == "") || err != nil && !strings.Contains(err.Error(), c.fails) {
			t.Errorf("%s: %q, %v; want %q, %q", c.script, got, err, c.want, c.fails)
		}
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

func TestExamine(t *testing.T) {
	found := func(text string, err error) func(context.Context) (string, error) {
		return func(context.Context) (string, error) { return text, err }
	}
	list := []check{
		{"gold", found("in the cellar", nil), true},
		{"silver", found("", errors.New("none: dig")), false},
		{"iron", found("", errors.New("rusty\nscour it")), true},
	}
	for _, c := range []struct {
		all  bool
		list []check
		want string
		fail string
	}{
		{true, list, "  ok    gold             in the cellar\n  note  silver           none: dig\n" +
			"  NO    iron             rusty\n                         scour it\n", "1 of what"},
		{false, list[:2], "  note  silver           none: dig\n", ""},
		{false, list[:1], "", ""},
	} {
		var b strings.Builder
		err := examine(t.Context(), c.list, c.all, &b)
		if b.String() != c.want {
			t.Errorf("printed\n%swant\n%s", b.String(), c.want)
		}
		if (err == nil) != (c.fail == "") || err != nil && !strings.Contains(err.Error(), c.fail) {
			t.Errorf("error %v, want %q", err, c.fail)
		}
	}
}

func TestEnough(t *testing.T) {
	for _, c := range []struct {
		free  int
		built bool
		want  string
	}{
		{coldMiB, false, ""}, {coldMiB - 1, false, "a first build takes about"}, {coldMiB - 1, true, ""}, {warmMiB - 1, true, "XDG_CACHE_HOME"},
	} {
		err := enough(c.free, c.built)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%d MiB, built %v: %v, want %q", c.free, c.built, err, c.want)
		}
	}
}

// What is missing is said with the one command that gets it.
func TestPackages(t *testing.T) {
	bin := t.TempDir() // a machine's PATH, on which no gcc, git and newuidmap are
	for _, program := range []string{"id", "awk", "printf"} {
		path, err := exec.LookPath(program)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(bin, program)); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin)
	_, err := packages(t.Context(), "..")
	for _, want := range []string{"  gcc ", "  git ", "apt-get install -y --no-install-recommends ", " gcc libc6-dev", " git"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q in it", err, want)
		}
	}
	if err != nil && strings.Count(err.Error(), "apt-get install") != 1 {
		t.Errorf("more than one command: %v", err)
	}
}
