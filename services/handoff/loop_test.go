package handoff

import (
	"context"
	"crypto/sha256"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/statetest"
)

var faulty = flag.Uint64("raft-seeds", 1, "how many handoffs of real Raft with faults are run")

// room is replicas of real Raft in virtual time, over a network whose
// connections can be cut one way, each with its own handoff loop. It stands in
// a synctest bubble.
type room struct {
	t    *testing.T
	rng  *rand.Rand
	mu   sync.Mutex
	all  map[string]*replica
	cut  map[[2]string]bool // from, to
	made int
	over bool

	acked  map[uint64]string // events that were acknowledged, by number
	traced []string
}

type replica struct {
	id      string
	machine machine.ID
	store   *state.Store
	net     *raft.InmemTransport
	cancel  context.CancelFunc
	done    chan struct{}
	sealed  bool
	dead    bool
}

func (r *room) say(format string, a ...any) {
	r.traced = append(r.traced, time.Now().Format(time.TimeOnly)+" "+fmt.Sprintf(format, a...))
}

func (r *room) start(id string, m machine.ID) *replica {
	_, net := raft.NewInmemTransport(raft.ServerAddress(id))
	store, err := state.Open(state.Config{ID: id, InMemory: true, Transport: net, Peers: peers{r, id}, Joins: len(r.all) > 0, Fresh: len(r.all) > 0})
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	x := &replica{id: id, machine: m, store: store, net: net, cancel: cancel, done: make(chan struct{})}
	r.mu.Lock()
	r.all[id] = x
	r.mu.Unlock()
	r.wire()
	x.run(r, ctx)
	return x
}

// run runs a replica's loop.
func (x *replica) run(r *room, ctx context.Context) {
	loop := &Loop{Store: x.store, Hands: hands{r, x.id}, Self: x.id, Now: time.Now, Logger: slog.New(slog.DiscardHandler)}
	go func() {
		defer close(x.done)
		if err := loop.Run(ctx); err != nil {
			r.t.Error(err)
		}
	}()
}

// wire makes Raft's connections what cut says.
func (r *room) wire() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for a, from := range r.all {
		for b, to := range r.all {
			if a == b {
				continue
			}
			if r.cut[[2]string{a, b}] || from.dead || to.dead {
				from.net.Disconnect(raft.ServerAddress(b))
			} else {
				from.net.Connect(raft.ServerAddress(b), to.net)
			}
		}
	}
}

// isolate cuts a replica off from all others, in one direction or both.
func (r *room) isolate(id string, in, out bool) {
	r.mu.Lock()
	for other := range r.all {
		if other != id {
			r.cut[[2]string{id, other}], r.cut[[2]string{other, id}] = out, in
		}
	}
	r.mu.Unlock()
	r.wire()
}

func (r *room) stop() {
	r.mu.Lock()
	r.over = true
	r.mu.Unlock()
	for _, x := range r.all {
		x.cancel()
		<-x.done
		if err := x.store.Close(); err != nil {
			r.t.Error(err)
		}
	}
	time.Sleep(time.Minute) // of virtual time, as all sleeps here: Raft's last goroutines wait for their timers
}

// ask is a question from one replica to another; the answer has to come back.
func (r *room) ask(from, to string) (*replica, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	x := r.all[to]
	if x == nil || x.dead || r.cut[[2]string{from, to}] || r.cut[[2]string{to, from}] {
		return nil, fmt.Errorf("replica %s: %w", to, state.ErrNotLeading)
	}
	return x, nil
}

type peers struct {
	r    *room
	from string
}

func (p peers) Propose(ctx context.Context, leader string, x state.Proposal) (state.Result, error) {
	to, err := p.r.ask(p.from, leader)
	if err != nil {
		return state.Result{}, err
	}
	return to.store.Take(ctx, x)
}

func (p peers) Stored(_ context.Context, id string) (state.Stored, error) {
	to, err := p.r.ask(p.from, id)
	if err != nil {
		return state.Stored{}, err
	}
	return to.store.Stored(), nil
}

type hands struct {
	r    *room
	self string
}

