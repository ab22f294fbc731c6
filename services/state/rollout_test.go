package state

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/rackseed/rackseed/services/machine"
)

func rollout(image string) RolloutStart {
	return RolloutStart{machine.Rollout{ID: "o-1", Image: digestOf(image), By: "operator:ann", Within: machine.Duration(5 * time.Minute)}}
}

// carried is a world whose boot service runs image old on two nodes, r-2 and r-3.
func carried(t *testing.T) *world {
	w := newWorld(t)
	w.must(tell("r-1", "10.77.0.2:8300"))
	for n, id := range []string{"r-2", "r-3"} {
		w.must(session(id, inventory(n+1), machineID(n+1)))
		in := invite(w, id)
		in.Machine = machineID(n + 1)
		w.must(in)
		j := joinBy(id, id)
		j.Image = digestOf("old")
		w.must(j)
	}
	w.must(ImagePublish{Images: []machine.Image{{Ref: "service", Digest: digestOf("old")}, {Ref: "lab/service:v2", Digest: digestOf("new")}}})
	return w
}

// runs has a replica tell that it runs an image.
func runs(w *world, id, image string, level uint64) {
	r, _ := w.view().Replica(id)
	w.must(ReplicaTell{ID: id, Name: r.Name, Machine: r.Machine, Endpoint: r.Endpoint, Key: r.Key, Release: image, Level: level, Image: digestOf(image)})
}

func (w *world) replica(id string) machine.Replica {
	r, _ := w.view().Replica(id)
	return r
}

func TestRollout(t *testing.T) {
	w := carried(t)
	none := rollout("nobody's")
	wantText(t, w.refused(none), "is not published")
	wantText(t, w.refused(rollout("old")), "runs image sha256:")
	for _, within := range []time.Duration{0, maxWithin + 1} {
		bad := rollout("new")
		bad.Rollout.Within = machine.Duration(within)
		wantText(t, w.refused(bad), "within a time")
	}
	w.must(rollout("new"))
	wantText(t, w.refused(rollout("new")), "a rollout is under way")
	wantText(t, w.refused(handoff(1)), "is being rolled out")
	wantText(t, w.refused(RolloutTell{ID: "o-1", Replica: "r-1"}), "on a node")
	wantText(t, w.refused(RolloutTell{ID: "o-2", Replica: "r-2"}), "not under way")

	w.must(RolloutTell{ID: "o-1", Replica: "r-2"})
	wantText(t, w.refused(RolloutTell{ID: "o-1", Replica: "r-3"}), "turn of replica r-2")
	if a, b := w.replica("r-2"), w.replica("r-3"); a.Ordered != digestOf("new") || b.Ordered != digestOf("old") {
		t.Errorf("ordered: %s, %s", a.Ordered, b.Ordered)
	}
	wantText(t, w.refused(RolloutDid{ID: "o-1", Replica: "r-2"}), "runs image")
	wantText(t, w.refused(RolloutDid{ID: "o-1", Replica: "r-3"}), "turn of")
	runs(w, "r-2", "new", 2)
	w.must(RolloutDid{ID: "o-1", Replica: "r-2"})
	wantText(t, w.refused(RolloutTell{ID: "o-1", Replica: "r-2"}), "is done")
	w.must(RolloutTell{ID: "o-1", Replica: "r-3"})
	runs(w, "r-3", "new", 2)
	w.must(RolloutDid{ID: "o-1", Replica: "r-3"})
	r, ok := w.view().Rollout()
	if !ok || r.Step != machine.RolloutDone || r.Turn != "" || len(r.Done) != 2 {
		t.Errorf("%+v", r)
	}
	if i, _ := w.view().Image("service"); i.Digest != digestOf("new") {
		t.Errorf("new replicas would run %s", i.Digest)
	}
	wantText(t, w.refused(RolloutStop{ID: "o-1"}), "not under way")
	wantText(t, w.refused(rollout("new")), "already")
}

