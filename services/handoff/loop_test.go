package handoff

import (
	"context"
	"crypto/sha256"
	"flag"
	"fmt"
	"log/slog"
	"maps"
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

var faulty = flag.Uint64("raft-seeds", 4, "how many handoffs of real Raft with faults are run")

// room is replicas of real Raft in virtual time, each with its own handoff loop,
// over a network whose connections can be cut one way and lose messages. They can be
// killed, and are started again on their disks. It stands in a synctest bubble.
type room struct {
	t       *testing.T
	mu      sync.Mutex
	rng     *rand.Rand
	all     map[string]*replica // their newest processes
	cut     map[[2]string]bool  // from, to
	weather weather
	joins   map[machine.ID]string // the replica that a node started
	made    int
	wipes   int                                      // so many lose their folder right after they joined
	lacks   func(id string) (blobs int, bytes int64) // nil: nobody lacks any

	acked  map[uint64]string // events that were acknowledged, by number
	traced []string
}

// replica is one process of a replica.
type replica struct {
	id      string
	machine machine.ID
	store   *state.Store
	net     *link
	disk    *mount
	cancel  context.CancelFunc
	done    chan struct{}
	dead    bool
}

func (r *room) say(format string, a ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.traced = append(r.traced, time.Now().Format(time.TimeOnly)+" "+fmt.Sprintf(format, a...))
}

// run starts a replica's process on its disk.
func (r *room) run(id string, m machine.ID, d *disk) *replica {
	joins := id != "stick"
	x := &replica{id: id, machine: m, net: newLink(r, id), disk: &mount{disk: d, killed: make(chan struct{})}}
	var err error
	x.store, err = state.Open(state.Config{ID: id, InMemory: true, Kept: x.disk.kept(), Transport: x.net, Peers: peers{r, id}, Joins: joins, Fresh: joins})
	if err != nil {
		panic(err) // also where the test's own goroutine waits for this one
	}
	r.mu.Lock()
	r.all[id] = x
	x.loop(r)
	r.mu.Unlock()
	r.wire()
	return x
}

// loop runs a replica's handoff loop.
func (x *replica) loop(r *room) {
	var ctx context.Context
	ctx, x.cancel = context.WithCancel(context.Background())
	done := make(chan struct{})
	x.done = done
	loop := &Loop{Store: x.store, Hands: hands{r, x.id}, Self: x.id, Now: time.Now, Logger: slog.New(slog.DiscardHandler)}
	go func() {
		defer close(done)
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
				from.net.Connect(raft.ServerAddress(b), to.net.InmemTransport)
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
	for _, x := range r.replicas() {
		r.kill(x)
	}
	time.Sleep(time.Minute) // of virtual time, as all sleeps here: Raft's last goroutines wait for their timers
}

type peers struct {
	r    *room
	from string
}

func (p peers) Propose(ctx context.Context, leader string, x state.Proposal) (state.Result, error) {
	to, err := p.r.ask(ctx, p.from, leader)
	if err == nil && to.dead {
		err = state.ErrNotLeading
	}
	if err != nil {
		return state.Result{}, fmt.Errorf("%w: %w", state.ErrNotLeading, err)
	}
	result, err := to.store.Take(ctx, x)
	if err == nil {
		err = p.r.pass(ctx) // what was done is not known
	}
	return result, err
}

func (p peers) Stored(ctx context.Context, id string) (state.Stored, error) {
	to, err := p.r.ask(ctx, p.from, id)
	if err != nil {
		return state.Stored{}, err
	}
	return to.store.Stored(), p.r.pass(ctx)
}

type hands struct {
	r    *room
	self string
}

func (h hands) Look(ctx context.Context, id string) (Report, error) {
	x := h.r.newest(h.self)
	if id != h.self {
		var err error
		if x, err = h.r.ask(ctx, h.self, id); err != nil {
			return Report{}, err
		}
	}
	index, hash, err := x.store.Checked()
	report := Report{Stored: x.store.Stored(), Checked: index, Hash: hash, Counted: true, Sync: time.Millisecond, Clock: time.Now(), Sealed: x.disk.isSealed(), Backup: x.store.View().Keyring().Mark()}
	h.r.mu.Lock()
	lacks := h.r.lacks
	h.r.mu.Unlock()
	if lacks != nil {
		report.Missing, report.MissingBytes = lacks(id)
	}
	return report, err
}

func (h hands) Node(machine.ID) Node { return Node{Ready: true} }

// Deploy has a node start one replica, whoever asks, and how often.
func (h hands) Deploy(ctx context.Context, t machine.HandoffTarget) error {
	leader := h.r.newest(h.self).store
	h.r.mu.Lock()
	h.r.made++
	token, id := sha256.Sum256(fmt.Append(nil, h.r.made)), h.r.joins[t.Machine]
	if old, joined := leader.View().Replica(id); id == "" || joined && !old.InService() {
		id = fmt.Sprintf("r-%d", h.r.made)
		h.r.joins[t.Machine] = id
	}
	started := h.r.all[id] != nil
	h.r.mu.Unlock()
	if !started {
		h.r.run(id, t.Machine, newDisk())
	}
	if _, err := leader.Propose(ctx, by, state.ReplicaInvite{TokenHash: token[:], Name: t.Name, Machine: t.Machine, Expires: time.Now().Add(time.Minute)}); err != nil {
		return err
	}
	key := sha256.Sum256([]byte("key " + id))
	_, err := leader.Propose(ctx, by, state.ReplicaJoin{TokenHash: token[:], ID: id, Endpoint: "10.77.0.9:8300", Key: key[:], Release: "v1", Level: 1})
	h.r.mu.Lock()
	wiped := err == nil && h.r.wipes > 0
	if wiped {
		h.r.wipes--
	}
	h.r.mu.Unlock()
	if wiped {
		h.r.kill(h.r.newest(id))
	}
	return err
}

func (h hands) Rekey(ctx context.Context, p machine.Handoff) error {
	leader := h.r.newest(h.self).store
	k, key := leader.View().Keyring(), "key-"+p.ID
	if k.Current == key {
		return nil
	}
	if k.Next != key { // it may have come to be while nobody knew
		if _, err := leader.Propose(ctx, by, state.KeyNext{Key: key, For: p.ID}); err != nil {
			return err
		}
	}
	_, err := leader.Propose(ctx, by, state.KeyTurn{Key: key})
	return err
}

func (h hands) Seal(ctx context.Context, id string, _ machine.Handoff) error {
	x, err := h.r.ask(ctx, h.self, id)
	if err == nil && x.store.Membership().Voter(id) {
		err = fmt.Errorf("replica %s has a vote still", id)
	}
	if err != nil {
		return err
	}
	x.disk.seal()
	return h.r.pass(ctx)
}

func (h hands) Backup(context.Context) (uint64, error) {
	return h.r.newest(h.self).store.View().Index(), nil
}

func (h hands) Try(context.Context) []Check {
	var list []Check
	for _, name := range Trials {
		list = append(list, Check{Name: name, OK: true, At: time.Now()})
	}
	return list
}

// begin makes a cluster on the stick with nodes that a handoff can move to, or that
// join it where it leaves not.
func begin(t *testing.T, seed uint64, nodes int, leaves bool, before ...func(*room)) *room {
	r := &room{
		t: t, rng: rand.New(rand.NewPCG(seed, 11)), all: map[string]*replica{}, cut: map[[2]string]bool{}, joins: map[machine.ID]string{},
		acked: map[uint64]string{},
	}
	for _, f := range before {
		f(r)
	}
	stick := r.run("stick", "", newDisk())
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
	h := machine.Handoff{ID: "h-1", By: "operator:ann"}
	if leaves {
		h.From = "stick"
	}
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
		able := r.replicas()
		if len(able) == 0 { // the power is gone
			time.Sleep(200 * time.Millisecond)
			continue
		}
		x := able[n%len(able)]
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

// replicas are those that run, by ID.
func (r *room) replicas() []*replica {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []*replica
	for _, id := range slices.Sorted(maps.Keys(r.all)) {
		if x := r.all[id]; !x.dead {
			list = append(list, x)
		}
	}
	return list
}

// newest is a replica's newest process.
func (r *room) newest(id string) *replica {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.all[id]
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
	sealed := r.newest("stick").disk.isSealed()
	switch {
	case h.From == "" && h.Step == machine.HandoffDone:
		if len(m.Voters()) != 1+len(h.Targets) || !m.Voter("stick") {
			r.t.Errorf("done with members %v", m)
		}
	case h.From == "" && h.Step == machine.HandoffAborted:
		if len(m.Voters()) != len(m.Members) || !m.Voter("stick") || len(m.Voters())%2 == 0 {
			r.t.Errorf("given up with members %v", m)
		}
	case h.Step == machine.HandoffDone:
		if m.Has("stick") || len(m.Voters()) != len(h.Targets) || !sealed {
			r.t.Errorf("done with members %v, the stick sealed: %v", m, sealed)
		}
	case h.Step == machine.HandoffAborted:
		if len(m.Members) != 1 || !m.Voter("stick") {
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

// comesTo waits until the plan is at a step.
func (r *room) comesTo(step machine.HandoffStep) {
	for r.plan().Step != step {
		time.Sleep(time.Second)
	}
}

// ends has a replica's loop end; its store goes on.
func (x *replica) ends() {
	x.cancel()
	<-x.done
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
				r := begin(t, 1, nodes, true)
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
		r := begin(t, 1, 1, true)
		defer r.stop()
		stick := r.newest("stick")
		r.comesTo(machine.HandoffCatchingUp)
		stick.ends()
		stick.loop(r)
		if h := r.await(20 * time.Minute); h.Step != machine.HandoffDone {
			t.Errorf("it ended in %s: %s", h.Step, h.Reason)
		}
	})
}

// Images that take an hour to be copied keep a plan; once nothing more comes it is
// given up.
func TestCopyingTakesLong(t *testing.T) {
	for end, takes := range map[machine.HandoffStep]time.Duration{machine.HandoffDone: time.Hour, machine.HandoffAborted: 30 * time.Minute} {
		t.Run(string(end), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begun := time.Now()
				r := begin(t, 1, 1, true, func(r *room) {
					r.lacks = func(id string) (int, int64) {
						left := time.Hour - min(time.Since(begun), takes)
						if id == "stick" || left == 0 {
							return 0, 0
						}
						return 1, int64(left)
					}
				})
				defer r.stop()
				h := r.await(2 * time.Hour)
				if took := time.Since(begun); h.Step != end || took < takes {
					t.Errorf("after %v it ended in %s: %s", took, h.Step, h.Reason)
				}
			})
		})
	}
}

// A replica that lost its folder once it had joined leaves, and its node is invited
// anew; where that one is away, too, the plan is given up.
func TestFolderIsLost(t *testing.T) {
	for wipes, end := range map[int]machine.HandoffStep{1: machine.HandoffDone, 2: machine.HandoffAborted} {
		t.Run(string(end), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := begin(t, 1, 1, true, func(r *room) { r.wipes = wipes })
				defer r.stop()
				begun := time.Now()
				h := r.await(time.Hour)
				if took := time.Since(begun); h.Step != end || took < AwayFor {
					t.Errorf("after %v it ended in %s: %s", took, h.Step, h.Reason)
				}
				if left := r.newest("stick").store.View().LeftReplicas(h.Targets[0].Machine); len(left) != wipes {
					t.Errorf("%v left", left)
				}
			})
		})
	}
}

