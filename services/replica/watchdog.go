package replica

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/rackseed/rackseed/services/state"
)

const (
	// hungAfter is how long a write to the log may take while this replica leads
	// others. Raft goes on heartbeating on a hung disk: nobody else would lead,
	// and nothing would be committed.
	hungAfter = 2 * time.Second
	hungLook  = 100 * time.Millisecond
	// lastWords is how long the rest has to end in order; a hung disk holds it up.
	lastWords = time.Second
)

// hang is how long a write to the log was watched not to end.
type hang struct {
	since   time.Time // when it began
	looked  time.Time
	watched time.Duration
}

// look adds what was watched since the last look: at most five looks' time, since a
// process that was stopped, or a machine that was paused, has watched nothing.
func (h hang) look(now time.Time, m state.Medium) hang {
	if m.Since.IsZero() || !m.Since.Equal(h.since) {
		return hang{since: m.Since, looked: now}
	}
	h.watched += min(now.Sub(h.looked), 5*hungLook)
	h.looked = now
	return h
}

// hung says how long the log's disk holds up others that could do better: this
// replica, own, was elected, and a write does not end. "": it does not. Whether its
// epoch is committed makes no difference: what hangs may be its first entry.
func hung(h hang, m state.Medium, members state.Membership, own string, slower int) string {
	limit := hungAfter * time.Duration(max(slower, 1))
	if members.Leader != own || len(members.Voters()) < 2 || m.Since.IsZero() || h.watched < limit {
		return ""
	}
	why := fmt.Sprintf("a write to its log has taken %v", h.watched.Round(100*time.Millisecond))
	if m.Failed != nil {
		why = m.Failed.Error()
	}
	return "this replica leads no more, since its disk holds up the others: " + why
}

// watchDisk ends the process when its disk holds up other replicas: with its
// sockets closed another one leads, and the kernel takes the service address back
// (services/address). The process is started again, and follows once the disk
// takes writes.
func (r *replica) watchDisk(ctx context.Context, store *state.Store) {
	tick := time.NewTicker(hungLook)
	defer tick.Stop()
	var h hang
	for {
		medium, _ := store.Medium()
		h = h.look(time.Now(), medium)
		if why := hung(h, medium, store.Membership(), r.own.ID, r.Slower); why != "" {
			r.Logger.Error("replica: " + why)
			r.network.Close()
			time.AfterFunc(lastWords, func() { os.Exit(hungExit) })
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// hungExit is the process's exit status then.
const hungExit = 4