func TestRolloutIsStopped(t *testing.T) {
	w := carried(t)
	w.must(rollout("new"))
	w.must(RolloutTell{ID: "o-1", Replica: "r-2"})
	w.must(RolloutStop{ID: "o-1", Reason: "it did not come back"})
	if x := w.replica("r-2"); x.Ordered != digestOf("old") || x.Image != digestOf("old") {
		t.Errorf("one that never came back is told %s", x.Ordered)
	}
	// Another one, whose replica did come back, and is not well.
	w.must(rollout("new"))
	w.must(RolloutTell{ID: "o-1", Replica: "r-2"})
	runs(w, "r-2", "new", 1)
	if x := w.replica("r-2"); x.FallBack == nil || x.FallBack.Image != digestOf("old") {
		t.Errorf("falls back to %+v", x.FallBack)
	}
	w.must(RolloutStop{ID: "o-1", Reason: "it is behind"})
	if x := w.replica("r-2"); x.Ordered != digestOf("old") {
		t.Errorf("one that came back is told %s", x.Ordered)
	}
	wantText(t, w.refused(RolloutKeep{}), "replica node-r-2 is told to run image")
	runs(w, "r-2", "old", 1)
	if x := w.replica("r-2"); x.FallBack != nil {
		t.Errorf("one that went back falls back to %+v", x.FallBack)
	}
	if i, _ := w.view().Image("service"); i.Digest != digestOf("old") {
		t.Error("new replicas would run what was stopped")
	}
}

// A replica that is taken away keeps no rollout.
func TestRolloutWithoutOneThatLeft(t *testing.T) {
	w := carried(t)
	w.must(rollout("new"))
	w.must(RolloutTell{ID: "o-1", Replica: "r-2"})
	runs(w, "r-2", "new", 1)
	w.must(RolloutDid{ID: "o-1", Replica: "r-2"})
	w.must(RolloutTell{ID: "o-1", Replica: "r-3"})
	w.must(ReplicaLeave{ID: "r-3", Reason: "its board burnt"})
	if r, _ := w.view().Rollout(); r.Step != machine.RolloutDone || r.Turn != "" {
		t.Errorf("%+v", r)
	}
}

func TestRolloutWaitsForTheHandoff(t *testing.T) {
	w := newWorld(t)
	story(w)
	w.must(handoff(1))
	wantText(t, w.refused(rollout("service")), "a handoff is under way (preflight)")
}

// The level rises once every replica, and what it would go back to, supports it.
func TestFeatureLevelRises(t *testing.T) {
	w := carried(t)
	w.fsm.level = 2
	first := tell("r-1", "10.77.0.2:8300")
	first.Level = 2
	w.must(first)
	equal(t, "supported while others are old", w.view().Supported(), 1)
	wantText(t, w.refused(FeatureRaise{Level: 2}), "supports 1 only")
	w.must(rollout("new"))
	for _, id := range []string{"r-2", "r-3"} {
		w.must(RolloutTell{ID: "o-1", Replica: id})
		runs(w, id, "new", 2)
		wantText(t, w.refused(FeatureRaise{Level: 2}), "a rollout is under way")
		wantText(t, w.refused(RolloutKeep{}), "a rollout is under way")
		w.must(RolloutDid{ID: "o-1", Replica: id})
	}
	wantText(t, w.refused(FeatureRaise{Level: 2}), "would go back to, supports 1 only")
	w.must(RolloutKeep{})
	wantText(t, w.refused(RolloutKeep{}), "no replica has an earlier image")
	equal(t, "supported", w.view().Supported(), 2)
	wantText(t, w.refused(FeatureRaise{Level: 3}), "supports 2 only")
	w.must(FeatureRaise{Level: 2})
	wantText(t, w.refused(FeatureRaise{Level: 2}), "never falls")
	if c, _ := w.view().Cluster(); c.FeatureLevel != 2 {
		t.Errorf("%+v", c)
	}
	// From here on an older binary is turned away.
	w.must(invite(w, "late"))
	late := joinBy("late", "r-4")
	wantText(t, w.refused(late), "supports feature level 1 and the cluster is at 2, so that it could not read the log: install a newer release there")
	wantText(t, w.refused(tell("r-1", "10.77.0.2:8300")), "install a newer release there")
	// And one that has the log or a snapshot halts, with the reason.
	old := newWorld(t)
	for _, l := range w.log[2:] {
		old.fsm.Apply(l)
		if old.halt != nil {
			break
		}
	}
	if old.halt == nil || !strings.Contains(old.halt.Error(), "the cluster is at feature level 2 and this binary supports 1: install a newer release") {
		t.Errorf("an old binary with the log: %v", old.halt)
	}
	var snapshot bytes.Buffer
	if err := writeSnapshot(&snapshot, w.view().v.txn, 9); err != nil {
		t.Fatal(err)
	}
	if err := newWorld(t).fsm.Restore(io.NopCloser(&snapshot)); err == nil || !strings.Contains(err.Error(), "install a newer release") {
		t.Errorf("an old binary with a snapshot: %v", err)
	}
}

