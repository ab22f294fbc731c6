package state

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// room is several replicas in virtual time, over a network that can be cut. It
// is to be used in a synctest bubble.
type room struct {
	t      *testing.T
	mu     sync.Mutex
	stores map[string]*Store
	nets   map[string]*raft.InmemTransport
	cut    map[string]bool
	mute   map[string]bool // takes nothing from Raft, and answers nothing once it is a voter
	late   map[string]time.Duration
}

func newRoom(t *testing.T) *room {
	return &room{t: t, stores: map[string]*Store{}, nets: map[string]*raft.InmemTransport{}, cut: map[string]bool{}, mute: map[string]bool{}, late: map[string]time.Duration{}}
}

// start starts a replica; the first one begins the cluster.
func (r *room) start(id string) *Store {
	r.t.Helper()
	_, net := raft.NewInmemTransport(raft.ServerAddress(id))
	late := r.late[id]
	s, err := Open(Config{ID: id, InMemory: true, Now: func() time.Time { return time.Now().Add(-late) }, Transport: net, Peers: peers{r, id}, Joins: len(r.stores) > 0, Fresh: len(r.stores) > 0})
	if err != nil {
		r.t.Fatal(err)
	}
	r.mu.Lock()
	r.stores[id], r.nets[id] = s, net
	r.mu.Unlock()
	r.connect()
	return s
}

// connect makes the network what cut says.
func (r *room) connect() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for a, from := range r.nets {
		for b, to := range r.nets {
			switch {
			case a == b:
			case r.cut[a] || r.cut[b] || r.mute[a] || r.mute[b]:
				from.Disconnect(raft.ServerAddress(b))
			default:
				from.Connect(raft.ServerAddress(b), to)
			}
		}
	}
}

// isolate cuts a replica off, or ends that.
func (r *room) isolate(id string, cut bool) {
	r.mu.Lock()
	r.cut[id] = cut
	r.mu.Unlock()
	r.connect()
}

func (r *room) stop() {
	for _, s := range r.stores {
		closeStore(r.t, s)
	}
	time.Sleep(time.Minute) // Raft's last goroutines wait for their timers
}

