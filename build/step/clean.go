package step

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// How long outputs and packages stay in the cache.
const (
	// MaxBytes is what all may have; beyond it those outputs go that were not used
	// for longest.
	MaxBytes = 16 << 30
	// MaxAge is how long an output or a package stays that nobody uses.
	MaxAge = 14 * 24 * time.Hour
	// minAge is how long it stays in any case: tests work with outputs when the build
	// that gave them has ended. What may live longer holds them (Hold).
	minAge = 12 * time.Hour
)

// What stands behind the name of an output that is no whole one.
const (
	making   = ".making"   // a build works in it, or was killed while it did
	dropping = ".dropping" // it is being removed
)

// packagesLock is held shared by who says that packages are used, and exclusive by
// who removes one. No output has that name: theirs end in a key.
const packagesLock = "packages"

// kept is one output in the cache, or one package from outside.
type kept struct {
	name  string
	path  string
	bytes int64 // on disk
	used  time.Time
	// busy: somebody makes it or uses it, this process or another.
	busy bool
	// fetched: a package. What mirrors have it no more, so room alone is no reason.
	fetched bool
}

// part is true of what no build will ever take from there.
func (k kept) part() bool {
	return strings.HasSuffix(k.name, making) || strings.HasSuffix(k.name, dropping)
}

// lockName is the name of its lock.
func (k kept) lockName() string {
	if k.fetched {
		return packagesLock
	}
	return strings.TrimSuffix(strings.TrimSuffix(k.name, making), dropping)
}

// toDrop chooses what is removed: what is only a part, what was not used for
// MaxAge, and, while all together have more than MaxBytes, what was not used for
// longest; but no package for its room, and nothing that is in use, or was until a
// short time ago.
func toDrop(all []kept, now time.Time) (drop []kept) {
	all = slices.Clone(all)
	slices.SortStableFunc(all, func(a, b kept) int { return a.used.Compare(b.used) })
	var total int64
	for _, k := range all {
		total += k.bytes
	}
	for _, k := range all {
		age := now.Sub(k.used)
		if !k.busy && (k.part() || age >= MaxAge || age >= minAge && total > MaxBytes && !k.fetched) {
			drop = append(drop, k)
			total -= k.bytes
		}
	}
	return drop
}

// Clean removes outputs and packages that were not used lately, if this process made
// new outputs, and tells in one line what it freed. locked are the names of packages
// that count as used: those of the lock file, which a mirror may have no more. Other
// builds may run meanwhile. What cannot be removed is told, and tried again the next
// time.
//
// Locks stay. They are empty; and who waits for one while it is removed would hold
// another one than who comes later.
func (c *Cache) Clean(now time.Time, locked func() ([]string, error)) {
	if !c.made {
		return
	}
	names, err := locked()
	if err == nil {
		err = c.UsePackages(names...)
	}
	var all []kept
	if err == nil {
		all, err = c.list()
	}
	var freed int64
	n := 0
	for _, k := range toDrop(all, now) {
		done, e := c.drop(k)
		err = errors.Join(err, e)
		if done {
			freed += k.bytes
			n++
		}
	}
	if n > 0 {
		fmt.Fprintf(c.Progress, "  freed   %.1f GiB in %s: %d outputs and packages that nobody used lately\n", float64(freed)/(1<<30), c.Dir, n)
	}
	if err != nil {
		fmt.Fprintf(c.Progress, "  note    the build cache is not cleaned: %v\n", err)
	}
}

// list are all outputs and packages.
func (c *Cache) list() (all []kept, err error) {
	outputs, err := os.ReadDir(c.entry(""))
	if err != nil {
		return nil, err
	}
	packages, err := os.ReadDir(c.Packages())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var found []kept
	for _, e := range outputs {
		found = append(found, kept{name: e.Name(), path: c.entry(e.Name())})
	}
	for _, e := range packages {
		found = append(found, kept{name: e.Name(), path: filepath.Join(c.Packages(), e.Name()), fetched: true})
	}
	for _, k := range found {
		used, gone := lastUse(k.path)
		if gone != nil {
			continue // by another process
		}
		k.used = used
		if k.bytes, err = onDisk(k.path); err != nil {
			return nil, err
		}
		lock, err := c.lock(k.lockName(), unix.LOCK_EX|unix.LOCK_NB)
		k.busy = err != nil
		if err == nil {
			err = lock.Close()
		}
		if err != nil && !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, err
		}
		all = append(all, k)
	}
	return all, nil
}

// lastUse is when something was made or touched last: its inode's change time, as
// what makes it may set the time of its modification.
func lastUse(path string) (time.Time, error) {
	info, err := os.Stat(path)
	if err != nil {
		return time.Time{}, err
	}
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return time.Time{}, fmt.Errorf("%s: no change time", path)
	}
	return time.Unix(s.Ctim.Unix()), nil
}

// onDisk is the room that a folder takes: of sparse files what is allocated, of
// files with several names, as an image's root and the blob that it is too, each
// one's share. What vanishes meanwhile takes none.
func onDisk(path string) (bytes int64, err error) {
	err = filepath.WalkDir(path, func(_ string, d fs.DirEntry, err error) error {
		if err == nil {
			var info fs.FileInfo
			if info, err = d.Info(); err == nil {
				if s, ok := info.Sys().(*syscall.Stat_t); ok {
					share := int64(1)
					if info.Mode().IsRegular() {
						share = int64(s.Nlink)
					}
					bytes += s.Blocks * 512 / max(1, share)
				}
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	return bytes, err
}

// drop removes an output or a package, unless somebody began to use it. An output is
// renamed first: killed in between, nobody takes half of it.
func (c *Cache) drop(k kept) (done bool, err error) {
	lock, err := c.lock(k.lockName(), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	path := k.path
	if used, err := lastUse(path); err != nil || !used.Equal(k.used) {
		return false, nil
	}
	if !k.part() && !k.fetched {
		whole := path
		path += dropping
		if err := errors.Join(os.RemoveAll(path), os.Rename(whole, path)); err != nil {
			return false, err
		}
	}
	err = os.RemoveAll(path)
	return err == nil, err
}
