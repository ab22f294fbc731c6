package screen

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// Terminal shows a View on one device, reads what is typed there, and holds
// dialogues. A device that takes nothing (a serial port that is held by flow
// control) must not hold up another, or the rest of the appliance: each is fed
// by a goroutine of its own, with the newest only.
type Terminal struct {
	name   string
	device io.ReadWriter
	size   func() (width, height int)
	serial bool
	recent func(n int) []string

	mu     sync.Mutex
	view   View
	log    []string // serial: lines not written yet
	missed int      // serial: lines dropped because the port is too slow
	talk   bool     // a dialogue is held: nothing else is shown
	said   []byte   // text of a dialogue, or echo, not written yet
	typed  string   // display: what was typed outside of a dialogue, as far as it is
	redraw bool     // all is to be shown again

	changed chan struct{}
	urgent  chan struct{} // a person waits
}

// Serial ports get lines, without any control sequence: what is read there is
// often kept in a file. pendingLines bounds what waits for a slow one.
const (
	serialWidth  = 79
	pendingLines = 500
	// pendingText bounds a dialogue's text that waits, in bytes.
	pendingText = 64 << 10
	// settle is how long changes are collected before they are shown.
	settle = 200 * time.Millisecond
)

// OpenSerial opens a serial port as a terminal, at 115200 baud, or at the speed
// that the kernel's console has there.
func OpenSerial(path string, kernels bool) (*Terminal, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	err = setMode(f, func(t *unix.Termios) {
		t.Cflag = t.Cflag&^unix.CRTSCTS | unix.CLOCAL | unix.CREAD
		if !kernels {
			t.Cflag = t.Cflag&^unix.CBAUD | unix.B115200
			t.Ispeed, t.Ospeed = unix.B115200, unix.B115200
		}
	})
	if err != nil { // EIO: the kernel has the name, the machine not the port
		_ = f.Close() // nothing was written
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return NewSerial(filepath.Base(path), f), nil
}

// setMode has keys come as they are pressed, without echo, and a line's end go
// out as CR LF; more sets what depends on the device.
func setMode(f *os.File, more func(*unix.Termios)) error {
	fd := int(f.Fd())
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return err
	}
	t.Iflag = t.Iflag&^(unix.BRKINT|unix.ICRNL|unix.INLCR|unix.IGNCR|unix.ISTRIP) | unix.IGNBRK
	t.Lflag &^= unix.ICANON | unix.ECHO | unix.ECHONL | unix.ISIG | unix.IEXTEN
	t.Oflag |= unix.OPOST | unix.ONLCR
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	more(t)
	return unix.IoctlSetTermios(fd, unix.TCSETS, t)
}

// NewSerial is a terminal that gets plain lines: the head whenever it changed,
// and each line of the log once.
func NewSerial(name string, device io.ReadWriter) *Terminal {
	t := newTerminal(name, device)
	t.serial = true
	return t
}