// leader waits for the one replica that leads.
func (r *room) leader() *Store {
	r.t.Helper()
	for range 600 {
		for id, s := range r.stores {
			if s.leading.is() && !r.cut[id] {
				return s
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	r.t.Fatal("nobody leads")
	return nil
}

// peers is how one of them asks the others.
type peers struct {
	r    *room
	from string
}

func (p peers) to(id string) (*Store, error) {
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	s := p.r.stores[id]
	if s == nil || p.r.cut[id] || p.r.cut[p.from] || p.r.mute[id] && p.r.stores[p.from].Membership().Voter(id) {
		return nil, fmt.Errorf("replica %s cannot be reached: %w", id, ErrNotLeading)
	}
	return s, nil
}

func (p peers) Propose(ctx context.Context, leader string, x Proposal) (Result, error) {
	s, err := p.to(leader)
	if err != nil {
		return Result{}, err
	}
	return s.Take(ctx, x)
}

func (p peers) Stored(_ context.Context, id string) (Stored, error) {
	s, err := p.to(id)
	if err != nil {
		return Stored{}, err
	}
	return s.Stored(), nil
}

// grow makes a replica a member, and waits until it has the log.
func (r *room) grow(id string) *Store {
	r.t.Helper()
	s := r.start(id)
	l := r.leader()
	r.must(l.Propose(r.t.Context(), l.config.ID, tell(l.config.ID, "10.77.0.2:8300")))
	r.must(l.Propose(r.t.Context(), "operator:ann", ReplicaInvite{TokenHash: bytes32(id), Name: id, Expires: time.Now().Add(time.Minute)}))
	r.must(l.Propose(r.t.Context(), "operator:ann", joinBy(id, id)))
	if err := l.Change(r.t.Context(), Add, id); err != nil {
		r.t.Fatal(err)
	}
	r.follows(s)
	return s
}

// follows waits until a replica has what the leader has.
func (r *room) follows(s *Store) {
	r.t.Helper()
	want := r.leader().View().Index()
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	if err := s.fsm.await(ctx, want, ctx.Done()); err != nil {
		r.t.Fatal(err)
	}
}

func (r *room) must(x Result, err error) Result {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
	return x
}

func wantErr(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, wanted %q in it", err, want)
	}
}

// From one replica to three, the lead handed over, and the first one gone: what
// was committed stays, and is the same everywhere.
func TestMembershipMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t)
		defer r.stop()
		stick := r.start("stick")
		for _, id := range []string{"n1", "n2", "n3"} {
			r.grow(id)
			if err := stick.Change(t.Context(), Promote, id); err != nil {
				t.Fatal(err)
			}
			if p, _ := stick.View().Replica(id); p.Proved == 0 {
				t.Errorf("%s is a voter without proof", id)
			}
		}
		// With its vote goes its proof; a new vote takes a new one.
		before, _ := stick.View().Replica("n3")
		if err := stick.Change(t.Context(), Demote, "n3"); err != nil {
			t.Fatal(err)
		}
		if p, _ := stick.View().Replica("n3"); p.Proved != 0 {
			t.Errorf("n3 has no vote, and its proof is entry %d", p.Proved)
		}
		if err := stick.Change(t.Context(), Promote, "n3"); err != nil {
			t.Fatal(err)
		}
		if p, _ := stick.View().Replica("n3"); p.Proved <= before.Proved {
			t.Errorf("n3 has a vote again, and its proof is entry %d after %d", p.Proved, before.Proved)
		}
		if m := stick.Membership(); m.Committed == 0 || m.Committed > stick.raft.AppliedIndex() {
			t.Errorf("its configuration is entry %d", m.Committed)
		}
		if got := stick.Membership().Voters(); !slices.Equal(got, []string{"n1", "n2", "n3", "stick"}) {
			t.Errorf("voters %v", got)
		}
		// A follower's proposal goes to the leader, and is in its own view then.
		n2 := r.stores["n2"]
		x := r.must(n2.Propose(t.Context(), "operator:ann", note("by n2")))
		if n2.View().Index() < x.Index || len(n2.View().Events(x.Events[0].Seq-1, "", 1)) != 1 {
			t.Error("what a follower was answered is not in its view")
		}
		if err := stick.Transfer(t.Context(), "n1"); err != nil {
			t.Fatal(err)
		}
		n1 := r.leader()
		if n1.config.ID != "n1" || stick.leading.is() {
			t.Fatalf("%s leads", n1.config.ID)
		}
		for _, change := range []ChangeKind{Demote, Remove} {
			if err := n1.Change(t.Context(), change, "stick"); err != nil {
				t.Fatal(err)
			}
		}
		r.must(n2.Propose(t.Context(), "operator:ann", note("without the stick")))
		for _, s := range []*Store{r.stores["n2"], r.stores["n3"]} {
			r.follows(s)
		}
		want, err := n1.Hash()
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range []string{"n2", "n3"} {
			if got, err := r.stores[id].Hash(); err != nil || got != want {
				t.Errorf("%s differs from n1: %v", id, err)
			}
		}
		if got := r.stores["n3"].Membership(); got.Has("stick") || got.Leader != "n1" {
			t.Errorf("n3 knows %v, leader %s", got, got.Leader)
		}
	})
}

// No vote is given before it is noted outside of the log.
func TestBeforeVote(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t)
		defer r.stop()
		stick := r.start("stick")
		r.grow("n1")
		full := errors.New("no space left on device")
		var noted []string
		stick.config.BeforeVote = func(id string) error {
			noted = append(noted, id)
			if len(noted) == 1 {
				return full
			}
			return nil
		}
		if err := stick.Change(t.Context(), Promote, "n1"); !errors.Is(err, full) || stick.Membership().Voter("n1") {
			t.Errorf("it could not be noted: %v; members %v", err, stick.Membership())
		}
		if err := stick.Change(t.Context(), Promote, "n1"); err != nil || !slices.Equal(noted, []string{"n1", "n1"}) {
			t.Errorf("%v; noted %v", err, noted)
		}
	})
}

