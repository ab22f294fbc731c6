package desk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rackseed/rackseed/appliance/form"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/setup"
)

// paper is a terminal that keeps what it gets.
type paper struct {
	name string

	mu     sync.Mutex
	text   string
	talk   bool
	agains int
}

func (p *paper) Name() string { return p.name }

func (p *paper) Keyboard() bool { return p.name == "the display" }

func (p *paper) Talk(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.talk = on
}

func (p *paper) Say(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.text += text
}

func (p *paper) Again() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.agains++
}

// read returns what was said since the last time, and whether a dialogue is held.
func (p *paper) read() (text string, talk bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	text, p.text = p.text, ""
	return text, p.talk
}

// lab is a world with one free link, in which looking takes its time.
type lab struct {
	look    time.Duration
	refusal string
	keep    time.Duration

	mu     sync.Mutex
	holder string
	kept   string
	given  string // up by whoever did not wait
}

func (l *lab) Order(line string) func(context.Context) string {
	if line != "order" {
		return nil
	}
	return func(context.Context) string {
		time.Sleep(l.look)
		return "what came of it"
	}
}

func (l *lab) Begin() (form.Options, string) { return form.Options{}, l.refusal }

func (l *lab) Links(ctx context.Context) ([]setup.Found, error) {
	select {
	case <-time.After(l.look):
	case <-ctx.Done():
		l.mu.Lock()
		l.given = "up"
		l.mu.Unlock()
		return nil, ctx.Err()
	}
	return []setup.Found{{Link: setup.Link{Name: "eth0", MAC: "52:54:00:00:00:01", Carrier: true}}}, nil
}

func (l *lab) Network(context.Context, setup.Link, int) ([]setup.Offer, error) {
	return nil, errors.New("no VLANs here")
}

func (l *lab) Owners(context.Context, setup.Link, int, []netip.Addr) (map[netip.Addr]string, error) {
	return nil, nil
}

func (l *lab) KeepLink(link machine.SiteLink) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kept = link.Address.String()
	return nil
}

func (l *lab) KeepSite(text []byte) error {
	time.Sleep(l.keep)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kept = string(text)
	return nil
}

func (l *lab) Holder(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.holder = name
}

func (l *lab) state() (holder, kept, given string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.holder, l.kept, l.given
}

// sit runs a desk in a bubble of virtual time. enter types a line and lets
// everything settle.
func sit(t *testing.T, l *lab, f func(t *testing.T, enter func(*paper, ...string))) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		d := New(l, slog.New(slog.DiscardHandler))
		var running sync.WaitGroup
		running.Go(func() { d.Run(ctx) })
		f(t, func(p *paper, lines ...string) {
			for _, line := range lines {
				d.Line(p, line)
				synctest.Wait()
			}
		})
		cancel()
		running.Wait()
		time.Sleep(time.Minute) // what waits to end a dialogue ends too
	})
}

func has(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("no %q in:\n%s", part, text)
		}
	}
}

func TestFilledInOnOneTakenOverOnAnother(t *testing.T) {
	l := &lab{look: 10 * time.Second}
	serial, display := &paper{name: "ttyS0"}, &paper{name: "the display"}
	sit(t, l, func(t *testing.T, enter func(*paper, ...string)) {
		enter(display, "yes", "help", "setup please") // nobody has the form
		if text, talk := display.read(); text != "" || talk {
			t.Errorf("before setup was typed: %q, %t", text, talk)
		}
		enter(serial, "SETUP")
		text, talk := serial.read()
		has(t, text, "Looking at the links")
		if strings.Contains(text, "keyboard") {
			t.Errorf("a serial port has no keyboard: %s", text)
		}
		if holder, _, _ := l.state(); holder != "ttyS0" || !talk {
			t.Errorf("holder %q, %t", holder, talk)
		}
		enter(serial, "1") // too early: nothing was asked yet
		time.Sleep(l.look)
		synctest.Wait()
		text, _ = serial.read()
		has(t, text, "Which link")
		enter(serial, "1")
		text, _ = serial.read()
		has(t, text, "VLAN ID")

		enter(display, "setup")
		text, _ = serial.read()
		has(t, text, "taken over on the display")
		text, talk = display.read()
		has(t, text, "Keys are those of a US keyboard", "VLAN ID")
		if holder, _, _ := l.state(); holder != "the display" || !talk {
			t.Errorf("holder %q, %t", holder, talk)
		}
		enter(serial, "quit", "yes")
		time.Sleep(leaveTime)
		synctest.Wait()
		if text, talk := serial.read(); text != "" || talk {
			t.Errorf("the one that it was taken from: %q, %t", text, talk)
		}
		enter(display, "0", "", "", "here", "", "", "", "", "", "", "", "yes")
		text, talk = display.read()
		has(t, text, "The site file is kept")
		if !talk {
			t.Error("the last words do not stay")
		}
		if holder, kept, _ := l.state(); holder != "" || !strings.Contains(kept, "serviceAddress: 10.77.0.3") {
			t.Errorf("holder %q, kept %q", holder, kept)
		}
		time.Sleep(leaveTime)
		synctest.Wait()
		if _, talk := display.read(); talk {
			t.Error("the dialogue does not end")
		}
	})
}