func (h hands) Look(_ context.Context, id string) (Report, error) {
	x := h.r.all[h.self]
	if id != h.self {
		var err error
		if x, err = h.r.ask(h.self, id); err != nil {
			return Report{}, err
		}
	}
	index, hash, err := x.store.Checked()
	return Report{Stored: x.store.Stored(), Checked: index, Hash: hash, Counted: true, Sync: time.Millisecond, Clock: time.Now(), Sealed: x.sealed}, err
}

func (h hands) Node(machine.ID) Node { return Node{Ready: true} }

func (h hands) Deploy(ctx context.Context, t machine.HandoffTarget) error {
	h.r.mu.Lock()
	h.r.made++
	id := fmt.Sprintf("r-%d", h.r.made)
	h.r.mu.Unlock()
	token := sha256.Sum256([]byte(id))
	leader := h.r.all[h.self].store
	if _, err := leader.Propose(ctx, by, state.ReplicaInvite{TokenHash: token[:], Name: t.Name, Machine: t.Machine, Expires: time.Now().Add(time.Minute)}); err != nil {
		return err
	}
	h.r.start(id, t.Machine)
	key := sha256.Sum256([]byte("key " + id))
	_, err := leader.Propose(ctx, by, state.ReplicaJoin{TokenHash: token[:], ID: id, Endpoint: "10.77.0.9:8300", Key: key[:], Release: "v1", Level: 1})
	return err
}

func (h hands) Rekey(ctx context.Context, p machine.Handoff) error {
	leader, err := h.r.ask(h.self, h.self)
	if err != nil {
		return err
	}
	for _, c := range []state.Command{state.KeyNext{Key: "key-" + p.ID, For: p.ID}, state.KeyTurn{Key: "key-" + p.ID}} {
		if _, err := leader.store.Propose(ctx, by, c); err != nil {
			return err
		}
	}
	return nil
}

func (h hands) Seal(_ context.Context, id string, _ machine.Handoff) error {
	x, err := h.r.ask(h.self, id)
	if err != nil {
		return err
	}
	x.sealed = true
	return nil
}

func (h hands) Backup(context.Context) (uint64, error) {
	return h.r.all[h.self].store.View().Index(), nil
}

func (h hands) Try(context.Context) []Check {
	var list []Check
	for _, name := range Trials {
		list = append(list, Check{Name: name, OK: true, At: time.Now()})
	}
	return list
}

// begin makes a cluster on the stick with nodes that a handoff can move to.
func begin(t *testing.T, seed uint64, nodes int) *room {
	r := &room{t: t, rng: rand.New(rand.NewPCG(seed, 11)), all: map[string]*replica{}, cut: map[[2]string]bool{}, acked: map[uint64]string{}}
	stick := r.start("stick", "")
	must := func(c state.Command) {
		t.Helper()
		if _, err := stick.store.Propose(t.Context(), "test", c); err != nil {
			t.Fatal(err)
		}
	}
	must(state.ClusterCreate{ID: "c-1", Generation: 1})
	must(state.DiscoveryWindow{Until: time.Now().Add(time.Hour)})
	key := sha256.Sum256([]byte("stick"))
	must(state.ReplicaTell{ID: "stick", Name: "appliance", Endpoint: "10.77.0.2:8300", Key: key[:], Release: "v1", Level: 1})
	h := machine.Handoff{ID: "h-1", From: "stick", By: "operator:ann"}
	for n := 1; n <= nodes; n++ {
		id := statetest.ID(n)
		must(state.SessionOpen{NewID: id, Session: machine.Session{ID: fmt.Sprintf("s-%d", n), SignKey: bytes32(fmt.Sprint("sign", n)), SealKey: bytes32(fmt.Sprint("seal", n))}, Inventory: statetest.Inventory(n)})
		must(state.MachineApprove{Machine: id, Session: fmt.Sprintf("s-%d", n), Intent: fmt.Sprintf("i-%d", n), Name: fmt.Sprintf("node-%d", n),
			Profile: machine.Profile{Name: "worker", Role: machine.RoleWorker}, Address: netip.MustParseAddr(fmt.Sprintf("10.77.0.%d", 10+n)),
			Image: "sha256:" + strings.Repeat("0", 64), NodeKey: bytes32(fmt.Sprint("node", n))})
		h.Targets = append(h.Targets, machine.HandoffTarget{Machine: id})
	}
	must(state.HandoffStart{Handoff: h})
	return r
}

