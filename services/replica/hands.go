package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rackseed/rackseed/services/handoff"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/peer"
	"github.com/rackseed/rackseed/services/peerapi"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/wire"
)

// runHandoff carries out the plan by which the boot service moves, while this
// replica leads.
func (r *replica) runHandoff(ctx context.Context, tell report) error {
	loop := &handoff.Loop{Store: r.store.Load(), Hands: hands{r}, Self: r.own.ID, Now: r.now, Logger: r.Logger, Slower: r.Slower}
	r.handoff.Store(loop)
	tell(true, "carried out while this replica leads")
	return loop.Run(ctx)
}

// handoffStatus is how far the plan is.
func (r *replica) handoffStatus() handoff.Status {
	var s handoff.Status
	if loop := r.handoff.Load(); loop != nil {
		s = loop.Status()
	}
	if others := r.others.Load(); others != nil {
		s.Others = *others
	}
	return s
}

// hands do what is outside of the log.
type hands struct{ *replica }

var _ handoff.Hands = hands{}

func (h hands) Look(ctx context.Context, id string) (handoff.Report, error) {
	if id == h.own.ID {
		return h.report()
	}
	return h.client().Report(ctx, id)
}

func (h hands) Node(id machine.ID) handoff.Node {
	m, ok := h.store.Load().View().Machine(id)
	if !ok {
		return handoff.Node{Why: fmt.Sprintf("there is no machine %s", id)}
	}
	return handoff.CanCarry(m)
}

// Deploy waits for a target's replica to join: its node asks every few seconds
// whether it is to run one (netboot, /v1/node/replica), and the plan says so.
func (h hands) Deploy(ctx context.Context, t machine.HandoffTarget) error {
	store := h.store.Load()
	for {
		view := store.View()
		changed := view.Changed("replicas")
		for _, r := range view.Replicas() {
			if r.Machine == t.Machine {
				return nil
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("no replica has joined from %s: its node agent must reach the boot service, and the replica port %s of it; see rackseed log %[1]s, and there, as root, journalctl -u rackseed-node and what is in /var/log/pods/rackseed_*", t.Name, peer.Port)
		}
	}
}

func (h hands) Seal(ctx context.Context, id string, plan machine.Handoff) error {
	return h.client().Seal(ctx, id, plan)
}

// Backup writes the state to every other member that is there, or, where there is
// none, to a file of this one.
func (h hands) Backup(ctx context.Context) (uint64, error) {
	var text bytes.Buffer
	index, err := h.store.Load().Export(&text)
	if err != nil {
		return 0, err
	}
	others := (peers{h.replica}).Peers()
	if len(others) == 0 {
		return index, h.keepBackup(index, bytes.NewReader(text.Bytes()))
	}
	var errs []error
	for _, id := range others {
		if err := h.client().Backup(ctx, id, index, bytes.NewReader(text.Bytes())); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) == len(others) { // they are away, and may never come back
		h.Logger.Warn("replica: no other replica took a backup: it is kept here", "error", errors.Join(errs...))
		return index, h.keepBackup(index, bytes.NewReader(text.Bytes()))
	}
	return index, nil
}

// inviteLife is how long a node has to start its replica.
const inviteLife = 10 * time.Minute

// invitation invites a machine's replica.
func (r *replica) invitation(ctx context.Context, view state.View, m machine.Machine) (wire.ReplicaSecret, error) {
	authority, err := view.OpenSecret(peerapi.SecretCrt)
	if err != nil {
		return wire.ReplicaSecret{}, fmt.Errorf("the authority for replicas' certificates: %w", err)
	}
	cluster, _ := view.Cluster()
	token, invite := peerapi.NewInvitation(m.Name, m.ID)
	invite.Expires = r.now().Add(inviteLife)
	if _, err := r.store.Load().Propose(ctx, by, invite); err != nil {
		return wire.ReplicaSecret{}, err
	}
	i := peer.Invitation{Cluster: cluster.ID, Generation: cluster.Generation, Authority: authority, Token: token}
	for _, x := range view.Replicas() {
		i.Endpoints = append(i.Endpoints, x.Endpoint)
	}
	return wire.ReplicaSecret{Invitation: i.JSON()}, nil
}

// remove takes another replica out of the configuration: its vote first.
func (r *replica) remove(ctx context.Context, id string) error {
	store := r.store.Load()
	for _, change := range []state.ChangeKind{state.Demote, state.Remove} {
		m := store.Membership()
		if change == state.Demote && !m.Voter(id) || !m.Has(id) {
			continue
		}
		err := store.Change(ctx, change, id)
		if errors.Is(err, state.ErrNotLeading) {
			err = &state.Refusal{Text: "this replica does not lead: ask at the service address, where the one answers that does"}
		}
		if err != nil {
			return err
		}
	}
	return nil
}