func TestLeftWhileItLooks(t *testing.T) {
	l := &lab{look: time.Hour}
	p := &paper{name: "ttyS0"}
	sit(t, l, func(t *testing.T, enter func(*paper, ...string)) {
		enter(p, "setup", "quit")
		text, _ := p.read()
		has(t, text, "nothing was changed")
		if holder, kept, given := l.state(); holder != "" || kept != "" || given != "up" {
			t.Errorf("holder %q, kept %q, given %q", holder, kept, given)
		}
		// Opened again before the last words are gone, it stays open.
		enter(p, "setup")
		time.Sleep(2 * leaveTime)
		synctest.Wait()
		if _, talk := p.read(); !talk {
			t.Error("the new dialogue was ended by the old one")
		}
	})
}

// What is being written cannot be left: it would be said that nothing changed.
func TestNotLeftWhileItWrites(t *testing.T) {
	l := &lab{keep: 10 * time.Second}
	p := &paper{name: "ttyS0"}
	sit(t, l, func(t *testing.T, enter func(*paper, ...string)) {
		enter(p, "setup")
		time.Sleep(time.Second)
		enter(p, "1", "0", "", "", "here", "", "", "", "", "", "", "", "yes", "quit")
		time.Sleep(l.keep)
		synctest.Wait()
		text, _ := p.read()
		has(t, text, "The site file is kept")
		if strings.Contains(text, "nothing was changed") {
			t.Error("it was left while it wrote")
		}
	})
}

func TestRefused(t *testing.T) {
	l := &lab{refusal: "the stick's is in force"}
	p := &paper{name: "ttyS0"}
	sit(t, l, func(t *testing.T, enter func(*paper, ...string)) {
		enter(p, "setup")
		text, talk := p.read()
		has(t, text, l.refusal)
		if holder, _, _ := l.state(); holder != "" || !talk {
			t.Errorf("holder %q, %t", holder, talk)
		}
		time.Sleep(leaveTime)
		synctest.Wait()
		if _, talk := p.read(); talk {
			t.Error("the refusal stays")
		}
	})
}

// Enter shows all again, for whoever connects later; a port that echoes what it
// is sent does not make us print for ever.
func TestEcho(t *testing.T) {
	p := &paper{name: "ttyS0"}
	sit(t, &lab{}, func(t *testing.T, enter func(*paper, ...string)) {
		for i := range 100 {
			enter(p, "", "THERE IS NONE. To set the site up type setup and press Enter", "[yes]: ", fmt.Sprint(i))
		}
		if p.agains != 1 {
			t.Errorf("shown again %d times at once", p.agains)
		}
		time.Sleep(againPause)
		enter(p, "")
		if text, talk := p.read(); p.agains != 2 || text != "" || talk {
			t.Errorf("shown again %d times, said %q, %t", p.agains, text, talk)
		}
	})
}

// An order is carried out once at a time; what came of it stays until Enter.
func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		d := New(&lab{look: time.Minute}, slog.New(slog.DiscardHandler))
		go d.Run(ctx)
		defer synctest.Wait()
		defer cancel()
		one, other := &paper{name: "the display"}, &paper{name: "ttyS0"}
		d.Line(one, "no order")
		synctest.Wait()
		if text, talk := one.read(); text != "" || talk {
			t.Errorf("no order: %q, %v", text, talk)
		}
		d.Line(one, "order")
		d.Line(other, "order")
		synctest.Wait()
		if text, talk := one.read(); !strings.Contains(text, "takes a while") || !talk {
			t.Errorf("the first: %q, %v", text, talk)
		}
		if text, _ := other.read(); !strings.Contains(text, "wait for it") {
			t.Errorf("the second: %q", text)
		}
		time.Sleep(2 * time.Minute)
		if text, talk := one.read(); !strings.Contains(text, "what came of it") || !talk {
			t.Errorf("done: %q, %v", text, talk)
		}
		if _, talk := other.read(); talk {
			t.Error("the other terminal stays as it is")
		}
		d.Line(one, "")
		synctest.Wait()
		if _, talk := one.read(); talk {
			t.Error("it is not left")
		}
	})
}