func bytes32(s string) []byte {
	b := sha256.Sum256([]byte(s))
	return b[:]
}

// work proposes events by whichever replica, all the time, and remembers what
// was acknowledged.
func (r *room) work(ctx context.Context) {
	for n := 0; ctx.Err() == nil; n++ {
		r.mu.Lock()
		var able []string
		for id, x := range r.all {
			if !x.dead {
				able = append(able, id)
			}
		}
		slices.Sort(able)
		x := r.all[able[n%len(able)]]
		r.mu.Unlock()
		text := fmt.Sprintf("%d by %s", n, x.id)
		one, cancel := context.WithTimeout(ctx, 5*time.Second)
		a, err := x.store.Propose(one, "test", state.Note{What: "note", Severity: machine.Info, Text: text})
		cancel()
		if err == nil {
			r.mu.Lock()
			if old, twice := r.acked[a.Events[0].Seq]; twice {
				r.t.Errorf("event %d was acknowledged as %q and as %q", a.Events[0].Seq, old, text)
			}
			r.acked[a.Events[0].Seq] = text
			r.mu.Unlock()
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// plan is the newest plan that any replica knows.
func (r *room) plan() machine.Handoff {
	var newest machine.Handoff
	for _, x := range r.replicas() {
		if h, ok := x.store.View().Handoff(); ok && h.Moved.After(newest.Moved) {
			newest = h
		}
	}
	return newest
}

func (r *room) replicas() []*replica {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []*replica
	for _, x := range r.all {
		list = append(list, x)
	}
	return list
}

// fault cuts one off, one way or both, for some seconds, or none.
func (r *room) fault() {
	list := r.replicas()
	slices.SortFunc(list, func(a, b *replica) int { return strings.Compare(a.id, b.id) })
	x := list[r.rng.IntN(len(list))]
	in, out := r.rng.IntN(2) == 0, r.rng.IntN(2) == 0
	r.say("%s is cut: in %v, out %v", x.id, in, out)
	r.isolate(x.id, in, out)
	time.Sleep(time.Duration(r.rng.IntN(8000)) * time.Millisecond)
	r.isolate(x.id, false, false)
}

// check compares what is there with what was acknowledged.
func (r *room) check(h machine.Handoff) {
	var holds []*replica
	for _, x := range r.replicas() {
		if leads, _ := x.store.Leading(); leads {
			holds = append(holds, x)
		}
	}
	if len(holds) != 1 {
		r.t.Fatalf("%d replicas lead", len(holds))
	}
	leader := holds[0]
	m := leader.store.Membership()
	switch h.Step {
	case machine.HandoffDone:
		if m.Has("stick") || len(m.Voters()) != len(h.Targets) || !r.all["stick"].sealed {
			r.t.Errorf("done with members %v, the stick sealed: %v", m, r.all["stick"].sealed)
		}
	case machine.HandoffAborted:
		if m.String() != "stick" {
			r.t.Errorf("given up with members %v", m)
		}
	default:
		r.t.Errorf("it ended in %s", h.Step)
	}
	events := map[uint64]string{}
	for _, e := range leader.store.View().Events(0, "", 0) {
		events[e.Seq] = e.Text
	}
	for seq, text := range r.acked {
		if events[seq] != text {
			r.t.Errorf("event %d was acknowledged as %q, and is %q", seq, text, events[seq])
		}
	}
	for seq := uint64(1); seq <= leader.store.View().LastEvent(); seq++ {
		if events[seq] == "" {
			r.t.Errorf("event %d is missing", seq)
		}
	}
	if len(r.acked) == 0 {
		r.t.Error("nothing was acknowledged")
	}
}

// await waits until the plan is over, and says how long that took.
func (r *room) await(limit time.Duration) machine.Handoff {
	r.t.Helper()
	begun := time.Now()
	for time.Since(begun) < limit {
		if h := r.plan(); h.Step.Over() {
			return h
		}
		time.Sleep(time.Second)
	}
	for _, x := range r.replicas() {
		leads, _ := x.store.Leading()
		r.say("%s: leads %v, %v, knows %v", x.id, leads, x.store.Stored(), x.store.Membership())
	}
	r.t.Fatalf("after %v it is at %s\n%s", limit, r.plan().Step, strings.Join(r.traced, "\n"))
	return machine.Handoff{}
}

// A handoff of real Raft to one, two, three and five nodes, while others work.
func TestHandoff(t *testing.T) {
	for _, nodes := range []int{1, 2, 3, 5} {
		t.Run(fmt.Sprint(nodes), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := begin(t, 1, nodes)
				defer r.stop()
				ctx, cancel := context.WithCancel(t.Context())
				var work sync.WaitGroup
				work.Go(func() { r.work(ctx) })
				begun := time.Now()
				h := r.await(20 * time.Minute)
				if h.Step != machine.HandoffDone {
					t.Errorf("it ended in %s: %s", h.Step, h.Reason)
				}
				t.Logf("done after %v, with %d events acknowledged", time.Since(begun).Round(time.Second), len(r.acked))
				cancel()
				work.Wait()
				r.check(h)
			})
		})
	}
}