// A new voter that is dead, or dies at that moment, is undone before its silence
// costs the leader its lead: the dangerous step is the one from one to two.
func TestDeadVoterIsUndone(t *testing.T) {
	for _, when := range []string{"before", "after"} {
		t.Run(when, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRoom(t)
				defer r.stop()
				stick := r.start("stick")
				r.grow("n1")
				if when == "before" {
					r.isolate("n1", true)
					wantErr(t, stick.Change(t.Context(), Promote, "n1"), "cannot be reached")
				} else {
					r.mute["n1"] = true
					r.connect()
					wantErr(t, stick.Change(t.Context(), Promote, "n1"), "is none again")
				}
				if stick.Membership().Voter("n1") || !stick.leading.is() {
					t.Errorf("members %v; leads %v", stick.Membership(), stick.leading.is())
				}
				r.must(stick.Propose(t.Context(), "x", note("goes on alone")))
				r.mute["n1"] = false
				r.isolate("n1", false)
				r.follows(r.stores["n1"])
				if err := stick.Change(t.Context(), Promote, "n1"); err != nil {
					t.Errorf("once it is back: %v", err)
				}
			})
		})
	}
}

// A follower waits through an election, and whoever loses the lead meanwhile
// answers nothing that is not so.
func TestProposalsThroughElections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t)
		defer r.stop()
		stick := r.start("stick")
		for _, id := range []string{"n1", "n2"} {
			r.grow(id)
			if err := stick.Change(t.Context(), Promote, id); err != nil {
				t.Fatal(err)
			}
		}
		answered := map[uint64]bool{}
		for n := range 20 {
			l := r.leader()
			r.isolate(l.config.ID, true)
			// The cut-off one commits nothing.
			one, cancel := context.WithTimeout(t.Context(), time.Second)
			if _, err := l.Propose(one, "x", note("lost")); err == nil {
				t.Error("a leader without a majority committed")
			}
			cancel()
			for id, s := range r.stores {
				if id == l.config.ID {
					continue
				}
				x, err := s.Propose(t.Context(), "x", note(fmt.Sprint(n)))
				if err != nil {
					for id, s := range r.stores {
						t.Logf("%s: %v, term %s, %v", id, s.raft.State(), s.raft.Stats()["term"], s.Membership())
					}
					t.Fatalf("round %d, %s: %v", n, id, err)
				}
				if answered[x.Events[0].Seq] {
					t.Errorf("event %d was answered twice", x.Events[0].Seq)
				}
				answered[x.Events[0].Seq] = true
			}
			r.isolate(l.config.ID, false)
			time.Sleep(5 * time.Second)
		}
		for id, s := range r.stores {
			r.follows(s)
			for seq := range answered {
				if got := s.View().Events(seq-1, "", 1); len(got) != 1 || got[0].Seq != seq {
					t.Errorf("%s lost event %d", id, seq)
				}
			}
		}
	})
}

// A replica that joins begins no cluster of its own, however long it waits.
func TestNewReplicaWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t)
		defer r.stop()
		r.start("stick")
		n1 := r.start("n1")
		time.Sleep(time.Hour)
		if n1.leading.is() || len(n1.Membership().Members) != 0 || n1.View().LastEvent() != 0 {
			t.Errorf("it has %v", n1.Membership())
		}
		wantErr(t, n1.Change(t.Context(), Add, "n1"), ErrNotLeading.Error())
	})
}

// One that was a member and has no log any more may have forgotten what it promised.
func TestLostLogNeverComesBack(t *testing.T) {
	_, err := Open(Config{ID: "n1", Dir: t.TempDir(), Joins: true, Transport: loopback("n1"), Peers: peers{}})
	if err == nil || !strings.Contains(err.Error(), "never comes back under its ID") {
		t.Errorf("it was opened: %v", err)
	}
}

func loopback(id string) raft.Transport {
	_, transport := raft.NewInmemTransport(raft.ServerAddress(id))
	return transport
}

