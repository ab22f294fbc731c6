package rollout

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rackseed/rackseed/services/handoff"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
)

// by is who proposes in the log.
const by = "rollout"

const (
	tick        = time.Second
	lookLimit   = 2 * time.Second  // for a replica to say how it is
	actionLimit = 30 * time.Second // for one action
	provePause  = 100 * time.Millisecond
)

// Store is what a rollout needs of the state.
type Store interface {
	View() state.View
	Membership() state.Membership
	Leading() (bool, <-chan struct{})
	Stored() state.Stored
	Propose(ctx context.Context, by string, c state.Command) (state.Result, error)
	Transfer(ctx context.Context, id string) error
}

// Loop carries a rollout out while its replica leads, and raises the feature level
// once every replica supports a higher one.
type Loop struct {
	Store Store
	// Stored asks another replica what it has.
	Stored func(ctx context.Context, id string) (state.Stored, error)
	// Lacks says what of an image is not here; "": nothing.
	Lacks  func(digest string) string
	Self   string // this replica's server ID
	Now    func() time.Time
	Logger *slog.Logger

	mu     sync.Mutex
	status Status
	failed string // what failed last; "": nothing since something went well
}

// Status is how far a rollout is, for people.
type Status struct {
	Rollout machine.Rollout
	Doing   string // what is done now, in words; "": nothing
	Failed  string // what failed last, and why; "": the last one did not
	Gates   []handoff.Gate
	// Replicas are as they were seen last.
	Replicas []Seen
}

// Status is how far the rollout is, as far as this replica knows: only the leader
// does.
func (l *Loop) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.status
}

// Run carries rollouts out until ctx ends.
func (l *Loop) Run(ctx context.Context) error {
	pulse := time.NewTicker(tick)
	defer pulse.Stop()
	for {
		leads, changed := l.Store.Leading()
		view := l.Store.View()
		p, ok := view.Rollout()
		if !leads || !ok || p.Step.Over() {
			l.show(Status{})
			if leads {
				l.raise(ctx, view)
			}
			select {
			case <-changed:
			case <-view.Changed("rollout", "replicas", "cluster", "handoff"):
			case <-ctx.Done():
				return nil
			}
			continue
		}
		l.once(ctx, p)
		select {
		case <-pulse.C:
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// raise raises the feature level, where all support a higher one and nothing is
// under way.
func (l *Loop) raise(ctx context.Context, view state.View) {
	cluster, created := view.Cluster()
	h, planned := view.Handoff()
	level := view.Supported()
	if !created || level <= cluster.FeatureLevel || planned && !h.Step.Over() {
		return
	}
	l.propose(ctx, state.FeatureRaise{Level: level})
}

func (l *Loop) propose(ctx context.Context, c state.Command) error {
	ctx, cancel := context.WithTimeout(ctx, actionLimit)
	defer cancel()
	_, err := l.Store.Propose(ctx, by, c)
	if err != nil && ctx.Err() == nil {
		l.Logger.Warn("rollout: not committed", "command", c.Kind(), "error", err)
	}
	return err
}

// once looks, decides, and does one thing.
func (l *Loop) once(ctx context.Context, p machine.Rollout) {
	w := l.world(ctx, p)
	d := Next(p, w)
	s := Status{Rollout: p, Gates: d.Gates, Replicas: w.Replicas, Failed: l.failed}
	if d.Action != (Action{}) {
		s.Doing = d.Action.aim(w)
	}
	l.show(s)
	if d.Stop != "" {
		_ = l.propose(ctx, state.RolloutStop{ID: p.ID, Reason: d.Stop}) // it is logged, and decided again
		return
	}
	if d.Action == (Action{}) {
		return
	}
	err := l.do(ctx, p, d.Action)
	l.failed = ""
	if err != nil && ctx.Err() == nil {
		l.failed = s.Doing + ": " + err.Error()
		l.Logger.Warn("rollout: an action failed, it is tried again", "action", d.Action.Kind, "replica", d.Action.Replica, "error", err)
	}
}

func (l *Loop) do(ctx context.Context, p machine.Rollout, a Action) error {
	switch a.Kind {
	case Tell:
		return l.propose(ctx, state.RolloutTell{ID: p.ID, Replica: a.Replica})
	case Prove:
		if err := l.prove(ctx, a.Replica); err != nil {
			return err
		}
		return l.propose(ctx, state.RolloutDid{ID: p.ID, Replica: a.Replica})
	case Transfer:
		ctx, cancel := context.WithTimeout(ctx, actionLimit)
		defer cancel()
		return l.Store.Transfer(ctx, a.Replica)
	}
	return fmt.Errorf("there is no action %q", a.Kind)
}

// prove has an entry committed that a replica stores as a voter.
func (l *Loop) prove(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, actionLimit)
	defer cancel()
	r, err := l.Store.Propose(ctx, by, state.StateCheck{})
	if err != nil || id == l.Self {
		return err
	}
	pause := time.NewTicker(provePause)
	defer pause.Stop()
	for {
		has, err := l.Stored(ctx, id)
		if err == nil && has.Last >= r.Index && has.Voter {
			return nil
		}
		select {
		case <-pause.C:
		case <-ctx.Done():
			return fmt.Errorf("it did not store entry %d as a voter: %w", r.Index, ctx.Err())
		}
	}
}

// aim is what is to be done, for people who watch.
func (a Action) aim(w World) string {
	name := a.Replica
	for _, s := range w.Replicas {
		if s.ID == a.Replica {
			name = s.Name
		}
	}
	return fmt.Sprintf(map[ActionKind]string{
		Tell: "telling the node of %s to run the new image", Prove: "seeing %s take part in a commit", Transfer: "handing the lead to %s",
	}[a.Kind], name)
}

func (l *Loop) show(s Status) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.status = s
}

// world asks every replica how it is.
func (l *Loop) world(ctx context.Context, p machine.Rollout) World {
	members := l.Store.Membership()
	w := World{Now: l.Now(), Self: l.Self, Lacks: l.Lacks(p.Image)}
	list := l.Store.View().Replicas()
	w.Replicas = make([]Seen, len(list))
	var all sync.WaitGroup
	for i, r := range list {
		all.Go(func() {
			s := Seen{Replica: r, Voter: members.Voter(r.ID)}
			if r.ID == l.Self {
				s.Reachable, s.Stored = true, l.Store.Stored()
			} else {
				ctx, cancel := context.WithTimeout(ctx, lookLimit)
				defer cancel()
				stored, err := l.Stored(ctx, r.ID)
				s.Reachable, s.Stored = err == nil, stored
			}
			w.Replicas[i] = s
		})
	}
	all.Wait()
	w.Index = l.Store.Stored().Last // after the answers: nobody is ahead of it
	slices.SortFunc(w.Replicas, func(a, b Seen) int { return strings.Compare(a.Name, b.Name) })
	return w
}