// Handoffs with cuts in the network, messages that are late or lost, kills and
// disks that hang, at any moment: each ends done or clean, and nothing that was
// acknowledged is lost or doubled. In every other one nobody leaves, and half of them
// are given up by an operator.
func TestHandoffWithFaults(t *testing.T) {
	ends := map[string]int{}
	for seed := range *faulty {
		synctest.Test(t, func(t *testing.T) {
			r := begin(t, *from-1+seed, 3-int(seed%2), seed%2 == 0)
			defer r.stop()
			ctx, cancel := context.WithCancel(t.Context())
			var work sync.WaitGroup
			work.Go(func() { r.work(ctx) })
			gives := -1
			if seed%4 >= 2 {
				gives = r.roll(15)
			}
			for n := 0; n < 30 && !r.plan().Step.Over(); n++ {
				time.Sleep(r.seconds(10))
				if n >= gives && gives >= 0 {
					r.giveUp(ctx)
				}
				r.fault()
			}
			h := r.await(time.Hour)
			cancel()
			work.Wait()
			time.Sleep(10 * time.Second)
			r.check(h)
			ends[fmt.Sprintf("%s, from %q", h.Step, h.From)]++
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

// giveUp is an operator who gives the plan up, if that can be.
func (r *room) giveUp(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	h := r.plan()
	_, err := r.replicas()[0].store.Propose(ctx, "operator:ann", state.HandoffMove{ID: h.ID, From: h.Step, To: machine.HandoffAborting, Reason: "an operator wants it so"})
	r.say("given up at %s: %v", h.Step, err)
}

// A leader dies after another one got its vote, and before that was proved; that one
// is elected. The plan goes on with it; one that is given up is over in the end.
func TestUnprovedLeads(t *testing.T) {
	for _, step := range []machine.HandoffStep{machine.HandoffDone, machine.HandoffAborted} {
		t.Run(string(step), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := begin(t, 1, 1, false)
				defer r.stop()
				stick := r.newest("stick")
				r.comesTo(machine.HandoffCatchingUp)
				stick.ends()
				h := r.plan()
				node := r.joins[h.Targets[0].Machine]
				must := func(err error) {
					t.Helper()
					if err != nil {
						t.Fatal(err)
					}
				}
				must(stick.store.Change(t.Context(), state.Promote, node))
				_, err := stick.store.Propose(t.Context(), "test", state.ReplicaProve{ID: node, Undone: true})
				must(err)
				if step == machine.HandoffAborted {
					_, err := stick.store.Propose(t.Context(), "test", state.HandoffMove{ID: h.ID, From: h.Step, To: machine.HandoffAborting, Reason: "so"})
					must(err)
				}
				must(stick.store.Transfer(t.Context(), node))
				stick.loop(r)
				if h := r.await(10 * time.Minute); h.Step != step {
					t.Errorf("it ended in %s: %s", h.Step, h.Reason)
				}
				members := "r-1, stick"
				if step == machine.HandoffAborted {
					members = "stick"
				}
				m := stick.store.Membership()
				m.Name = nil // by their IDs
				if m.String() != members {
					t.Errorf("the members are %s", m)
				}
			})
		})
	}
}

// A new leader's disk hangs before its first entry: nobody else is elected, since it
// goes on heartbeating, and its epoch is not committed. It must end all the same.
func TestDiskHangsBeforeTheEpoch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := begin(t, 1, 2, false)
		defer r.stop()
		r.await(20 * time.Minute)
		stick, x := r.newest("stick"), r.newest("r-1")
		for x.store.Stored().Last < stick.store.Stored().Last { // the lead goes only to who has everything
			time.Sleep(100 * time.Millisecond)
		}
		x.disk.hang(true)
		if err := stick.store.Transfer(t.Context(), x.id); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Second)
		for _, one := range r.replicas() {
			if m := one.store.Membership(); m.Leads || m.Leader != x.id {
				t.Errorf("%s knows that %q leads, and leads itself: %v", one.id, m.Leader, m.Leads)
			}
		}
		if !r.watch(x) {
			t.Error("it is not found")
		}
		x.disk.thaw()
		time.Sleep(5 * time.Second)
		leader := stick.store.Membership().Leader
		if leader == "" || leader == x.id {
			t.Errorf("%q leads", leader)
		}
		r.again(x)
		if _, err := r.newest(x.id).store.Propose(t.Context(), "test", state.Note{What: "note", Severity: machine.Info, Text: "it follows"}); err != nil {
			t.Error(err)
		}
	})
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