// Who proposes while the replica is closed is told so at once, and not when its
// time is over.
func TestProposalAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t)
		r.start("stick")
		n1 := r.start("n1")
		answered := make(chan time.Duration, 1)
		go func() {
			begun := time.Now()
			_, err := n1.Propose(t.Context(), "x", note("nobody leads"))
			wantErr(t, err, raft.ErrRaftShutdown.Error())
			answered <- time.Since(begun)
		}()
		time.Sleep(time.Second)
		r.stop()
		if took := <-answered; took > 2*time.Second {
			t.Errorf("answered after %v", took)
		}
	})
}

func TestAllowed(t *testing.T) {
	m := func(list ...string) Membership {
		var m Membership
		for _, id := range list {
			voter := !strings.HasPrefix(id, "-")
			m.Members = append(m.Members, Member{strings.TrimPrefix(id, "-"), voter})
		}
		return m
	}
	for _, c := range []struct {
		m      Membership
		change ChangeKind
		id     string
		gone   string // cannot be reached
		want   string // "" : allowed
	}{
		{m("s"), Add, "a", "", ""},
		{m("s"), Add, "a", "a", ""}, // it counts in no majority
		{m("s"), Add, "s", "", "a member already"},
		{m("s"), Promote, "a", "", "it is no member; members are s"},
		{m("s", "-a"), Promote, "a", "", ""},
		{m("s", "-a"), Promote, "a", "a", "cannot be reached"},
		{m("s", "a"), Promote, "a", "", "a voter already"},
		{m("s", "a", "-b"), Promote, "b", "a", ""}, // two of three
		{m("s", "a", "b", "-c"), Promote, "c", "a b", "of the 4 voters that there would be, a, b cannot be reached"},
		{m("s", "a"), Demote, "s", "", "it leads"},
		{m("s", "a"), Remove, "s", "", "it leads"},
		{m("s", "-a"), Demote, "a", "", "it is no voter"},
		{m("s", "a"), Demote, "a", "a", ""}, // the way out of two with one dead
		{m("s", "a", "b"), Remove, "b", "a b", "of the 2 voters that there would be, a cannot be reached"},
		{m("s", "a", "b"), Remove, "a", "a", ""},
		{m("s", "a", "b", "c", "d"), Remove, "d", "a b", "of the 4 voters that there would be, a, b cannot be reached"}, // two of four are none
		{m("s", "-a"), Remove, "a", "a", ""},
		{m("s"), Remove, "x", "", "no member"},
	} {
		err := c.m.Allowed(c.change, c.id, "s", func(id string) bool { return !slices.Contains(strings.Fields(c.gone), id) })
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s %s of %s without %q: %v, wanted %q", c.change, c.id, c.m, c.gone, err, c.want)
		}
		if refusal := (*Refusal)(nil); err != nil && !errors.As(err, &refusal) {
			t.Errorf("%v is no refusal", err)
		}
	}
}

// Replicas that batch differently have the same hash at the same entry.
func TestStateCheck(t *testing.T) {
	a, b := newWorld(t), newWorldOf(t, maxEvents)
	b.log, b.fsm = nil, a.fsm
	story(a)
	var err error
	if b.fsm, err = newFSM(maxEvents, func(err error) { t.Error(err) }, a.fsm.log); err != nil {
		t.Fatal(err)
	}
	a.must(StateCheck{})
	a.must(note("after it"))
	b.fsm.ApplyBatch(a.log) // all at once
	one, two := a.fsm.checked.Load(), b.fsm.checked.Load()
	if one == nil || two == nil || one.index != two.index || one.index != uint64(len(a.log)) {
		t.Fatalf("checked %v and %v of %d entries", one, two, len(a.log))
	}
	x, err := hash(one.txn)
	if err != nil {
		t.Fatal(err)
	}
	if y, err := hash(two.txn); err != nil || x != y {
		t.Errorf("they differ: %v", err)
	}
	if x == a.hash() {
		t.Error("it is the hash of what came after")
	}
}
