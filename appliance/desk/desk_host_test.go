//go:build host

package desk

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rackseed/rackseed/appliance/screen"
	"github.com/rackseed/rackseed/services/setup"
)

// wire is a serial line: what is at the other end of a terminal.
type wire struct {
	t    *testing.T
	file *os.File

	mu   sync.Mutex
	got  bytes.Buffer
	read int // up to where expect has read
}

// plug makes a pseudo-terminal, and a screen at its end.
func plug(t *testing.T) (*wire, *screen.Terminal) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "ptmx") // not blocking: closing it ends a read
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	term, err := screen.OpenSerial(fmt.Sprintf("/dev/pts/%d", n), false)
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{t: t, file: file}
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := file.Read(b)
			w.mu.Lock()
			w.got.Write(b[:n])
			w.mu.Unlock()
			if err != nil { // closed
				return
			}
		}
	}()
	return w, term
}

// expect waits until something was printed after what was expected before, and
// then types a line.
func (w *wire) expect(part, answer string) {
	w.t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		w.mu.Lock()
		i := bytes.Index(w.got.Bytes()[w.read:], []byte(part))
		if i >= 0 {
			w.read += i + len(part)
		}
		rest := string(w.got.Bytes()[w.read:])
		w.mu.Unlock()
		if i >= 0 {
			break
		}
		select {
		case <-tick.C:
		case <-deadline:
			w.t.Fatalf("%q was not printed; since the last: %q", part, rest)
		}
	}
	if _, err := w.file.WriteString(answer); err != nil {
		w.t.Fatal(err)
	}
}

// The form is filled in over a serial line, with slips of the fingers.
func TestSerialLine(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	l := &lab{}
	d := New(l, slog.New(slog.DiscardHandler))
	w, term := plug(t)
	var running, listening sync.WaitGroup
	running.Go(func() { d.Run(ctx) })
	running.Go(func() {
		if err := term.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	listening.Go(func() { _ = term.Listen(func(line string) { d.Line(term, line) }) }) // ends when the line is cut
	term.Show(screen.View{SiteFile: "THERE IS NONE"})
	w.expect("THERE IS NONE", "\r")
	w.expect("THERE IS NONE", "setip\b\bup\r") // Enter showed it again
	w.expect("setip\b \b\b \bup\r\n", "")
	term.Log("a line of the log")
	w.expect("Which link", "eth9\x7f0\n")
	w.expect("VLAN ID, 0 for the untagged network [0]: ", "\r\n")
	w.expect("Address with its prefix length [10.77.0.2/24]: ", "10.77.0.7/24\r")
	w.expect("Gateway, - for none [-]: ", "\x1b[A\r") // cursor up
	w.expect("Go on here, or in the web console (web) [here]: ", "\r")
	w.expect("Service address [10.77.0.8]: ", "\r")
	w.expect("(yes or no) [yes]: ", "no\x15\r")
	w.expect("First address of the pool [10.77.0.100]: ", "\r")
	w.expect("Last address of the pool [10.77.0.199]: ", "\r")
	w.expect("Name servers", "\r")
	w.expect("Name of the site [rack1]: ", "lab\r")
	w.expect("SSH public key", "\r")
	w.expect("    dhcp:\r\n", "")
	w.expect("Apply this site file (yes): ", "yes\r")
	w.expect("The site file is kept", "")
	w.expect("a line of the log", "") // held back until the end
	w.expect("THERE IS NONE", "")

	_, kept, _ := l.state()
	s, err := setup.Check("site.yaml", []byte(kept))
	if err != nil || s.Name != "lab" || s.Links[0].Address.String() != "10.77.0.7/24" || s.Links[0].DHCP == nil {
		t.Errorf("kept %+v, %v", s, err)
	}
	w.mu.Lock()
	if text := w.got.String(); strings.Contains(text, "\x1b") {
		t.Errorf("control sequences were printed: %q", text)
	}
	w.mu.Unlock()
	cancel()
	running.Wait()
	if err := w.file.Close(); err != nil {
		t.Error(err)
	}
	listening.Wait()
}