// A loop that begins while its replica leads, and a plan is under way, goes on
// with it.
func TestHandoffGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := begin(t, 1, 1)
		defer r.stop()
		stick := r.all["stick"]
		for r.plan().Step != machine.HandoffCatchingUp {
			time.Sleep(time.Second)
		}
		stick.cancel()
		<-stick.done
		ctx, cancel := context.WithCancel(context.Background())
		stick.cancel, stick.done = cancel, make(chan struct{})
		stick.run(r, ctx)
		if h := r.await(20 * time.Minute); h.Step != machine.HandoffDone {
			t.Errorf("it ended in %s: %s", h.Step, h.Reason)
		}
	})
}

// Handoffs with cuts in the network, at any moment, one way or both: each ends
// done or clean, and nothing that was acknowledged is lost or doubled.
func TestHandoffWithFaults(t *testing.T) {
	ends := map[machine.HandoffStep]int{}
	for seed := range *faulty {
		synctest.Test(t, func(t *testing.T) {
			r := begin(t, seed, 3)
			defer r.stop()
			ctx, cancel := context.WithCancel(t.Context())
			var work sync.WaitGroup
			work.Go(func() { r.work(ctx) })
			for n := 0; n < 30 && !r.plan().Step.Over(); n++ {
				time.Sleep(time.Duration(r.rng.IntN(10_000)) * time.Millisecond)
				r.fault()
			}
			h := r.await(time.Hour)
			cancel()
			work.Wait()
			time.Sleep(10 * time.Second)
			r.check(h)
			ends[h.Step]++
			if t.Failed() {
				t.Logf("seed %d ended in %s (%s)\n%s", seed, h.Step, h.Reason, strings.Join(r.traced, "\n"))
			}
		})
		if t.Failed() {
			return
		}
	}
	t.Logf("%d handoffs: %v", *faulty, ends)
}

// That a proof was committed is not enough: the voter must have it, and know that it
// is one.
func TestTook(t *testing.T) {
	for name, c := range map[string]struct {
		proved uint64
		has    state.Stored
		took   bool
	}{
		"it has it":         {7, state.Stored{Last: 7, Voter: true}, true},
		"and more":          {7, state.Stored{Last: 9, Voter: true}, true},
		"it is behind":      {7, state.Stored{Last: 6, Voter: true}, false},
		"it has no vote":    {7, state.Stored{Last: 9}, false},
		"it proved nothing": {0, state.Stored{Last: 9, Voter: true}, false},
	} {
		if got := Took(machine.Replica{Proved: c.proved}, c.has); got != c.took {
			t.Errorf("%s: %v", name, got)
		}
	}
}
