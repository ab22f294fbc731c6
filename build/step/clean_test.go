package step

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestToDrop(t *testing.T) {
	now := time.Date(2026, 5, 20, 12, 0, 0, 0, time.UTC)
	const day, gib = 24 * time.Hour, int64(1 << 30)
	entry := func(name string, size int64, age time.Duration) kept {
		return kept{name: name, bytes: size, used: now.Add(-age)}
	}
	busy := func(k kept) kept { k.busy = true; return k }
	deb := func(k kept) kept { k.fetched = true; return k }
	for _, c := range []struct {
		name string
		all  []kept
		want string
	}{
		{"nothing", nil, ""},
		{"by age", []kept{entry("a", 1, MaxAge), entry("b", 1, MaxAge-1), entry("c", 1, 0)}, "a"},
		{"by age, in use", []kept{busy(entry("a", 1, 30*day)), entry("b", 1, 15*day)}, "b"},
		{"by size, those not used for longest", []kept{entry("a", 6*gib, day), entry("b", 6*gib, 3*day), entry("c", 6*gib, 2*day), entry("d", 6*gib, 0)}, "b c"},
		{"exactly full", []kept{entry("a", 8*gib, day), entry("b", 8*gib, 2*day)}, ""},
		{"by size, one in use", []kept{busy(entry("a", 9*gib, 3*day)), entry("b", 9*gib, day)}, "b"},
		{"by size, all used lately", []kept{entry("a", 9*gib, minAge-1), entry("b", 9*gib, 0)}, ""},
		{"what is old makes room for the rest", []kept{entry("a", 9*gib, 15*day), entry("b", 9*gib, 13*day)}, "a"},
		{"parts", []kept{entry("a.making", 1, 0), busy(entry("b.making", 1, 20*day)), entry("c.dropping", 1, 0), entry("making", 1, 0)}, "a.making c.dropping"},
		{"packages, by age alone", []kept{deb(entry("a", 9*gib, 13*day)), deb(entry("b", 1, MaxAge)), deb(busy(entry("c", 1, MaxAge))), entry("d", 9*gib, day)}, "b d"},
		{"a clock that went back", []kept{entry("a", 20*gib, -day)}, ""},
	} {
		var got []string
		for _, k := range toDrop(c.all, now) {
			got = append(got, k.name)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %v, want %s", c.name, got, c.want)
		}
	}
}

