package replica

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/rackseed/rackseed/services/api"
	"github.com/rackseed/rackseed/services/identity"
	"github.com/rackseed/rackseed/services/peer"
	"github.com/rackseed/rackseed/services/peerapi"
	"github.com/rackseed/rackseed/services/state"
)

const (
	aloneAsk  = 3 * time.Second // for another replica to say what it has
	aloneLook = 5 * time.Second // between two questions
)

// ownLog is what this replica's log says.
type ownLog struct {
	id         string
	last       uint64 // newest entry
	configured uint64 // entry by which this replica is the only voter
	epoch      uint64
}

// heard is what another replica said of itself, or that it said nothing.
type heard struct {
	id     string
	name   string // for people
	named  bool   // it may have a vote
	err    error
	stored state.Stored
}

// verdict is what a replica may do whose log says that it is alone.
type verdict string

const (
	goesOn   verdict = "goes on"   // nobody has more than it has
	waits    verdict = "waits"     // somebody who may have more said nothing yet
	wentBack verdict = "went back" // its log lost what others have
)

// judge decides it, and says why and what to do. A log whose newest entries were
// lost by the medium, or that is a copy from before a handoff, says that it is
// alone as a true one does: the others know better.
func judge(own ownLog, others []heard) (v verdict, why string) {
	var more, silent []string
	for _, x := range others {
		var other *peer.OtherGenerationError
		switch {
		case peer.Refused(x.err):
			more = append(more, x.name+" says that this replica was removed")
		case errors.As(x.err, &other) && other.There.Generation > other.Own.Generation:
			// Whose certificate that is cannot be proved here: nothing is given up for it.
			silent = append(silent, x.name+": "+x.err.Error())
		case errors.As(x.err, &other): // left behind: it knows nothing that counts
		case x.err != nil && x.named:
			silent = append(silent, fmt.Sprintf("%s: %v", x.name, cause(x.err)))
		case x.err != nil:
		case x.stored.Last > own.last || x.stored.Epoch > own.epoch:
			more = append(more, fmt.Sprintf("%s has entry %d of epoch %d", x.name, x.stored.Last, x.stored.Epoch))
		case x.stored.Voter && x.stored.Last >= own.configured:
			// One whose log ends before has not heard yet that it lost its vote.
			more = append(more, x.name+" has a vote")
		}
	}
	switch {
	case len(more) > 0:
		return wentBack, fmt.Sprintf("The log of this replica (%s) ends with entry %d of epoch %d and says that it is alone, and others have more: %s. "+
			"Its newest entries were lost, or it is a copy: it never serves again, and never comes back under its ID. The boot service runs where the others are; "+
			"write this stick anew, or empty its data. Only if all the others are lost for ever: rackseed recover",
			own.id, own.last, own.epoch, strings.Join(more, "; "))
	case len(silent) > 0:
		return waits, fmt.Sprintf("The log of this replica (%s) says that it is alone, and others may have a vote that did not answer: %s. "+
			"It serves nobody before they did: plug it into the network of the nodes, and switch these on. Only if they are lost for ever: rackseed recover",
			own.id, strings.Join(silent, "; "))
	}
	return goesOn, ""
}

// cause is what of an error an operator can do something about: that of the
// connection, if there was none.
func cause(err error) error {
	if dial := (*net.OpError)(nil); errors.As(err, &dial) {
		return dial
	}
	return err
}

// mayOpen returns nil once this replica may open its state, where it leads at once
// if its log says that it is alone: then it asks those first that may know better.
func (r *replica) mayOpen(ctx context.Context) (err error) {
	ask := maps.Clone(r.own.Endpoints)
	if ask == nil {
		ask = map[string]string{}
	}
	maps.Copy(ask, r.own.Named.Endpoints)
	delete(ask, r.own.ID)
	if len(ask) == 0 {
		return nil
	}
	past, err := state.ReadPast(state.Config{Dir: filepath.Join(r.Data, "state"), ID: r.own.ID, Logger: r.Logger})
	if errors.Is(err, fs.ErrNotExist) {
		return nil // opening it says what that means
	}
	if err != nil {
		return err
	}
	alone := past.Alone(r.own.ID)
	cluster, _ := past.View.Cluster()
	own := ownLog{r.own.ID, past.Last, past.Configured, cluster.Epoch}
	var others []heard
	for _, id := range slices.Sorted(maps.Keys(ask)) {
		x, _ := past.View.Replica(id)
		_, named := r.own.Named.Endpoints[id]
		// A log with a newer configuration knows what became of the vote.
		others = append(others, heard{id: id, name: cmp.Or(x.Name, id), named: named && past.Configured <= r.own.Named.Index})
	}
	// Locked until it may be opened: nobody recovers it meanwhile.
	defer func() { err = errors.Join(err, past.Close()) }()
	if !alone {
		return nil
	}
	defer r.tasks.drop(taskBegin)
	for told := ""; ; {
		one, cancel := context.WithTimeout(ctx, aloneAsk)
		answers := peerapi.AskAll(one, r.own.Identity, ask, r.Logger)
		cancel()
		for i := range others {
			x := &others[i]
			x.stored, x.err = answers[x.id].Stored, answers[x.id].Err
		}
		v, why := judge(own, others)
		if v == goesOn {
			return nil
		}
		kind := api.HealthFault
		if v == waits {
			kind = api.HealthWaiting
		}
		if r.tasks.set(taskBegin, false, why, kind); why != told {
			r.Logger.Error("replica: it does not lead alone", "verdict", v, "why", why)
			told = why
		}
		if !pause(ctx, aloneLook) {
			return ctx.Err()
		}
	}
}

// beforeVote notes, beside the log, which others may have a vote from now on.
func (r *replica) beforeVote(id string) error {
	store := r.store.Load()
	named := identity.Named{Index: store.Stored().Last, Endpoints: map[string]string{}}
	for _, x := range store.View().Replicas() {
		if x.ID != r.own.ID {
			named.Endpoints[x.ID] = x.Endpoint
		}
	}
	if named.Endpoints[id] == "" {
		return fmt.Errorf("where replica %s listens is not known", id)
	}
	return identity.Name(r.identityDir(), named)
}

// forgetNamed removes that note once this replica leads as the only member, as after
// a handoff that was given up.
func (r *replica) forgetNamed(store *state.Store) error {
	m := store.Membership()
	if m.Leads && len(m.Members) == 1 && len(store.View().Replicas()) <= 1 {
		return identity.Unname(r.identityDir())
	}
	return nil
}
