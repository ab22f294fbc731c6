package replica

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/rackseed/rackseed/services/identity"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/peer"
	"github.com/rackseed/rackseed/services/peerapi"
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
	err := identity.Seal(r.identityDir(), identity.Sealed{Handoff: h.ID, Epoch: cluster.Epoch, Index: store.Stored().Last, At: r.now().UTC()})
	// Before it says that it is over.
	if err == nil {
		err = r.keys.Destroy()
	}
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

// rest is what a sealed replica does: it says so, on the screen and, as long as
// they ask, to those that go on, since its word may have been lost with its power.
func (r *replica) rest(ctx context.Context) {
	r.sealed.Store(true)
	r.tasks.run(ctx, task{"rest", r.serveRest})
}

// restLook is how often a sealed replica looks whether it is a member still.
const restLook = 5 * time.Second

func (r *replica) serveRest(ctx context.Context, tell report) error {
	own, err := identity.Load(r.identityDir()) // where the others are now
	if err != nil {
		return err
	}
	at := own.Endpoints[own.ID]
	told := func(id string) bool { return id != own.ID && own.Endpoints[id] != "" }
	network := peer.New(peer.Config{
		Identity: own.Identity, Member: told,
		Endpoint: func(id string) (string, error) { return own.Endpoints[id], nil },
		Members:  peerapi.Resting(r.Now), Joins: http.NotFoundHandler(), Logger: r.Logger,
	})
	defer network.Close()
	// Its link may come later than this does, or never again.
	var serving sync.WaitGroup
	defer serving.Wait()
	serving.Go(func() {
		for ctx.Err() == nil && at != "" {
			if l, err := net.Listen("tcp", at); err == nil {
				err = network.Serve(ctx, l)
				if err != nil {
					r.Logger.Warn("replica: answering those that go on", "error", err)
				}
			}
			if !pause(ctx, restLook) {
				return
			}
		}
	})
	// Who was let go is let in nowhere. While nobody answers it is not known: that they
	// are silent says nothing, a cable may be out.
	gone := false
	for {
		in, out := false, false
		for id := range own.Endpoints {
			if !told(id) {
				continue
			}
			one, cancel := context.WithTimeout(ctx, restLook)
			_, err := peerapi.Client{HTTP: network.Client()}.Stored(one, id)
			cancel()
			in, out = in || err == nil, out || peer.Refused(err)
		}
		if in || out {
			gone = !in // one that has not heard of it yet lets it in
		}
		if r.letGo.Store(gone); gone {
			tell(true, sealedText)
		} else {
			tell(true, "It is over for this replica. Leave it plugged in until the nodes have answered that they know.")
		}
		if !pause(ctx, restLook) {
			return nil
		}
	}
}

const sealedText = "The boot service runs on nodes of the cluster now. Safe to unplug."
