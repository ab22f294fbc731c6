package state

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/rackseed/rackseed/services/machine"
)

// within bounds every wait of a test; it only ends one that went wrong.
func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func open(t testing.TB, c Config) *Store {
	t.Helper()
	s, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.WaitLeader(within(t)); err != nil {
		t.Fatal(errors.Join(err, s.Close()))
	}
	return s
}

func closeStore(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func note(text string) Note { return Note{What: "note", Severity: machine.Info, Text: text} }

func TestStoreInMemory(t *testing.T) {
	s := open(t, Config{ID: "r-1", InMemory: true})
	defer closeStore(t, s)
	ctx := within(t)
	r, err := s.Propose(ctx, "dhcp", MachineSee{ID: "m-1", MAC: mac(1), Via: "dhcp.discover", Text: "hello"})
	if err != nil {
		t.Fatal(err)
	}
	if r.Epoch != 1 || r.Index == 0 || r.Machine == nil || r.Machine.ID != "m-1" || len(r.Events) != 1 || r.Events[0].Seq != 2 {
		t.Errorf("result %+v", r)
	}
	if m, ok := s.View().MachineByMAC(mac(1)); !ok || m.ID != "m-1" {
		t.Error("what was answered is not in the view")
	}
	_, err = s.Propose(ctx, "dhcp", MachineSee{ID: "m-2"})
	var refusal *Refusal
	if !errors.As(err, &refusal) {
		t.Errorf("a refusal: %v", err)
	}
	_, err = s.Propose(ctx, "x", moonLanding{})
	if err == nil || !strings.Contains(err.Error(), "moon.land/1 is not known") {
		t.Errorf("an unknown kind was proposed: %v", err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := s.Propose(cancelled, "x", note("late")); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled proposal: %v", err)
	}
}

type moonLanding struct{}

func (moonLanding) Kind() string { return "moon.land/1" }

func TestManyCallers(t *testing.T) {
	s := open(t, Config{ID: "r-1", InMemory: true})
	defer closeStore(t, s)
	ctx := within(t)
	var callers sync.WaitGroup
	seqs := make(chan uint64, 400)
	for n := range 20 {
		callers.Go(func() {
			for k := range 20 {
				r, err := s.Propose(ctx, "x", note(fmt.Sprint(n, k)))
				if err != nil {
					t.Error(err)
					return
				}
				seqs <- r.Events[0].Seq
			}
		})
	}
	callers.Wait()
	close(seqs)
	seen := map[uint64]bool{}
	for q := range seqs {
		if seen[q] {
			t.Errorf("event %d was answered twice", q)
		}
		seen[q] = true
	}
	equal(t, "last event", s.View().LastEvent(), 401)
}

func TestRestart(t *testing.T) {
	config := Config{ID: "r-1", Dir: t.TempDir()}
	s := open(t, config)
	for n := range 50 {
		if _, err := s.Propose(within(t), "dhcp", lease(n, mac(n), time.Now(), time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.raft.Snapshot().Error(); err != nil { // half by the snapshot, half by the log
		t.Fatal(err)
	}
	for n := 50; n < 100; n++ {
		if _, err := s.Propose(within(t), "dhcp", lease(n, mac(n), time.Now(), time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	leases, members := s.View().Leases(), s.Membership()
	if _, err := Open(config); err == nil || !strings.Contains(err.Error(), "another process uses this folder") {
		t.Errorf("a second store in the same folder: %v", err)
	}
	closeStore(t, s)

	if _, err := Open(Config{ID: "r-2", Dir: config.Dir}); err == nil || !strings.Contains(err.Error(), "r-1") {
		t.Errorf("another server's log: %v", err)
	}

	s = open(t, config)
	defer closeStore(t, s)
	again := s.View().Leases()
	equal(t, "leases after a restart", len(again), 100)
	equal(t, "the configuration's entry after a restart", s.Membership().Committed, members.Committed)
	for i := range again {
		if again[i] != leases[i] {
			t.Errorf("lease %d: %+v, was %+v", i, again[i], leases[i])
		}
	}
	if c, _ := s.View().Cluster(); c.Epoch != 2 {
		t.Errorf("epoch %d after a restart, want 2", c.Epoch)
	}
	first := s.View().Events(0, "", 1)
	equal(t, "first event", first[0].Text, "Replica r-1 leads: epoch 1")
}

// TestHaltThroughRaft puts an entry of a newer release into a real log.
func TestHaltThroughRaft(t *testing.T) {
	halted := make(chan error, 1)
	s := open(t, Config{ID: "r-1", InMemory: true, Halt: func(err error) { halted <- err }})
	defer closeStore(t, s)
	f := s.raft.Apply([]byte(`{"v":1,"kind":"moon.land/1","at":"2026-11-24T12:00:00Z","by":"x","data":{}}`), time.Second)
	if err := f.Error(); err != nil {
		t.Fatal(err)
	}
	if err := <-halted; !strings.Contains(err.Error(), "moon.land/1") {
		t.Errorf("halted with %v", err)
	}
	if _, err := s.Propose(within(t), "x", note("after")); !errors.Is(err, errHalted) {
		t.Errorf("a command after the halt: %v", err)
	}
}

func TestClosed(t *testing.T) {
	s := open(t, Config{ID: "r-1", InMemory: true})
	closeStore(t, s)
	ctx, cancel := context.WithCancel(within(t))
	cancel()
	if _, err := s.Propose(ctx, "x", note("after")); err == nil {
		t.Error("a closed store took a command")
	}
	if _, err := Open(Config{InMemory: true}); err == nil {
		t.Error("a store without a server ID opened")
	}
}

// TestAnotherEpoch: a leader that lost its leadership and has it again, began
// another epoch before it does anything.
func TestAnotherEpoch(t *testing.T) {
	s := open(t, Config{ID: "r-1", InMemory: true})
	defer closeStore(t, s)
	ctx := within(t)
	begun := s.View()
	// The state machine as a new leader's first entry finds it.
	entry, err := encode(start, "r-2", EpochBegin{Leader: "r-2"})
	if err != nil {
		t.Fatal(err)
	}
	if f := s.raft.Apply(entry, time.Second); f.Error() != nil {
		t.Fatal(f.Error())
	}
	select {
	case <-begun.Changed("cluster"):
	case <-ctx.Done():
		t.Fatal("the epoch's begin woke nobody")
	}
	r, err := s.Propose(ctx, "x", note("x"))
	if err != nil || r.Epoch != 2 {
		t.Errorf("epoch %d, %v", r.Epoch, err)
	}
}

func TestChanged(t *testing.T) {
	w := newWorld(t)
	isClosed := func(c <-chan struct{}) bool {
		select {
		case <-c:
			return true
		default:
			return false
		}
	}
	v := w.view()
	leases, machines, both, any := v.Changed("leases"), v.Changed("machines"), v.Changed("machines", "leases"), v.Changed()
	if isClosed(leases) || isClosed(machines) || isClosed(both) || isClosed(any) {
		t.Fatal("closed before any change")
	}
	w.must(lease(100, mac(1), w.now, time.Hour))
	equal(t, "leases", isClosed(leases), true)
	equal(t, "machines", isClosed(machines), false)
	equal(t, "both", isClosed(both), true)
	equal(t, "any", isClosed(any), true)
	equal(t, "asked late of an old view", isClosed(v.Changed("leases")), true)
	equal(t, "asked of a new view", isClosed(w.view().Changed("leases")), false)
	equal(t, "events of a silent renewal", isClosed(v.Changed("events")), false)

	fresh := w.view()
	waiting := fresh.Changed()
	w.refused(lease(100, mac(2), w.now, time.Hour))
	equal(t, "after a refusal", isClosed(waiting), false)
	var whole strings.Builder
	if err := writeSnapshot(&whole, fresh.v.txn, 0); err != nil {
		t.Fatal(err)
	}
	if err := w.fsm.Restore(io.NopCloser(strings.NewReader(whole.String()))); err != nil {
		t.Fatal(err)
	}
	equal(t, "after a restore", isClosed(fresh.Changed("users")), true)
	equal(t, "leases in the old view", len(fresh.Leases()), 1)

	for _, table := range catalog {
		if tableBit[table.name]&allTables == 0 {
			t.Errorf("table %s is not among all tables", table.name)
		}
	}
	equal(t, "all tables", allTables, tableSet(1<<len(catalog)-1))
	defer func() {
		if recover() == nil {
			t.Error("a table that does not exist is watched")
		}
	}()
	v.Changed("moons")
}

// TestChangedMeetsEveryChange has readers wait for each other's events while
// they are written: a wake-up that is lost leaves one waiting.
func TestChangedMeetsEveryChange(t *testing.T) {
	s := open(t, Config{ID: "r-1", InMemory: true})
	defer closeStore(t, s)
	ctx := within(t)
	const total = 300
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			var seen uint64
			for seen < total {
				v := s.View()
				for _, e := range v.Events(seen, "", 0) {
					if e.Seq != seen+1 {
						t.Errorf("event %d follows %d", e.Seq, seen)
					}
					seen = e.Seq
				}
				if seen >= total {
					return
				}
				select {
				case <-v.Changed("events"):
				case <-ctx.Done():
					t.Errorf("nobody woke the reader after event %d", seen)
					return
				}
			}
		})
	}
	for range total - 1 { // the first is the epoch's
		if _, err := s.Propose(ctx, "x", note("x")); err != nil {
			t.Fatal(err)
		}
	}
	readers.Wait()
}

var _ raft.BatchingFSM = (*fsm)(nil)

// BenchmarkLeaseBind commits leases with fsync, as DHCP does.
func BenchmarkLeaseBind(b *testing.B) {
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			s := open(b, Config{ID: "r-1", Dir: b.TempDir()})
			defer closeStore(b, s)
			ctx := context.Background()
			work := make(chan int)
			var all sync.WaitGroup
			b.ResetTimer()
			for range callers {
				all.Go(func() {
					for n := range work {
						if _, err := s.Propose(ctx, "dhcp", lease(n%60000, mac(n%60000), time.Now(), time.Hour)); err != nil {
							b.Error(err)
						}
					}
				})
			}
			for n := range b.N {
				work <- n
			}
			close(work)
			all.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
		})
	}
}
