package api

import (
	"context"
	"reflect"
	"slices"
	"time"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
)

// page is how many events or chunks are taken from a view at once.
const page = 500

// siteFeed sends events, machines, and the discovery window.
type siteFeed struct {
	now       func() time.Time
	after     uint64 // the last event that was sent
	begun     bool
	discovery *Discovery // what was sent of it
	expected  []Expected // what was sent of them; nil: nothing yet
	machines  map[machine.ID]seen
	changed   <-chan struct{} // closed: a machine may have changed
	look      time.Time       // when one changes by time alone; zero: none does
	site      machine.Site    // what they were shown by
	window    bool
}

// seen is what was sent of a machine, and what it was made from. Values of the
// state are never changed, so comparing what it is made from is cheap: what is
// the same is the same pointer.
type seen struct {
	from  sources
	shown Machine
}

// sources are what show reads of one machine. What it reads for all of them is
// in the feed.
type sources struct {
	machine    machine.Machine
	orders     machine.Orders
	boot       state.Boot
	waitingFor string
	invited    bool
}

func (f *siteFeed) tables() []string { return []string{"events", "machines", "intents", "cluster"} }

func (f *siteFeed) send(_ context.Context, view state.View, write func(any) error) error {
	last := view.LastEvent()
	if !f.begun {
		f.begun = true
		if err := write(StreamHello{Type: "hello", LastEvent: last}); err != nil {
			return err
		}
		f.after = min(f.after, last)
	}
	at := f.now() // one for all, or machines could be shown by another window than the one that was sent
	if err := f.sendDiscovery(view, at, write); err != nil {
		return err
	}
	if err := f.sendMachines(view, at, write); err != nil {
		return err
	}
	for f.after < last {
		events := view.Events(f.after, "", page)
		if len(events) == 0 { // none is kept any more
			gap := StreamGap{Type: "gap", From: f.after + 1, To: last}
			f.after = last
			return write(gap)
		}
		for _, e := range events {
			if e.Seq != f.after+1 {
				if err := write(StreamGap{Type: "gap", From: f.after + 1, To: e.Seq - 1}); err != nil {
					return err
				}
			}
			if err := write(StreamEvent{Type: "event", Event: e}); err != nil {
				return err
			}
			f.after = e.Seq
		}
	}
	return nil
}

// sendDiscovery sends the discovery window if it is another than the one sent.
func (f *siteFeed) sendDiscovery(view state.View, at time.Time, write func(any) error) error {
	d := DiscoveryOf(view, at)
	if f.discovery != nil && *f.discovery == d {
		return nil
	}
	f.discovery = &d
	return write(StreamDiscovery{Type: "discovery", Discovery: d})
}

func (f *siteFeed) sendMachines(view state.View, at time.Time, write func(any) error) error {
	if f.changed != nil && (f.look.IsZero() || at.Before(f.look)) {
		select {
		case <-f.changed:
		default:
			return nil
		}
	}
	f.changed = view.Changed("machines", "intents", "cluster", "site")
	f.look = time.Time{}
	open, until := view.Discovery(at)
	f.lookAt(until)
	site, _ := view.Site()
	anew := f.window != open || !reflect.DeepEqual(f.site, site)
	f.window, f.site = open, site
	now, bootstrap, all := map[machine.ID]seen{}, view.Bootstrap(), view.Machines()
	if missing := expected(site, all); f.expected == nil || !slices.Equal(f.expected, missing) {
		f.expected = missing
		if err := write(StreamExpected{Type: "expected", Expected: missing}); err != nil {
			return err
		}
	}
	for _, m := range all {
		invited := m.Invited.After(at)
		if invited {
			f.lookAt(m.Invited)
		}
		from := sources{m, ordersOf(view, bootstrap, m.ID), view.Boot(m.ID), waitingFor(view, m, at), invited}
		old, known := f.machines[m.ID]
		if known && !anew && reflect.DeepEqual(old.from, from) {
			now[m.ID] = old
			continue
		}
		shown := show(view, m, from.orders, at)
		now[m.ID] = seen{from, shown}
		if known && reflect.DeepEqual(old.shown, shown) {
			continue
		}
		if err := write(StreamMachine{Type: "machine", Machine: shown}); err != nil {
			return err
		}
	}
	for id := range f.machines {
		if _, ok := now[id]; !ok {
			if err := write(StreamForgotten{Type: "forgotten", ID: id}); err != nil {
				return err
			}
		}
	}
	f.machines = now
	return nil
}

// lookAt notes when the machines change by time alone.
func (f *siteFeed) lookAt(t time.Time) {
	if !t.IsZero() && (f.look.IsZero() || t.Before(f.look)) {
		f.look = t
	}
}

// outputFeed sends one machine's output.
type outputFeed struct {
	server  *Server
	machine machine.ID
	after   uint64 // the last chunk that was sent
}

func (f *outputFeed) tables() []string { return []string{"chunks", "machines"} }

func (f *outputFeed) send(ctx context.Context, view state.View, write func(any) error) error {
	if _, ok := view.Machine(f.machine); !ok {
		return errForgotten
	}
	for {
		chunks := view.Chunks(f.machine, f.after, page)
		if len(chunks) == 0 {
			return nil
		}
		for _, c := range chunks {
			lines, err := f.server.lines(ctx, c)
			if err != nil {
				return err
			}
			if err := write(StreamLines{Type: "lines", Lines: lines}); err != nil {
				return err
			}
			f.after = c.Seq
		}
	}
}
