package replica

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rackseed/rackseed/services/handoff"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
)

const (
	// othersLook is between two looks of the leader at the other replicas, and awayAfter
	// how long one may be silent without a word.
	othersLook = 5 * time.Second
	awayAfter  = time.Minute
)

// watchOthers looks at the other replicas while this one leads: one that is dead shows
// before the next one dies.
func (r *replica) watchOthers(ctx context.Context, tell report) error {
	store := r.store.Load()
	defer r.others.Store(nil)
	since := map[string]time.Time{} // they do not answer, by server ID
	told := map[string]bool{}
	for ctx.Err() == nil {
		view, m := store.View(), store.Membership()
		seen := r.lookAtOthers(ctx, m)
		if ctx.Err() != nil {
			break
		}
		now := time.Now()
		for _, s := range seen {
			if _, known := since[s.ID]; s.Reachable {
				delete(since, s.ID)
			} else if !known {
				since[s.ID] = now
			}
		}
		maps.DeleteFunc(since, func(id string, _ time.Time) bool { return !m.Has(id) })
		r.others.Store(&seen)
		if h, planned := view.Handoff(); planned && !h.Step.Over() { // its gates tell of them
			tell(true, "a handoff is under way, which looks at them")
			pause(ctx, othersLook)
			continue
		}
		away := map[string]time.Duration{}
		for id, at := range since {
			if silent := now.Sub(at); silent >= awayAfter*time.Duration(max(r.Slower, 1)) {
				away[id] = silent
			}
		}
		for _, x := range m.Members {
			id := x.ID
			_, gone := away[id]
			if gone == told[id] {
				continue
			}
			note := state.Note{What: "replica.back", Severity: machine.Info, Text: fmt.Sprintf("Replica %s answers again", r.nameOf(view, id)), Data: map[string]string{"replica": id}}
			if gone {
				note.What, note.Severity = "replica.away", machine.Warning
				note.Text = awayText(m, []string{r.nameOf(view, id)}, away[id])
			}
			if _, err := store.Propose(ctx, by, note); err != nil {
				return err
			}
			told[id] = gone
		}
		if len(seen) == 0 {
			tell(true, "this replica is the only one")
		} else if len(away) == 0 {
			tell(true, fmt.Sprintf("%d others, and none of them is silent for long", len(seen)))
		} else {
			var names []string
			for _, id := range slices.Sorted(maps.Keys(away)) {
				names = append(names, r.nameOf(view, id))
			}
			tell(false, awayText(m, names, slices.Max(slices.Collect(maps.Values(away)))))
		}
		if !pause(ctx, othersLook) {
			break
		}
	}
	return nil
}

// awayText says that replicas are silent, what may still happen, and what to do.
func awayText(m state.Membership, names []string, since time.Duration) string {
	voters := len(m.Voters())
	text := fmt.Sprintf("%s of %d replicas cannot be reached, for %v.", strings.Join(names, ", "), len(m.Members), since.Round(time.Minute))
	if voters > 1 && len(names) >= (voters-1)/2 {
		text += " No other one may fail."
	}
	return text + fmt.Sprintf(" If its node does not just restart: switch it on, and look at its cable. If it is gone for good: rackseed handoff remove %s, then rackseed handoff start --node NAME", names[0])
}

// lookAtOthers asks the other members what they have, all at once.
func (r *replica) lookAtOthers(ctx context.Context, m state.Membership) []handoff.Seen {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second*time.Duration(max(r.Slower, 1)))
	defer cancel()
	var seen []handoff.Seen
	for _, x := range m.Members {
		if x.ID != r.own.ID {
			seen = append(seen, handoff.Seen{ID: x.ID})
		}
	}
	var asking sync.WaitGroup
	for i := range seen {
		asking.Go(func() {
			var err error
			seen[i].Stored, err = (hands{r}).client().Stored(ctx, seen[i].ID)
			seen[i].Reachable = err == nil
		})
	}
	asking.Wait()
	return seen
}