// OpenDisplay opens a virtual console. recent gives the last lines of the log.
func OpenDisplay(path string, recent func(n int) []string) (*Terminal, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	if err := setMode(f, func(*unix.Termios) {}); err != nil {
		_ = f.Close() // nothing was written
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return NewDisplay("the display", f, recent, func() (int, int) {
		w, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
		if err != nil || w.Col < 20 || w.Row < 5 {
			return 80, 25
		}
		return int(w.Col), int(w.Row)
	}), nil
}

// NewDisplay is a terminal that is drawn as a whole (ECMA-48 sequences that
// the kernel's console knows, console_codes(4)).
func NewDisplay(name string, device io.ReadWriter, recent func(n int) []string, size func() (width, height int)) *Terminal {
	t := newTerminal(name, device)
	t.recent, t.size = recent, size
	return t
}

func newTerminal(name string, device io.ReadWriter) *Terminal {
	return &Terminal{name: name, device: device, changed: make(chan struct{}, 1), urgent: make(chan struct{}, 1)}
}

// Name is what people call it.
func (t *Terminal) Name() string { return t.name }

// Keyboard says that what is typed comes from this machine's keyboard, by the
// kernel's layout; at the other end of a serial port it is letters.
func (t *Terminal) Keyboard() bool { return !t.serial }

// Talk begins a dialogue, for which all else is held back, or ends it.
func (t *Terminal) Talk(on bool) {
	t.mu.Lock()
	if on && !t.talk && !t.serial {
		t.said = append(t.said, "\x1b[H\x1b[J"...)
	}
	t.talk, t.redraw, t.typed = on, true, ""
	t.mu.Unlock()
	t.wake()
}

// Say shows a dialogue's text. What a port that is held does not take is
// dropped at the end.
func (t *Terminal) Say(text string) {
	t.mu.Lock()
	if len(t.said)+len(text) <= pendingText {
		t.said = append(t.said, text...)
	}
	t.mu.Unlock()
	t.hurry()
}

// Again shows all anew, for whoever connects to the port only now.
func (t *Terminal) Again() {
	t.mu.Lock()
	t.redraw = true
	t.mu.Unlock()
	t.wake()
}

// Listen reads what is typed, and calls f with each line, until the device
// fails. A terminal that hangs up is one that fails.
func (t *Terminal) Listen(f func(line string)) error {
	var e editor
	b := make([]byte, 256)
	for {
		n, err := t.device.Read(b)
		for _, c := range b[:n] {
			echo, line, ended := e.feed(c)
			t.echo(echo, string(e.typed))
			if ended {
				f(line)
			}
		}
		if err != nil {
			return fmt.Errorf("reading what is typed: %w", err)
		}
	}
}

// echo shows what is typed: where it is, or on a display outside of a dialogue
// below the page.
func (t *Terminal) echo(echo, typed string) {
	t.mu.Lock()
	below := !t.serial && !t.talk
	if below {
		t.typed = typed
	}
	t.mu.Unlock()
	if below {
		t.hurry()
	} else if echo != "" {
		t.Say(echo)
	}
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

func (t *Terminal) hurry() {
	select {
	case t.urgent <- struct{}{}:
	default:
	}
}

// Run shows until ctx ends, or the device fails.
func (t *Terminal) Run(ctx context.Context) error {
	var shown []string
	for now := false; ; {
		if !now {
			select {
			case <-ctx.Done():
				return nil
			case <-t.changed:
			case <-t.urgent:
			}
		}
		var text string
		if text, shown = t.next(shown); text != "" {
			if _, err := io.WriteString(t.device, text); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.urgent:
			now = true
		case <-time.After(settle):
			now = false
		}
	}
}

// next is what to write now, given what is shown, and what is shown then.
func (t *Terminal) next(shown []string) (string, []string) {
	t.mu.Lock()
	said, talk, view, typed := string(t.said), t.talk, t.view, t.typed
	t.said = nil
	if t.redraw {
		t.redraw, shown = false, nil
	}
	if talk {
		t.mu.Unlock()
		return said, nil
	}
	log, missed := t.log, t.missed
	t.log, t.missed = nil, 0
	t.mu.Unlock()
	if t.serial {
		var b strings.Builder
		b.WriteString(said)
		for _, l := range log {
			b.WriteString(l + "\n")
		}
		if missed > 0 {
			fmt.Fprintf(&b, "(%d lines were not shown here: this port is too slow, or was used for a dialogue)\n", missed)
		}
		if head := Head(view, serialWidth); !slices.Equal(head, shown) {
			b.WriteString(strings.Join(head, "\n") + "\n")
			shown = head
		}
		return b.String(), shown
	}
	width, height := t.size()
	page := append(Page(view, t.recent(height), width, height), typed)
	if slices.Equal(page, shown) {
		return "", shown
	}
	var b strings.Builder
	b.WriteString("\x1b[H") // home; each line erases what was behind it, so nothing flickers
	for _, l := range page[:len(page)-1] {
		rest := "\x1b[K"
		if utf8.RuneCountInString(l) >= width {
			rest = "" // the cursor stays in the last column, which it would erase
		}
		if strings.HasPrefix(l, mark) {
			l = "\x1b[1;37;41m" + l + "\x1b[0m" // bold white on red
		}
		b.WriteString(l + rest + "\r\n")
	}
	b.WriteString("\x1b[J" + cut(typed, width-1))
	return b.String(), page
}
