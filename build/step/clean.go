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

// How long outputs stay in the cache.
const (
	// MaxBytes is what all outputs may have; beyond it those go that were not used
	// for longest.
	MaxBytes = 16 << 30
	// MaxAge is how long an output stays that nobody uses.
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

// kept is one output in the cache.
type kept struct {
	name  string
	bytes int64 // on disk
	used  time.Time
	// busy: somebody makes it or uses it, this process or another.
	busy bool
}

// part is true of what no build will ever take from there.
func (k kept) part() bool {
	return strings.HasSuffix(k.name, making) || strings.HasSuffix(k.name, dropping)
}

// lockName is the name of the output's lock.
func (k kept) lockName() string {
	return strings.TrimSuffix(strings.TrimSuffix(k.name, making), dropping)
}

// toDrop chooses what is removed: what is only a part, what was not used for
// MaxAge, and, while all together have more than MaxBytes, what was not used for
// longest; but nothing that is in use, or was until a short time ago.
func toDrop(all []kept, now time.Time) (drop []kept) {
	all = slices.Clone(all)
	slices.SortStableFunc(all, func(a, b kept) int { return a.used.Compare(b.used) })
	var total int64
	for _, k := range all {
		total += k.bytes
	}
	for _, k := range all {
		age := now.Sub(k.used)
		if !k.busy && (k.part() || age >= MaxAge || age >= minAge && total > MaxBytes) {
			drop = append(drop, k)
			total -= k.bytes
		}
	}
	return drop
}

// Clean removes outputs that were not used lately, if this process made new ones,
// and tells in one line what it freed. Other builds may run meanwhile. What cannot
// be removed is told, and tried again the next time.
func (c *Cache) Clean(now time.Time) {
	if !c.made {
		return
	}
	all, err := c.list()
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
		fmt.Fprintf(c.Progress, "  freed   %.1f GiB in %s: %d outputs that nobody used lately\n", float64(freed)/(1<<30), filepath.Join(c.Dir, "out"), n)
	}
	if err != nil {
		fmt.Fprintf(c.Progress, "  note    the build cache is not cleaned: %v\n", err)
	}
}

// list are all outputs.
func (c *Cache) list() (all []kept, err error) {
	entries, err := os.ReadDir(c.entry(""))
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		k := kept{name: e.Name()}
		used, gone := lastUse(c.entry(k.name))
		if gone != nil {
			continue // by another process
		}
		k.used = used
		if k.bytes, err = onDisk(c.entry(k.name)); err != nil {
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

// lastUse is when a folder was made or touched last: its inode's change time, as
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

// drop removes an output, unless somebody began to use it. It is renamed first:
// killed in between, nobody takes half of it.
func (c *Cache) drop(k kept) (done bool, err error) {
	lock, err := c.lock(k.lockName(), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	path := c.entry(k.name)
	if used, err := lastUse(path); err != nil || !used.Equal(k.used) {
		return false, nil
	}
	if !k.part() {
		whole := path
		path += dropping
		if err := errors.Join(os.RemoveAll(path), os.Rename(whole, path)); err != nil {
			return false, err
		}
	}
	err = os.RemoveAll(path)
	return err == nil, err
}
