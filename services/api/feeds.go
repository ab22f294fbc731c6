package api

import (
	"context"
	"reflect"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
)

// page is how many events or chunks are taken from a view at once.
const page = 500

// siteFeed sends events and machines.
type siteFeed struct {
	after    uint64 // the last event that was sent
	begun    bool
	machines map[machine.ID]seen
	changed  <-chan struct{} // closed: a machine may have changed
}

// seen is what was sent of a machine. Values of the state are never changed,
// so comparing them is cheap: what is the same is the same pointer.
type seen struct {
	machine    machine.Machine
	install    *machine.Intent
	revocable  int // number of its intents
	waitingFor string
}

func (f *siteFeed) tables() []string { return []string{"events", "machines", "intents"} }

func (f *siteFeed) send(_ context.Context, view state.View, write func(any) error) error {
	last := view.LastEvent()
	if !f.begun {
		f.begun = true
		if err := write(StreamHello{Type: "hello", LastEvent: last}); err != nil {
			return err
		}
		f.after = min(f.after, last)
	}
	if err := f.sendMachines(view, write); err != nil {
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

func (f *siteFeed) sendMachines(view state.View, write func(any) error) error {
	if f.changed != nil {
		select {
		case <-f.changed:
		default:
			return nil
		}
	}
	f.changed = view.Changed("machines", "intents")
	now, bootstrap := map[machine.ID]seen{}, view.Bootstrap()
	for _, m := range view.Machines() {
		install := view.InstallIntent(m.ID)
		s := seen{m, install, len(revocable(m, install, bootstrap)), waitingFor(view, m)}
		now[m.ID] = s
		if old, ok := f.machines[m.ID]; ok && reflect.DeepEqual(old, s) {
			continue
		}
		if err := write(StreamMachine{Type: "machine", Machine: show(view, m)}); err != nil {
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