// A folder's room is what its files have on the disk, its share of what has several
// names.
func TestOnDisk(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	if err := errors.Join(os.Mkdir(a, 0o755), os.Mkdir(b, 0o755), os.WriteFile(filepath.Join(a, "x"), make([]byte, 1<<20), 0o600),
		os.Link(filepath.Join(a, "x"), filepath.Join(b, "y")), os.WriteFile(filepath.Join(b, "sparse"), nil, 0o600), os.Truncate(filepath.Join(b, "sparse"), 1<<40)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{a, b} {
		if n, err := onDisk(path); err != nil || n < 1<<19 || n > 1<<19+64<<10 {
			t.Errorf("%s has %d bytes, %v; want half of a shared MiB", path, n, err)
		}
	}
	if n, err := onDisk(filepath.Join(dir, "gone")); err != nil || n != 0 {
		t.Errorf("what is gone has %d bytes, %v", n, err)
	}
}

// Clean removes what nobody uses, and nothing that a build has its hands on, this
// one or another, or that was held.
func TestClean(t *testing.T) {
	dir := t.TempDir()
	step := func(name string, deps ...*Step) *Step {
		return &Step{Name: name, Deps: deps, Make: func(_ context.Context, out string, _ []string, _ io.Writer) error {
			// What it makes may be of any date.
			past := time.Unix(1, 0)
			return errors.Join(os.WriteFile(filepath.Join(out, "file"), make([]byte, 10_000), 0o600), os.Chtimes(out, past, past))
		}}
	}
	none := func() ([]string, error) { return nil, nil }
	var told bytes.Buffer
	build := func(steps ...*Step) *Cache {
		t.Helper()
		c := &Cache{Dir: dir, Progress: &told}
		if _, err := c.Build(t.Context(), steps...); err != nil {
			t.Fatal(err)
		}
		return c
	}
	has := func(want ...string) {
		t.Helper()
		entries, err := os.ReadDir(filepath.Join(dir, "out"))
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range entries {
			name, _, _ := strings.Cut(e.Name(), "-")
			names = append(names, name)
		}
		if !slices.Equal(names, want) {
			t.Errorf("there are %v, want %v; told:\n%s", names, want, told.String())
		}
	}
	end := func(c *Cache) { // as the end of a process does
		t.Helper()
		for _, f := range c.held {
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	soon, late := time.Now(), time.Now().Add(MaxAge+time.Hour)

	first := build(step("a"), step("top", step("base")))
	if err := os.Mkdir(filepath.Join(dir, "out", "killed-1.making"), 0o755); err != nil {
		t.Fatal(err)
	}
	first.Clean(soon, none)
	has("a", "base", "top")
	second := build(step("b"))
	second.Clean(late, none) // the first one still runs
	has("a", "b", "base", "top")
	end(first)
	// A build that only takes from the cache cleans nothing.
	third := build(step("b"))
	third.Clean(late, none)
	has("a", "b", "base", "top")
	end(third)
	told.Reset()
	second.Clean(late, none)
	has("b")
	if want := "  freed   0.0 GiB in " + dir + ": 3 outputs and packages that nobody used lately\n"; told.String() != want {
		t.Errorf("told %q, want %q", told.String(), want)
	}
	end(second)

	// What a build gave stays while somebody holds it, whom it outlives or not.
	held := build(step("held"), step("loose"))
	dirs, err := held.Build(t.Context(), step("held"))
	if err != nil {
		t.Fatal(err)
	}
	if err := Hold(dirs...); err != nil {
		t.Fatal(err)
	}
	runtime.GC() // which closes what nobody refers to
	end(held)
	last := build(step("last"))
	last.Clean(late, none)
	has("held", "last")
	for _, dir := range []string{filepath.Join(dir, "out", step("loose").entryName()), dir} {
		if err := Hold(dir); err == nil {
			t.Errorf("%s was held", dir)
		}
	}

	// So does the folder that a build works in; but not that of one that was killed.
	_, remove, err := (&Cache{Dir: dir}).Scratch("work")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "out", "work-killed"+making), 0o700); err != nil {
		t.Fatal(err)
	}
	last.Clean(late, none)
	has("held", "last", "work")
	if err := remove(); err != nil {
		t.Fatal(err)
	}
	has("held", "last")
	end(last)

	// What has been cleaned away is made anew for what refers to it, and is in use
	// with it.
	refers := func() *Step {
		s := step("script", step("program"))
		s.Refers = true
		return s
	}
	end(build(refers()))
	if err := os.RemoveAll(filepath.Join(dir, "out", step("program").entryName())); err != nil {
		t.Fatal(err)
	}
	again := build(refers())
	other := build(step("other"))
	other.Clean(late, none)
	has("held", "other", "program", "script")
	end(again)
	end(other)

	// What something was made from is used with it.
	end(build(step("top", step("base"))))
	before, err := lastUse(filepath.Join(dir, "out", step("base").entryName()))
	if err != nil {
		t.Fatal(err)
	}
	end(build(step("top", step("base"))))
	if after, err := lastUse(filepath.Join(dir, "out", step("base").entryName())); err != nil || !after.After(before) {
		t.Errorf("base was used at %v, and then at %v (%v)", before, after, err)
	}
}

// Of the packages those stay that the lock file names, or that a build takes; all, if
// it cannot be read, and while somebody says what it uses.
func TestCleanPackages(t *testing.T) {
	dir := t.TempDir()
	var told bytes.Buffer
	c := &Cache{Dir: dir, Progress: &told, made: true}
	if err := errors.Join(os.MkdirAll(c.entry(""), 0o755), os.MkdirAll(c.Packages(), 0o755)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"locked.deb", "loose.deb", "taken.deb"} {
		if err := os.WriteFile(filepath.Join(c.Packages(), name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	has := func(want ...string) {
		t.Helper()
		entries, err := os.ReadDir(c.Packages())
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
		}
		if !slices.Equal(names, want) {
			t.Errorf("there are %v, want %v; told:\n%s", names, want, told.String())
		}
	}
	locked := func() ([]string, error) { return []string{"locked.deb", "not-there.deb"}, nil }
	lastUse := func(name string) time.Time {
		t.Helper()
		used, err := lastUse(filepath.Join(c.Packages(), name))
		if err != nil {
			t.Fatal(err)
		}
		return used
	}
	late := lastUse("taken.deb").Add(MaxAge)

	c.Clean(late, func() ([]string, error) { return nil, errors.New("no lock file") })
	has("locked.deb", "loose.deb", "taken.deb")
	if want := "  note    the build cache is not cleaned: no lock file\n"; told.String() != want {
		t.Errorf("told %q, want %q", told.String(), want)
	}

	// All were listed as old; then a build takes one.
	all, err := c.list()
	if err != nil {
		t.Fatal(err)
	}
	for before := lastUse("taken.deb"); !lastUse("taken.deb").After(before); { // the file system's clock has ticks
		if err := c.UsePackages("taken.deb"); err != nil {
			t.Fatal(err)
		}
	}
	for _, k := range all {
		if k.name != "taken.deb" {
			continue
		}
		if done, err := c.drop(k); done || err != nil {
			t.Errorf("what is used was removed: %v, %v", done, err)
		}
	}

	other, err := c.lock(packagesLock, unix.LOCK_SH)
	if err != nil {
		t.Fatal(err)
	}
	c.Clean(late, locked)
	has("locked.deb", "loose.deb", "taken.deb")
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	told.Reset()
	c.Clean(late, locked)
	has("locked.deb", "taken.deb")
	if want := "  freed   0.0 GiB in " + dir + ": 1 outputs and packages that nobody used lately\n"; told.String() != want {
		t.Errorf("told %q, want %q", told.String(), want)
	}
}
