// Package step builds things once. What a step makes is kept in the cache
// under the hash of its inputs, so that a second clone, or a second run, takes
// it from there; nothing is ever rebuilt because of a date.
package step

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Step makes one folder of files from its inputs.
type Step struct {
	// Name is shown, and is part of the folder's name in the cache.
	Name string
	// Inputs are hashed: versions, flags, Files and Tree digests. Whatever can
	// change the output must be in them.
	Inputs []string
	// Deps are made first; their keys are inputs.
	Deps []*Step
	// Refers: the output holds paths of Deps' folders, and is nothing without them.
	Refers bool
	// Make writes the output into out. deps are the folders of Deps. What it
	// prints on log is kept, and shown if it fails.
	Make func(ctx context.Context, out string, deps []string, log io.Writer) error

	once sync.Once
	dir  string
	err  error
}

// Cache is where outputs are kept, and how progress is told.
type Cache struct {
	Dir      string    // see DefaultDir
	Progress io.Writer // one line a step

	mu      sync.Mutex
	held    []*os.File      // locks on what was used, until this process ends
	touched map[string]bool // what Clean must take for used, by name
	made    bool            // something was
}

// DefaultDir is ${XDG_CACHE_HOME:-~/.cache}/rackseed.
func DefaultDir() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no place for the build cache: %w; set XDG_CACHE_HOME", err)
	}
	return filepath.Join(dir, "rackseed"), nil
}

// Key is the hash that the step's output is kept under.
func (s *Step) Key() string {
	h := sha256.New()
	fmt.Fprintf(h, "step 1\n%s\n", s.Name)
	for _, in := range s.Inputs {
		fmt.Fprintf(h, "%d:%s\n", len(in), in)
	}
	for _, d := range s.Deps {
		fmt.Fprintf(h, "dep %s\n", d.Key())
	}
	return hex.EncodeToString(h.Sum(nil))[:20]
}

// Get makes the step, unless the cache has it, and returns its folder. The
// folder must not be changed.
func (c *Cache) Get(ctx context.Context, s *Step) (string, error) {
	s.once.Do(func() { s.dir, s.err = c.make(ctx, s) })
	return s.dir, s.err
}

// Build makes the steps in order, and returns their folders.
func (c *Cache) Build(ctx context.Context, steps ...*Step) ([]string, error) {
	var dirs []string
	for _, s := range steps {
		dir, err := c.Get(ctx, s)
		if err != nil {
			return nil, err
		}
		dirs = append(dirs, dir)
	}
	return dirs, nil
}

func (c *Cache) make(ctx context.Context, s *Step) (string, error) {
	final := c.entry(s.entryName())
	if s.Refers {
		if _, err := c.Build(ctx, s.Deps...); err != nil {
			return "", err
		}
	}
	// Held until this process ends: Clean of another one leaves it alone.
	lock, err := c.lock(s.entryName(), unix.LOCK_SH)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(final); err == nil {
		return c.cached(s, lock), nil
	}
	if err := lock.Close(); err != nil {
		return "", fmt.Errorf("build cache %s: lock: %w", c.Dir, err)
	}
	if lock, err = c.lock(s.entryName(), unix.LOCK_EX); err != nil {
		return "", err
	}
	kept := false
	defer func() {
		if !kept {
			_ = lock.Close() // the lock goes with it; nothing was written
		}
	}()
	if _, err := os.Stat(final); err == nil { // another process made it meanwhile
		kept = true
		return c.cached(s, lock), nil
	}
	deps, err := c.Build(ctx, s.Deps...)
	if err != nil {
		return "", err
	}
	tmp := final + making
	if err := errors.Join(os.RemoveAll(tmp), os.MkdirAll(tmp, 0o755)); err != nil {
		return "", fmt.Errorf("build %s: %w", s.Name, err)
	}
	if err := os.MkdirAll(filepath.Join(c.Dir, "log"), 0o755); err != nil {
		return "", fmt.Errorf("build %s: %w", s.Name, err)
	}
	logPath := filepath.Join(c.Dir, "log", s.Name+".log")
	log, err := os.Create(logPath)
	if err != nil {
		return "", fmt.Errorf("build %s: %w", s.Name, err)
	}
	defer log.Close()
	fmt.Fprintf(c.Progress, "  build   %s …\n", s.Name)
	start := time.Now()
	if err := s.Make(ctx, tmp, deps, log); err != nil {
		return "", fmt.Errorf("build %s: %w\nlog: %s%s", s.Name, err, logPath, tail(logPath, 15))
	}
	if err := os.Rename(tmp, final); err != nil {
		return "", fmt.Errorf("build %s: %w", s.Name, err)
	}
	fmt.Fprintf(c.Progress, "  built   %s (%.0f s)\n", s.Name, time.Since(start).Seconds())
	kept = true
	c.use(s, lock)
	c.made = true
	return final, nil
}

func (s *Step) entryName() string { return s.Name + "-" + s.Key() }

func (c *Cache) entry(name string) string { return filepath.Join(c.Dir, "out", name) }

func (c *Cache) cached(s *Step, lock *os.File) string {
	fmt.Fprintf(c.Progress, "  cached  %s\n", s.Name)
	c.use(s, lock)
	return c.entry(s.entryName())
}