// Old and new binaries beside each other: what only new ones know is not proposed
// before the level is raised, and halts an old one that was left behind.
func TestOldAndNewBinaries(t *testing.T) {
	usual := kindByName
	defer func() { kindByName = usual }()
	kindByName = maps.Clone(usual)
	note := kindByName["note/1"]
	note.level = 2 // the newer release brought it
	kindByName["note/1"] = note

	halted := make(chan error, 1)
	stores := map[string]*Store{}
	var nets []*raft.InmemTransport
	start := func(id string, level uint64) *Store {
		t.Helper()
		_, net := raft.NewInmemTransport(raft.ServerAddress(id))
		for _, other := range nets {
			other.Connect(net.LocalAddr(), net)
			net.Connect(other.LocalAddr(), other)
		}
		nets = append(nets, net)
		s, err := Open(Config{
			ID: id, InMemory: true, Transport: net, Peers: storesByID(stores), Joins: len(stores) > 0, Fresh: len(stores) > 0, level: level,
			Logger: slog.New(slog.DiscardHandler), Halt: func(err error) { halted <- err },
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		stores[id] = s
		return s
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	young := start("r-1", 2)
	if err := young.WaitLeader(ctx); err != nil {
		t.Fatal(err)
	}
	must := func(c Command) {
		t.Helper()
		if _, err := young.Propose(ctx, "test", c); err != nil {
			t.Fatal(err)
		}
	}
	one := tell("r-1", "10.77.0.2:8300")
	one.Level = 2
	must(one)
	start("r-2", 1)
	if err := young.Change(ctx, Add, "r-2"); err != nil {
		t.Fatal(err)
	}
	said := Note{What: "note", Severity: machine.Info, Text: "new"}
	if _, err := young.Propose(ctx, "test", said); err == nil || !strings.Contains(err.Error(), "needs feature level 2 and the cluster is at 1; upgrade every replica first") {
		t.Errorf("proposed at level 1: %v", err)
	}
	must(FeatureRaise{Level: 2}) // r-2 never told of itself
	must(said)
	select {
	case err := <-halted:
		if !strings.Contains(err.Error(), "install a newer release") {
			t.Errorf("the old one halted: %v", err)
		}
	case <-ctx.Done():
		t.Fatal("the old binary goes on")
	}
	if leads, _ := young.Leading(); !leads {
		t.Error("the new one does not go on")
	}
	// What an old binary says of a kind that it has not.
	if _, _, err := decode([]byte(`{"v":1,"kind":"note/1","at":"2026-11-24T12:00:00Z","by":"x","data":{}}`), 1); err == nil || !strings.Contains(err.Error(), "command note/1 is not known to this binary, which supports feature level 1; a newer release wrote it: install that one") {
		t.Errorf("read by an old binary: %v", err)
	}
	// Asked by a follower that is newer, the older one that leads did nothing.
	_, err := young.Take(ctx, Proposal{By: "x", Kind: "tomorrow/1", Data: []byte("{}")})
	if refusal := (*Refusal)(nil); !errors.As(err, &refusal) || !strings.Contains(err.Error(), "of an older release") {
		t.Errorf("a command of tomorrow: %v", err)
	}
}

// storesByID are asked in this process.
type storesByID map[string]*Store

func (m storesByID) Propose(ctx context.Context, leader string, p Proposal) (Result, error) {
	return m[leader].Take(ctx, p)
}

func (m storesByID) Stored(_ context.Context, id string) (Stored, error) { return m[id].Stored(), nil }
