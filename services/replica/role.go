package replica

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/rackseed/rackseed/services/api"
	"github.com/rackseed/rackseed/services/state"
)

// roleLook is how often a replica that follows looks whom.
const roleLook = 2 * time.Second

// leaderlessFor is how long nobody may lead before that is a fault.
const leaderlessFor = time.Minute

// whileServing is a task that runs while this replica serves machines: while it
// leads, with its epoch committed, and what it does is kept.
func (r *replica) whileServing(run func(context.Context, report) error) func(context.Context, report) error {
	return r.whileLeading(func(ctx context.Context, tell report) error { return r.onceKept(ctx, tell, run) })
}

// whileLeading is a task that runs while this replica leads.
func (r *replica) whileLeading(run func(context.Context, report) error) func(context.Context, report) error {
	return func(ctx context.Context, tell report) error {
		store := r.store.Load()
		for ctx.Err() == nil {
			leads, changed := store.Leading()
			if !leads {
				r.follows(store.View(), store.Membership(), tell)
				look := time.NewTimer(roleLook)
				select {
				case <-changed:
				case <-look.C:
				case <-ctx.Done():
				}
				look.Stop()
				continue
			}
			r.alone.Store(0)
			leading, stop := context.WithCancel(ctx)
			var watch sync.WaitGroup
			watch.Go(func() {
				select {
				case <-changed:
					stop()
				case <-leading.Done():
				}
			})
			err := run(leading, tell)
			ended := leading.Err() == nil // by itself
			stop()
			watch.Wait()
			if ended {
				return err
			}
		}
		return nil
	}
}

// leaderless tells what a part waits for while no replica leads, or that none ever will
// for this one.
func (r *replica) leaderless(tell report, waits string) {
	if newer := r.network.Newer(); newer != nil {
		tell(false, newer.Error())
		return
	}
	// A restart and an election take seconds.
	r.alone.CompareAndSwap(0, time.Now().UnixNano())
	if time.Since(time.Unix(0, r.alone.Load())) < leaderlessFor*time.Duration(max(r.Slower, 1)) {
		tell(false, waits, api.HealthWaiting)
		return
	}
	tell(false, waits+"; switch the others on, and look at their cables; only if they are lost for ever: rackseed recover")
}

// follows tells who does a part that this replica does not do now.
func (r *replica) follows(view state.View, m state.Membership, tell report) {
	if m.Leader == "" {
		r.leaderless(tell, fmt.Sprintf("no replica leads, so that no machine is served: more than half of the voters must reach each other, of %s", m))
		return
	}
	r.alone.Store(0)
	name := m.Leader
	if x, ok := view.Replica(m.Leader); ok {
		name = x.Name
	}
	tell(true, "done by the replica that leads: "+name)
}
