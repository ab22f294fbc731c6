// Package kmod loads kernel modules with their dependencies from depmod's
// indexes, for a PID 1 without udev and kmod, and acts as /sbin/modprobe, which
// the kernel starts by itself (crc32c for ext4, nls for vfat).
package kmod

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrUnknown says that there is neither a module nor an alias of that name.
var ErrUnknown = errors.New("no such kernel module")

// compressedFile is MODULE_INIT_COMPRESSED_FILE of finit_module(2): the kernel
// unpacks .xz and .zst itself.
const compressedFile = 4

// Loader loads modules into the running kernel. It is for one goroutine.
type Loader struct {
	index  *Index
	dir    string
	log    *slog.Logger
	done   map[string]bool  // loaded, or found loaded
	failed map[string]error // tried in vain: not again
	// insert loads one file; replaced by tests.
	insert func(path string) error
}

// Open reads the index of the running kernel's modules, below /lib/modules.
func Open(log *slog.Logger) (*Loader, error) { return open(log, ReadIndex) }

func open(log *slog.Logger, read func(fs.FS) (*Index, error)) (*Loader, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return nil, fmt.Errorf("the kernel's version: %w", err)
	}
	dir := "/lib/modules/" + unix.ByteSliceToString(u.Release[:])
	x, err := read(os.DirFS(dir))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return newLoader(x, dir, log), nil
}

func newLoader(x *Index, dir string, log *slog.Logger) *Loader {
	return &Loader{index: x, dir: dir, log: log, done: map[string]bool{}, failed: map[string]error{}, insert: insert}
}

// Load loads modules by name or alias; those in the kernel or loaded already
// are fine. Every one is tried; the error names those that failed.
func (l *Loader) Load(words ...string) error {
	var all []error
	for _, w := range words {
		modules, builtin := l.index.Resolve(w)
		if len(modules) == 0 && !builtin {
			all = append(all, fmt.Errorf("%s: %w", w, ErrUnknown))
		}
		for _, m := range modules {
			if err := l.loadModule(m); err != nil {
				all = append(all, err)
			}
		}
	}
	return errors.Join(all...)
}

func (l *Loader) loadModule(module string) error {
	if l.done[module] {
		return nil
	}
	if err := l.failed[module]; err != nil {
		return err
	}
	for _, s := range l.index.Plan(module) {
		if l.done[s.Module] {
			continue
		}
		err := l.insert(filepath.Join(l.dir, s.Path))
		if err == nil {
			l.done[s.Module] = true
			continue
		}
		err = fmt.Errorf("kernel module %s: %w", s.Module, err)
		if !s.Soft {
			l.failed[module] = err
			return err
		}
		l.log.Debug("an optional kernel module was not loaded", "error", err)
	}
	return nil
}

func insert(path string) error {
	// A module that is there would be unpacked before the kernel notices.
	state, err := os.ReadFile("/sys/module/" + Name(path) + "/initstate")
	if err == nil && strings.TrimSpace(string(state)) == "live" {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	flags := 0
	if !strings.HasSuffix(path, ".ko") {
		flags = compressedFile
	}
	if err := unix.FinitModule(int(f.Fd()), "", flags); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}
