package state

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/raft"

	"github.com/rackseed/rackseed/services/machine"
)

// peerPrefix is what the names of the secrets of replicas' certificates begin with.
const peerPrefix = "peer/"

// clusterRecover begins a new generation of the cluster, with one replica. What was
// committed after the entry that it is recovered from is not known any more: so
// nothing that was ordered before may write to a disk without being ordered again.
func (c *change) clusterRecover(x ClusterRecover) error {
	r := c.cluster()
	switch {
	case !r.Created:
		return refuse("there is no cluster that could be recovered")
	case x.Generation <= r.Generation:
		return refuse("cluster %s is at generation %d: a recovery makes a later one, and not %d", r.ID, r.Generation, x.Generation)
	case x.Replica != r.Leader || c.replica(x.Replica) != nil:
		return refuse("replica %.40q: a recovered cluster is led by one that is new and alone, and %s leads", x.Replica, r.Leader)
	}
	for _, name := range slices.Sorted(maps.Keys(x.Secrets)) {
		if !strings.HasPrefix(name, peerPrefix) {
			return refuse("recovery: %.40q is no secret of the replicas' authority", name)
		}
		if err := c.putSecret(name, x.Secrets[name]); err != nil {
			return err
		}
	}
	r.Generation = x.Generation
	c.put(tableCluster, &r)
	if k := c.keyring(); k != nil && k.Next != "" { // which nobody may have
		kept := *k
		kept.Next, kept.For = "", ""
		c.put(tableKeyring, &kept)
	}
	c.event("", "cluster.recovered", machine.Warning,
		clip(fmt.Sprintf("Cluster %s was recovered by %s from entry %d of %s: it is generation %d now. What came after that entry is lost; look at machines that were being installed",
			r.ID, asker(c.by), x.Index, x.From, x.Generation)),
		"cluster", r.ID, "generation", fmt.Sprint(x.Generation), "from", x.From, "entry", fmt.Sprint(x.Index), "replica", x.Replica, "by", c.by)
	each(c.tables, tableReplicas, byID, nil, func(old *machine.Replica) bool {
		if old.InService() {
			left := *old
			left.Left, left.Proved = c.at, 0
			c.put(tableReplicas, &left)
		}
		return true
	})
	if x.Endpoint != "" {
		now := machine.Replica{ID: x.Replica, Name: x.Name, Machine: x.Machine, Endpoint: x.Endpoint, Key: x.Key, Joined: c.at, Release: x.Release, Level: x.Level}
		if err := checkReplica(now.ID, now.Endpoint, now.Release, "", now.Key, now.Level); err != nil {
			return err
		}
		c.put(tableReplicas, &now)
	}
	each(c.tables, tableInvitations, byID, nil, func(i *invitationRow) bool { // into the old generation
		c.remove(tableInvitations, i)
		return true
	})
	if h := c.handoff(); h != nil && !h.Step.Over() {
		over := *h
		over.Step, over.Since, over.Moved, over.Reason = machine.HandoffAborted, c.at, c.at, "the cluster was recovered"
		c.put(tableHandoff, &over)
	}
	if old := c.rollout(); old != nil && !old.Step.Over() {
		over := *old
		over.Step, over.Turn, over.Reason = machine.RolloutStopped, "", "the cluster was recovered"
		c.put(tableRollout, &over)
	}
	each(c.tables, tableIntents, byOrder, nil, func(i *intentRow) bool {
		if i.Intent.Kind == machine.IntentInstall && i.Intent.Live() {
			c.fence(i)
		}
		return true
	})
	return nil
}

// fence ends an install of which it is not known how far it came.
func (c *change) fence(i *intentRow) {
	const why = "the cluster was recovered meanwhile, so that how far this came is not known: look at the machine, and let it begin again only if it is not installed"
	failed := c.editIntent(i)
	failed.Intent.Status, failed.Intent.Reason = machine.IntentFailed, why
	if r := c.tables.machine(i.Intent.Machine); r != nil {
		m := c.edit(r)
		m.Machine.Phase, m.Machine.Reason = machine.PhaseFailed, why
	}
	c.event(i.Intent.Machine, "intent.fenced", machine.Warning, "Its install is stopped: "+why, "intent", i.Intent.ID)
}

// ReadBackup reads a backup of the state, as Export wrote it, gzipped or not. It has no
// members.
func ReadBackup(from io.Reader) (*Past, error) {
	whole := bufio.NewReader(from)
	from = whole
	if magic, err := whole.Peek(2); err == nil && string(magic) == "\x1f\x8b" { // RFC 1952, section 2.3.1
		z, err := gzip.NewReader(whole)
		if err != nil {
			return nil, fmt.Errorf("backup of the state: %w", err)
		}
		from = z
	}
	db, index, err := readSnapshot(from, FeatureLevel)
	if err != nil {
		return nil, fmt.Errorf("backup of the state: %w", err)
	}
	f, err := newFSM(maxEvents, func(error) {}, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	f.db = db
	f.publish(index, allTables)
	p := &Past{View: f.view(), Last: index, close: func() error { return nil }}
	p.Term = p.View.t.cluster().Term
	return p, nil
}

// Seed makes, in an empty folder, a state that goes on from a past one, with one
// voter. Open starts it.
func Seed(config Config, p *Past) (err error) {
	s := offline(config)
	kept, err := s.openStores()
	if err != nil {
		return errors.Join(err, s.closeStores())
	}
	defer func() { err = errors.Join(err, s.closeStores()) }()
	if begun, err := kept.begun(config.Dir); err != nil || begun {
		return errors.Join(fmt.Errorf("%s is not empty", config.Dir), err)
	}
	var text bytes.Buffer
	if err := writeSnapshot(&text, p.View.v.txn, p.Last); err != nil {
		return err
	}
	id := raft.ServerID(config.ID)
	one := raft.Configuration{Servers: []raft.Server{{ID: id, Address: raft.ServerAddress(id)}}}
	_, transport := raft.NewInmemTransport(raft.ServerAddress(id)) // it only writes addresses down
	sink, err := kept.snapshots.Create(raft.SnapshotVersionMax, p.Last, p.Term, one, p.Last, transport)
	if err != nil {
		return err
	}
	if _, err := sink.Write(text.Bytes()); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	if err := sink.Close(); err != nil {
		return err
	}
	return kept.stable.SetUint64(termKey, p.Term)
}
