package install

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// watch finds out whether a file was ever opened for writing since: inotify
// tells of each that was closed again, /proc of those that are open.
type watch struct {
	t      *testing.T
	path   string
	notify int
	seen   bool
}

func newWatch(t *testing.T, path string) *watch {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Close(fd); err != nil {
			t.Error(err)
		}
	})
	if _, err := unix.InotifyAddWatch(fd, path, unix.IN_CLOSE_WRITE|unix.IN_MODIFY); err != nil {
		t.Fatal(err)
	}
	return &watch{t: t, path: path, notify: fd}
}

func (w *watch) opened() bool {
	w.t.Helper()
	n, err := unix.Read(w.notify, make([]byte, 4096))
	if err != nil && !errors.Is(err, unix.EAGAIN) {
		w.t.Error(err)
	}
	w.seen = w.seen || n > 0 || w.isOpen()
	return w.seen
}

// isOpen says whether this process has it open for writing.
func (w *watch) isOpen() bool {
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		w.t.Error(err)
	}
	for _, e := range open {
		// What is closed meanwhile has told inotify.
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err != nil || to != w.path {
			continue
		}
		info, err := os.ReadFile("/proc/self/fdinfo/" + e.Name())
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(info)) {
			var flags int
			if _, err := fmt.Sscanf(line, "flags: %o", &flags); err == nil && flags&unix.O_ACCMODE != unix.O_RDONLY {
				return true
			}
		}
	}
	return false
}

// It would notice: the files that tests write are found out.
func TestWatch(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(path string) error
		want bool
	}{
		"read":    {func(p string) error { _, err := os.ReadFile(p); return err }, false},
		"written": {func(p string) error { return os.WriteFile(p, []byte("y"), 0o600) }, true},
		"opened for writing, and closed": {func(p string) error {
			f, err := os.OpenFile(p, os.O_RDWR, 0)
			return errors.Join(err, f.Close())
		}, true},
		"opened for writing": {func(p string) error {
			f, err := os.OpenFile(p, os.O_WRONLY, 0)
			t.Cleanup(func() { _ = f.Close() })
			return err
		}, true},
	} {
		path := t.TempDir() + "/disk"
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		w := newWatch(t, path)
		if err := c.do(path); err != nil {
			t.Fatal(err)
		}
		if w.opened() != c.want {
			t.Errorf("%s: opened for writing: %v", name, !c.want)
		}
	}
}