// use keeps a step's output from Clean: that of this process, and of others by a
// shared lock, until this process ends. What it was made from counts as used,
// too: it is what the next change needs.
func (c *Cache) use(s *Step, lock *os.File) {
	c.mu.Lock()
	defer c.mu.Unlock()
	// Where that fails it stays exclusive, and others wait.
	_ = unix.Flock(int(lock.Fd()), unix.LOCK_SH)
	c.held = append(c.held, lock)
	c.touch(s, time.Now())
}

func (c *Cache) touch(s *Step, now time.Time) {
	name := s.entryName()
	if c.touched[name] {
		return
	}
	if c.touched == nil {
		c.touched = map[string]bool{}
	}
	c.touched[name] = true
	_ = os.Chtimes(c.entry(name), now, now) // it may be gone; only the order of Clean hangs on it
	for _, d := range s.Deps {
		c.touch(d, now)
	}
}

// Packages is the folder for packages from outside, each of them one file.
func (c *Cache) Packages() string { return filepath.Join(c.Dir, "debs") }

// UsePackages keeps files of Packages from Clean for MaxAge. Those that are not there
// are none of its business.
func (c *Cache) UsePackages(names ...string) error {
	// With the lock Clean sees the use, or has removed the file before.
	lock, err := c.lock(packagesLock, unix.LOCK_SH)
	if err != nil {
		return err
	}
	now := time.Now()
	for _, name := range names {
		if e := os.Chtimes(filepath.Join(c.Packages(), name), now, now); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, fmt.Errorf("build cache: %w", e))
		}
	}
	return errors.Join(err, lock.Close())
}

// lock keeps two builds from making the same thing at once (how is
// unix.LOCK_EX), and from losing what they use (unix.LOCK_SH). With unix.LOCK_NB
// the error may be unix.EWOULDBLOCK.
func (c *Cache) lock(name string, how int) (*os.File, error) {
	dir := filepath.Join(c.Dir, "lock")
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.MkdirAll(filepath.Join(c.Dir, "out"), 0o755)); err != nil {
		return nil, fmt.Errorf("build cache %s: %w", c.Dir, err)
	}
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("build cache %s: %w", c.Dir, err)
	}
	if err := unix.Flock(int(f.Fd()), how); err != nil {
		return nil, errors.Join(fmt.Errorf("build cache %s: lock: %w", c.Dir, err), f.Close())
	}
	return f, nil
}

// Hold keeps outputs from Clean until this process ends: of a build that gave their
// folders and ended before.
func Hold(dirs ...string) error {
	for _, dir := range dirs {
		out, name := filepath.Split(filepath.Clean(dir))
		c := &Cache{Dir: filepath.Dir(filepath.Clean(out))}
		if c.entry(name) != filepath.Clean(dir) {
			return fmt.Errorf("%s: expected a folder of the build cache", dir)
		}
		lock, err := c.lock(name, unix.LOCK_SH)
		if err != nil {
			return err
		}
		// As a number it is closed by nobody before the process ends.
		_, err = unix.FcntlInt(lock.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err = errors.Join(err, lock.Close()); err != nil {
			return fmt.Errorf("build cache %s: lock: %w", c.Dir, err)
		}
		if _, err := os.Stat(dir); err != nil {
			return fmt.Errorf("%w: it was removed meanwhile; begin again", err)
		}
	}
	return nil
}

// Scratch makes a folder in the cache for work in between, until remove. That of a
// killed build is removed by Clean.
func (c *Cache) Scratch(name string) (dir string, remove func() error, err error) {
	name += "-" + rand.Text()
	lock, err := c.lock(name, unix.LOCK_SH) // first: what has none is a killed build's
	if err != nil {
		return "", nil, err
	}
	dir = c.entry(name) + making
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", nil, errors.Join(fmt.Errorf("build cache: %w", err), lock.Close())
	}
	return dir, func() error { return errors.Join(os.RemoveAll(dir), os.Remove(lock.Name()), lock.Close()) }, nil
}

func tail(path string, lines int) string {
	b, err := os.ReadFile(path)
	if err != nil || len(b) == 0 {
		return ""
	}
	all := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	if len(all) > lines {
		all = all[len(all)-lines:]
	}
	return "\n    " + strings.Join(all, "\n    ")
}

// Files is an input: the names, modes and contents of files and of all files
// below folders, by paths relative to root. A path that does not exist is an
// error.
func Files(root string, paths ...string) (string, error) {
	h := sha256.New()
	for _, p := range paths {
		var files []string
		err := filepath.WalkDir(filepath.Join(root, p), func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.IsDir() && (d.Name() == "node_modules" || d.Name() == "dist") {
				return filepath.SkipDir
			}
			if d.Type().IsRegular() {
				files = append(files, path)
			}
			return nil
		})
		if err != nil {
			return "", fmt.Errorf("build input %s: %w", p, err)
		}
		sort.Strings(files)
		for _, f := range files {
			info, err := os.Stat(f)
			if err != nil {
				return "", fmt.Errorf("build input %s: %w", f, err)
			}
			b, err := os.ReadFile(f)
			if err != nil {
				return "", fmt.Errorf("build input %s: %w", f, err)
			}
			rel, err := filepath.Rel(root, f)
			if err != nil {
				return "", fmt.Errorf("build input %s: %w", f, err)
			}
			fmt.Fprintf(h, "%s %t %d %x\n", rel, info.Mode()&0o111 != 0, len(b), sha256.Sum256(b))
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
