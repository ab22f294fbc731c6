package screen

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Terminal shows a View on one device. A device that takes nothing (a serial
// port that is held by flow control) must not hold up another, or the rest of
// the appliance: each is fed by a goroutine of its own, with the newest only.
type Terminal struct {
	out    io.Writer
	size   func() (width, height int)
	serial bool

	mu      sync.Mutex
	view    View
	log     []string // serial: lines not written yet
	missed  int      // serial: lines dropped because the port is too slow
	recent  func(n int) []string
	changed chan struct{}
}

// Serial ports get lines, without any control sequence: what is read there is
// often kept in a file. pendingLines bounds what waits for a slow one.
const (
	serialWidth  = 79
	pendingLines = 500
	// settle is how long changes are collected before they are shown.
	settle = 200 * time.Millisecond
)

// OpenSerial opens a serial port as a terminal, at 115200 baud.
func OpenSerial(path string) (*Terminal, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	fd := int(f.Fd())
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err == nil {
		t.Cflag = t.Cflag&^(unix.CBAUD|unix.CRTSCTS) | unix.B115200 | unix.CLOCAL
		t.Ispeed, t.Ospeed = unix.B115200, unix.B115200
		err = unix.IoctlSetTermios(fd, unix.TCSETS, t)
	}
	if err != nil { // EIO: the kernel has the name, the machine not the port
		_ = f.Close() // nothing was written
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return NewSerial(f), nil
}

// NewSerial is a terminal that gets plain lines: the head whenever it changed,
// and each line of the log once.
func NewSerial(out io.Writer) *Terminal {
	return &Terminal{out: out, serial: true, changed: make(chan struct{}, 1)}
}

// OpenDisplay opens a virtual console. recent gives the last lines of the log.
func OpenDisplay(path string, recent func(n int) []string) (*Terminal, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	return NewDisplay(f, recent, func() (int, int) {
		w, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
		if err != nil || w.Col < 20 || w.Row < 5 {
			return 80, 25
		}
		return int(w.Col), int(w.Row)
	}), nil
}

// NewDisplay is a terminal that is drawn as a whole (ECMA-48 sequences that
// the kernel's console knows, console_codes(4)).
func NewDisplay(out io.Writer, recent func(n int) []string, size func() (width, height int)) *Terminal {
	return &Terminal{out: out, recent: recent, size: size, changed: make(chan struct{}, 1)}
}

// Show has the view shown soon.
func (t *Terminal) Show(v View) {
	t.mu.Lock()
	t.view = v
	t.mu.Unlock()
	t.wake()
}

// Log has a line of the log shown soon.
func (t *Terminal) Log(line string) {
	if t.serial {
		t.mu.Lock()
		if len(t.log) < pendingLines {
			t.log = append(t.log, line)
		} else {
			t.missed++
		}
		t.mu.Unlock()
	}
	t.wake()
}

func (t *Terminal) wake() {
	select {
	case t.changed <- struct{}{}:
	default:
	}
}

// Run shows until ctx ends, or the device fails.
func (t *Terminal) Run(ctx context.Context) error {
	var shown []string
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.changed:
		}
		var text string
		if text, shown = t.next(shown); text != "" {
			if _, err := io.WriteString(t.out, text); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(settle):
		}
	}
}

// next is what to write now, given what is shown, and what is shown then.
func (t *Terminal) next(shown []string) (string, []string) {
	t.mu.Lock()
	view, log, missed := t.view, t.log, t.missed
	t.log, t.missed = nil, 0
	t.mu.Unlock()
	if t.serial {
		var b strings.Builder
		for _, l := range log {
			b.WriteString(l + "\n")
		}
		if missed > 0 {
			fmt.Fprintf(&b, "(%d lines were not shown here: this port is too slow)\n", missed)
		}
		if head := Head(view, serialWidth); !slices.Equal(head, shown) {
			b.WriteString(strings.Join(head, "\n") + "\n")
			shown = head
		}
		return b.String(), shown
	}
	width, height := t.size()
	page := Page(view, t.recent(height), width, height)
	if slices.Equal(page, shown) {
		return "", shown
	}
	var b strings.Builder
	b.WriteString("\x1b[H") // home; each line erases what was behind it, so nothing flickers
	for _, l := range page {
		b.WriteString(l + "\x1b[K\r\n")
	}
	b.WriteString("\x1b[J")
	return b.String(), page
}
