package netboot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"github.com/rackseed/rackseed/services/ignition"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/wire"
)

// Replicas is what of the state it is decided from whether a node runs a replica
// of the boot service; state.View has it.
type Replicas interface {
	Site() (machine.Site, bool)
	Handoff() (machine.Handoff, bool)
	Replicas() []machine.Replica
	Replica(id string) (machine.Replica, bool)
	Cluster() (state.Cluster, bool)
	LeftReplicas(of machine.ID) []string
	Image(ref string) (machine.Image, bool)
}

// carried is the replica that a node has.
type carried struct {
	id         string // "": none that joined
	generation uint64
}

// replicaOrder decides whether a node runs a replica: while one of it is in
// service, and from when a plan says so until it is given up. The replica that it has may
// have joined after the entry that the cluster was recovered from: nothing knows it then,
// and it is over for it.
func replicaOrder(v Replicas, m machine.Machine, has carried) wire.ReplicaOrder {
	site, _ := v.Site()
	image, ok := v.Image(state.ServiceRef)
	order := wire.ReplicaOrder{Slower: site.Slower(), Left: v.LeftReplicas(m.ID)}
	if ok {
		order.Image = serviceName(image.Digest)
	}
	cluster, _ := v.Cluster()
	if _, known := v.Replica(has.id); has.id != "" && !known && has.generation > 0 && has.generation < cluster.Generation {
		order.Left = append(order.Left, has.id)
	}
	all := v.Replicas()
	if i := slices.IndexFunc(all, func(r machine.Replica) bool { return r.Machine == m.ID }); i >= 0 {
		order.Run, order.Joined = true, true
		if told := all[i].Ordered; told != "" { // each node's own: never all at once
			order.Image, order.Change = serviceName(told), true
		}
		return order
	}
	h, planned := v.Handoff()
	switch {
	case !planned || !h.Wants(m.ID):
		order.Reason = "no plan wants one there"
	case !m.Address.IsValid():
		order.Reason = "it has no static address"
	case !ok:
		order.Reason = "the boot service's own image is not published"
	default:
		order.Run = true
	}
	return order
}

// serviceName is by what nodes pull an image of the boot service.
func serviceName(digest string) string {
	return fmt.Sprintf("%s/rackseed/%s@%s", ignition.RegistryHost, state.ServiceRef, digest)
}

func (s *Server) serveNodeReplica(w http.ResponseWriter, r *http.Request, c caller) error {
	q := r.URL.Query()
	generation, err := strconv.ParseUint(cmp.Or(q.Get("generation"), "0"), 10, 64)
	if err != nil {
		return status(http.StatusBadRequest, fmt.Errorf("generation: %w", err))
	}
	return writeJSON(w, replicaOrder(s.Store.View(), c.machine, carried{q.Get("replica"), generation}))
}

// serveNodeInvite hands out what a node's replica joins by, sealed to a key of the
// request. One that joined already is not invited again: its folder is its own.
func (s *Server) serveNodeInvite(w http.ResponseWriter, r *http.Request, c caller) error {
	key, err := sealKey(c, "replica")
	if err != nil {
		return err
	}
	view := s.Store.View()
	order := replicaOrder(view, c.machine, carried{})
	switch {
	case s.Invite == nil:
		return status(http.StatusServiceUnavailable, errors.New("this boot service takes no replicas in"))
	case !order.Run:
		return status(http.StatusConflict, fmt.Errorf("%s runs no replica: %s", nameOf(c.machine), order.Reason))
	case order.Joined:
		return status(http.StatusConflict, fmt.Errorf("the replica of %s joined already; if its folder is lost, take it away first (rackseed handoff remove), since it may have forgotten what it promised", nameOf(c.machine)))
	}
	ctx, cancel := context.WithTimeout(r.Context(), answerLimit)
	defer cancel()
	secret, err := s.Invite(ctx, view, c.machine)
	if err != nil {
		return err
	}
	sealed, err := sealFor(key, wire.ReplicaPurpose(string(c.machine.ID)), secret)
	if err != nil {
		return fmt.Errorf("machine %s: replica: %w", c.machine.ID, err)
	}
	return writeJSON(w, sealed)
}

var _ Replicas = state.View{}
