package replica

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rackseed/rackseed/services/identity"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
)

// letGoAfter is how long nobody leads this replica before it takes itself for
// removed, once it is sealed: a leader speaks every fraction of a second to who
// is a member.
const letGoAfter = 15 * time.Second

// errSealed ends the work of a replica that handed its part over.
var errSealed = errors.New("sealed")

// seal writes that it is over for this replica. From then on it never leads, and
// after a restart it does not open its state.
func (r *replica) seal(h machine.Handoff) error {
	store := r.store.Load()
	if store == nil {
		return errStarting
	}
	switch {
	case h.From != r.own.ID:
		return &state.Refusal{Text: fmt.Sprintf("handoff %s ends replica %s, and this is %s", h.ID, h.From, r.own.ID)}
	case store.Membership().Voter(r.own.ID):
		return &state.Refusal{Text: fmt.Sprintf("replica %s has a vote still, as far as it knows: take it first", r.own.ID)}
	}
	cluster, _ := store.View().Cluster()
	err := identity.Seal(r.identityDir(), identity.Sealed{Handoff: h.ID, Epoch: cluster.Epoch, Index: store.Stored().Last, At: r.Now().UTC()})
	if err == nil {
		r.sealed.Store(true)
	}
	return err
}

// untilLetGo returns once this replica is sealed and no leader speaks to it any
// more, or ctx ended.
func (r *replica) untilLetGo(ctx context.Context, store *state.Store) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	last := time.Now()
	for {
		if !r.sealed.Load() || store.Membership().Leader != "" {
			last = time.Now()
		}
		if time.Since(last) >= letGoAfter*time.Duration(max(r.Slower, 1)) {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// rest is what a sealed replica does: it says so.
func (r *replica) rest(ctx context.Context) {
	r.sealed.Store(true)
	r.letGo.Store(true)
	r.tasks.set(taskBegin, true, sealedText)
	<-ctx.Done()
}

const sealedText = "The boot service runs on nodes of the cluster now. Safe to unplug."
