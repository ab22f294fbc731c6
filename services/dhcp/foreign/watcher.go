package foreign

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
)

const (
	// look is how often the carrier is looked at.
	look = time.Second
	// tellTime bounds the commit of an event: it must not hold the watch up.
	tellTime = 2 * time.Second
	// queueLength bounds the sightings that wait. One that finds no room is
	// dropped: those that are there say the same.
	queueLength = 64
)

// Wire is a link as the watch sees it.
type Wire interface {
	Hardware() net.HardwareAddr
	Carrier() (bool, error)
	// Probe sends a frame to everybody.
	Probe(frame []byte) error
	// Read waits for the next frame of a DHCP server; closing ends it.
	Read(b []byte) (int, error)
	Close() error
}

// Watcher watches one link. The fields are set before Run, and may be set anew
// between two.
type Watcher struct {
	Self
	// Propose commits an event. What is not committed is logged.
	Propose func(context.Context, state.Note) error
	// Changed is called when Hindrance changes; nil: nobody asks.
	Changed func()
	Now     func() time.Time
	Logger  *slog.Logger

	named chan Sighting // by clients; made with the first use
	once  sync.Once

	mu    sync.Mutex
	watch *watch
	card  string // hardware address that watch is about
	text  string // the last Hindrance
}

func (w *Watcher) init() {
	w.once.Do(func() { w.named = make(chan Sighting, queueLength) })
}

// Open says whether new clients may be served on the link: Run runs, and no
// other server shows.
func (w *Watcher) Open() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.watch != nil && w.watch.open()
}

// Hindrance says why new clients are not served, for people; "": nothing
// hinders it.
func (w *Watcher) Hindrance() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text
}

// Named notes that a client chose another server.
func (w *Watcher) Named(server netip.Addr, by machine.MAC) {
	w.init()
	select {
	case w.named <- Sighting{Server: server, Client: by}:
	default:
	}
}

// Run watches until ctx ends (then nil) or the wire fails; it closes wire. What
// it learned before is kept when it runs again on the same network card.
func (w *Watcher) Run(ctx context.Context, wire Wire) error {
	w.init()
	w.mu.Lock()
	if card := wire.Hardware().String(); w.watch == nil || w.card != card {
		w.watch, w.card = newWatch(w.Self, wire.Hardware()), card
	}
	w.watch.self = w.Self
	w.mu.Unlock()

	heard, failed := make(chan Sighting, queueLength), make(chan error, 1)
	var reading sync.WaitGroup
	reading.Go(func() { failed <- w.read(wire, heard) })
	err := w.attend(ctx, wire, heard, failed)
	if ctx.Err() != nil {
		err = nil
	}
	err = errors.Join(err, wire.Close()) // which ends read
	reading.Wait()
	// What hinders service is not over because nobody looks.
	w.mu.Lock()
	w.watch.carrier(false, w.Now())
	w.mu.Unlock()
	return err
}

// read turns frames into sightings until the wire fails or is closed.
func (w *Watcher) read(wire Wire, heard chan<- Sighting) error {
	asked, own := probeMAC(wire.Hardware()), ownHardware(wire)
	b := make([]byte, 2048)
	for {
		n, err := wire.Read(b)
		if err != nil {
			return fmt.Errorf("listening for DHCP servers on %s: %w", w.Interface, err)
		}
		s, err := read(b[:n], asked)
		if err != nil {
			w.Logger.Debug("frame dropped", "error", err)
			continue
		}
		if !s.foreign(w.Self, own) {
			continue
		}
		select {
		case heard <- s:
		default:
		}
	}
}

// ownHardware are this host's hardware addresses: another link of it may be on
// the same wire.
func ownHardware(wire Wire) []machine.MAC {
	own := []machine.MAC{machine.MAC(wire.Hardware().String())}
	present, err := net.Interfaces()
	if err != nil { // the link's own is the one that matters
		return own
	}
	for _, p := range present {
		own = append(own, machine.MAC(p.HardwareAddr.String()))
	}
	return own
}

// attend does what is due, and hears what comes.
func (w *Watcher) attend(ctx context.Context, wire Wire, heard <-chan Sighting, failed <-chan error) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case s := <-heard:
			w.decide(ctx, func(watch *watch) []state.Note { return watch.hear(s, w.Now()) })
			continue
		case s := <-w.named:
			if s.foreign(w.Self, nil) {
				w.decide(ctx, func(watch *watch) []state.Note { return watch.hear(s, w.Now()) })
			}
			continue
		case <-timer.C:
		}
		up, err := wire.Carrier()
		if err != nil {
			return fmt.Errorf("listening for DHCP servers on %s: %w", w.Interface, err)
		}
		now, probing := w.Now(), false
		var next time.Time
		w.decide(ctx, func(watch *watch) (told []state.Note) {
			watch.carrier(up, now)
			probing, told = watch.tick(now)
			next = watch.next()
			return told
		})
		if probing {
			if err := w.ask(wire); err != nil {
				return err
			}
		}
		wait := look
		if !next.IsZero() {
			wait = max(min(wait, next.Sub(w.Now())), time.Millisecond)
		}
		timer.Reset(wait)
	}
}

// Listening says that nothing but the time in which other servers are listened for
// first is the Hindrance.
func (w *Watcher) Listening() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.watch != nil && w.watch.phase == listening
}

// decide changes the watch, and tells what follows.
func (w *Watcher) decide(ctx context.Context, change func(*watch) []state.Note) {
	w.mu.Lock()
	told := change(w.watch)
	before := w.text
	w.text = w.watch.hindrance()
	changed := w.text != before
	w.mu.Unlock()
	if changed && w.Changed != nil {
		w.Changed()
	}
	for _, note := range told {
		w.Logger.Warn(note.Text)
		if w.Propose == nil {
			continue
		}
		limited, cancel := context.WithTimeout(ctx, tellTime)
		err := w.Propose(limited, note)
		cancel()
		if err != nil && ctx.Err() == nil {
			w.Logger.Error("event not committed", "kind", note.What, "error", err)
		}
	}
}

// ask sends a probe. A link that takes no frame just now is asked again later.
func (w *Watcher) ask(wire Wire) error {
	b, err := probe(w.Self, wire.Hardware())
	if err != nil {
		return err
	}
	if err := wire.Probe(b); err != nil {
		w.Logger.Warn("DHCP probe not sent", "error", err)
	}
	return nil
}
