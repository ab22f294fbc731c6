package pid1

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Console is every terminal that the kernel's command line names (console=…):
// /dev/console alone would be the last of them, and the other a dark screen.
type Console struct {
	mu    sync.Mutex
	files []*os.File
}

// OpenConsole opens them, and makes the last one standard input, output and
// error. /dev and /sys must be mounted.
func OpenConsole() (*Console, error) {
	c := &Console{}
	active, err := os.ReadFile("/sys/class/tty/console/active")
	if err != nil {
		return nil, fmt.Errorf("the active consoles: %w", err)
	}
	for _, name := range strings.Fields(string(active)) {
		// One that does not open (a serial port without hardware) is no reason
		// to be silent on the others.
		if f, err := os.OpenFile("/dev/"+name, os.O_RDWR|unix.O_NOCTTY, 0); err == nil {
			c.files = append(c.files, f)
		}
	}
	f, err := os.OpenFile("/dev/console", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, fmt.Errorf("the console: %w", err)
	}
	for fd := range 3 {
		if err := unix.Dup3(int(f.Fd()), fd, 0); err != nil {
			return nil, fmt.Errorf("the console: %w", err)
		}
	}
	if len(c.files) == 0 {
		c.files = []*os.File{f}
	}
	return c, nil
}

// Write writes to all of them; it fails only when all do.
func (c *Console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var failed []error
	for _, f := range c.files {
		if _, err := f.Write(p); err != nil {
			failed = append(failed, err)
		}
	}
	if len(failed) == len(c.files) {
		return 0, errors.Join(failed...)
	}
	return len(p), nil
}

// OpenKmsg returns a writer of lines into the kernel's log, which survives in
// dmesg and pstore. Lines are written at level debug: the console does not
// show them a second time.
func OpenKmsg() (io.WriteCloser, error) {
	// Otherwise the kernel drops all but ten lines in five seconds.
	err := os.WriteFile("/proc/sys/kernel/printk_devkmsg", []byte("on\n"), 0)
	f, openErr := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0)
	if openErr != nil {
		return nil, fmt.Errorf("the kernel's log: %w", errors.Join(openErr, err))
	}
	return kmsg{f}, nil
}

type kmsg struct{ f *os.File }

func (k kmsg) Write(p []byte) (int, error) {
	// The kernel takes at most 1024 bytes less a header in one record.
	line := strings.TrimRight(string(p), "\n")
	if len(line) > 900 {
		line = line[:900] + "…"
	}
	_, err := fmt.Fprintf(k.f, "<7>rackseed: %s\n", line)
	return len(p), err
}

func (k kmsg) Close() error { return k.f.Close() }

// LineHandler is a slog.Handler for people who read a screen: seconds since the
// start, the message, key=value.
type LineHandler struct {
	write  func(line string)
	since  time.Time
	level  slog.Level
	prefix string // attributes given by WithAttrs
	group  string
}

// NewLineHandler writes each record as one line, without its end, to write.
func NewLineHandler(level slog.Level, write func(line string)) *LineHandler {
	return &LineHandler{write: write, since: time.Now(), level: level}
}

func (h *LineHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level }

func (h *LineHandler) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	// The monotonic clock: setting the machine's clock does not show here.
	fmt.Fprintf(&b, "[%8.3f] ", time.Since(h.since).Seconds())
	if r.Level >= slog.LevelWarn {
		b.WriteString(strings.ToLower(r.Level.String()) + ": ")
	}
	b.WriteString(r.Message + h.prefix)
	r.Attrs(func(a slog.Attr) bool {
		b.WriteString(formatAttr(h.group, a))
		return true
	})
	h.write(strings.ReplaceAll(b.String(), "\n", "; "))
	return nil
}

func (h *LineHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	n := *h
	for _, a := range attrs {
		n.prefix += formatAttr(h.group, a)
	}
	return &n
}

func (h *LineHandler) WithGroup(name string) slog.Handler {
	n := *h
	n.group += name + "."
	return &n
}

func formatAttr(group string, a slog.Attr) string {
	v := a.Value.Resolve().String()
	if strings.ContainsAny(v, " \t\n") && a.Key != "error" {
		v = fmt.Sprintf("%q", v)
	}
	return " " + group + a.Key + "=" + v
}
