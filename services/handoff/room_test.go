package handoff

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/rackseed/rackseed/services/state"
)

var (
	errLost   = errors.New("the message was lost")
	errKilled = errors.New("the process is gone")
)

// disk is what outlives a replica's process: its log, and that it is sealed. Its
// writes can hang.
type disk struct {
	*raft.InmemStore
	snapshots *raft.InmemSnapshotStore

	mu     sync.Mutex
	sealed bool
	hangs  chan struct{} // closed once it takes writes again; nil: it does
	only   bool          // those to the log; a term and a vote can be written
}

func newDisk() *disk {
	return &disk{InmemStore: raft.NewInmemStore(), snapshots: raft.NewInmemSnapshotStore()}
}

// hang has all writes wait until thaw, or those to the log only.
func (d *disk) hang(only bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hangs, d.only = make(chan struct{}), only
}

func (d *disk) thaw() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.hangs != nil {
		close(d.hangs)
		d.hangs = nil
	}
}

// hung is closed once a write goes on that waits; nil: it waits for nothing.
func (d *disk) hung(log bool) <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.only && !log {
		return nil
	}
	return d.hangs
}

func (d *disk) isSealed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.sealed
}

func (d *disk) seal() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sealed = true
}

// mount is a disk as one process has it: with the process it is gone.
type mount struct {
	*disk
	killed chan struct{}
	lands  bool // the write that hangs at the kill is on the disk all the same
}

func (m *mount) write(log bool, f func() error) error {
	for {
		select {
		case <-m.killed:
			return errKilled
		default:
		}
		hangs := m.hung(log)
		if hangs == nil {
			return f()
		}
		select {
		case <-hangs:
		case <-m.killed:
			if m.lands {
				return errors.Join(f(), errKilled)
			}
			return errKilled
		}
	}
}

func (m *mount) StoreLog(l *raft.Log) error {
	return m.write(true, func() error { return m.disk.StoreLog(l) })
}

func (m *mount) StoreLogs(logs []*raft.Log) error {
	return m.write(true, func() error { return m.disk.StoreLogs(logs) })
}

func (m *mount) DeleteRange(from, to uint64) error {
	return m.write(true, func() error { return m.disk.DeleteRange(from, to) })
}

func (m *mount) Set(key, value []byte) error {
	return m.write(false, func() error { return m.disk.Set(key, value) })
}

func (m *mount) SetUint64(key []byte, value uint64) error {
	return m.write(false, func() error { return m.disk.SetUint64(key, value) })
}

// link is Raft's transport in memory over the room's network, on which messages are
// late and lost. As that of connections it answers a heartbeat past whoever writes.
type link struct {
	*raft.InmemTransport
	r     *room
	rpcs  chan raft.RPC
	done  chan struct{}
	close sync.Once

	mu        sync.Mutex
	heartbeat func(raft.RPC)
}

func newLink(r *room, id string) *link {
	_, inner := raft.NewInmemTransport(raft.ServerAddress(id))
	l := &link{InmemTransport: inner, r: r, rpcs: make(chan raft.RPC, 1024), done: make(chan struct{})}
	go l.sort()
	return l
}

// sort takes the heartbeats out, which raft's NetworkTransport knows alike (raft
// 1.8.0, handleCommand).
func (l *link) sort() {
	for {
		select {
		case rpc := <-l.InmemTransport.Consumer():
			l.mu.Lock()
			beat := l.heartbeat
			l.mu.Unlock()
			if a, ok := rpc.Command.(*raft.AppendEntriesRequest); ok && beat != nil && a.PrevLogEntry == 0 && a.PrevLogTerm == 0 && len(a.Entries) == 0 && a.LeaderCommitIndex == 0 {
				go beat(rpc)
				continue
			}
			select {
			case l.rpcs <- rpc:
			case <-l.done:
				return
			}
		case <-l.done:
			return
		}
	}
}

func (l *link) Consumer() <-chan raft.RPC { return l.rpcs }

func (l *link) SetHeartbeatHandler(f func(raft.RPC)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heartbeat = f
}

func (l *link) Close() error {
	l.close.Do(func() { close(l.done) })
	return l.InmemTransport.Close()
}

// call sends a message, and has its answer come back.
func (l *link) call(f func() error) error {
	if err := l.r.pass(context.Background()); err != nil {
		return err
	}
	if err := f(); err != nil {
		return err
	}
	return l.r.pass(context.Background())
}

func (l *link) AppendEntries(id raft.ServerID, to raft.ServerAddress, a *raft.AppendEntriesRequest, b *raft.AppendEntriesResponse) error {
	return l.call(func() error { return l.InmemTransport.AppendEntries(id, to, a, b) })
}

func (l *link) RequestVote(id raft.ServerID, to raft.ServerAddress, a *raft.RequestVoteRequest, b *raft.RequestVoteResponse) error {
	return l.call(func() error { return l.InmemTransport.RequestVote(id, to, a, b) })
}

func (l *link) RequestPreVote(id raft.ServerID, to raft.ServerAddress, a *raft.RequestPreVoteRequest, b *raft.RequestPreVoteResponse) error {
	return l.call(func() error { return l.InmemTransport.RequestPreVote(id, to, a, b) })
}

func (l *link) TimeoutNow(id raft.ServerID, to raft.ServerAddress, a *raft.TimeoutNowRequest, b *raft.TimeoutNowResponse) error {
	return l.call(func() error { return l.InmemTransport.TimeoutNow(id, to, a, b) })
}

func (l *link) AppendEntriesPipeline(id raft.ServerID, to raft.ServerAddress) (raft.AppendPipeline, error) {
	p, err := l.InmemTransport.AppendEntriesPipeline(id, to)
	return pipeline{p, l.r}, err
}

type pipeline struct {
	raft.AppendPipeline
	r *room
}

func (p pipeline) AppendEntries(a *raft.AppendEntriesRequest, b *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	if err := p.r.pass(context.Background()); err != nil {
		return nil, err
	}
	return p.AppendPipeline.AppendEntries(a, b)
}

// weather is how messages do: which of a hundred are lost, and how late the latest is.
type weather struct {
	lost int
	late time.Duration
}

// pass is a message on its way.
func (r *room) pass(ctx context.Context) error {
	r.mu.Lock()
	w := r.weather
	lost := w.lost > 0 && r.rng.IntN(100) < w.lost
	late := time.Duration(0)
	if w.late > 0 {
		late = time.Duration(r.rng.Int64N(int64(w.late)))
	}
	r.mu.Unlock()
	if late > 0 {
		select {
		case <-time.After(late):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if lost {
		return errLost
	}
	return nil
}

// roll is a random number below n.
func (r *room) roll(n int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rng.IntN(n)
}

// seconds are at most n, at random.
func (r *room) seconds(n int) time.Duration { return time.Duration(r.roll(n*1000)) * time.Millisecond }

// kill ends a replica's process: nobody hears of it any more, and nothing more is
// written.
func (r *room) kill(x *replica) {
	r.mu.Lock()
	if x.dead {
		r.mu.Unlock()
		return
	}
	x.dead = true
	x.disk.lands = r.rng.IntN(2) == 0
	r.mu.Unlock()
	r.wire()
	close(x.disk.killed)
	x.cancel()
	// What waits in Raft's queues when it is shut down is never answered (raft 1.8.0),
	// and who waits for it stays in the bubble: it is answered before.
	time.Sleep(10 * time.Millisecond)
	if err := x.store.Close(); err != nil {
		r.t.Errorf("closing %s: %v", x.id, err)
	}
	<-x.done
}

// again starts a replica that was killed. A sealed one does not open its state.
func (r *room) again(x *replica) {
	if !x.disk.isSealed() {
		r.run(x.id, x.machine, x.disk.disk)
	}
}

// watch ends a leader's process whose disk hangs, as services/replica does
// (watchDisk), and says whether it did.
func (r *room) watch(x *replica) bool {
	medium, _ := x.store.Medium()
	m := x.store.Membership()
	if m.Leader != x.id || len(m.Voters()) < 2 || medium.Since.IsZero() || time.Since(medium.Since) < 2*time.Second {
		return false
	}
	r.say("%s leads, and its disk hangs: it ends", x.id)
	r.kill(x)
	return true
}

// fault has something fail for some seconds.
func (r *room) fault() {
	list := r.replicas()
	x := list[r.roll(len(list))]
	long := r.seconds(8)
	if r.roll(8) == 0 {
		long = r.seconds(60)
	}
	switch r.roll(10) {
	case 0, 1, 2:
		in, out := r.roll(2) == 0, r.roll(2) == 0
		r.say("%s is cut: in %v, out %v", x.id, in, out)
		r.isolate(x.id, in, out)
		time.Sleep(long)
		r.isolate(x.id, false, false)
	case 3, 4:
		w := weather{r.roll(30), time.Duration(1+r.roll(300)) * time.Millisecond}
		r.say("of a hundred messages %d are lost, others are up to %v late", w.lost, w.late)
		r.forecast(w)
		time.Sleep(long)
		r.forecast(weather{})
	case 5, 6, 7:
		killed := []*replica{x}
		if r.roll(4) == 0 {
			killed = list // the power is gone everywhere
		}
		for _, x := range killed {
			r.say("%s dies", x.id)
			r.kill(x)
		}
		time.Sleep(long)
		for _, x := range killed {
			r.say("%s is started", x.id)
			r.again(x)
		}
	default:
		r.say("the disk of %s hangs", x.id)
		x.disk.hang(r.roll(2) == 0)
		died := false
		for until := time.Now().Add(long); !died && time.Now().Before(until); time.Sleep(100 * time.Millisecond) {
			died = r.watch(x)
		}
		x.disk.thaw()
		if died {
			r.say("%s is started", x.id)
			r.again(x)
		}
	}
}

func (r *room) forecast(w weather) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.weather = w
}

// ask is a question from one replica to another; the answer has to come back.
func (r *room) ask(ctx context.Context, from, to string) (*replica, error) {
	if err := r.pass(ctx); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	x := r.all[to]
	if x == nil || x.dead && !x.disk.isSealed() || r.cut[[2]string{from, to}] || r.cut[[2]string{to, from}] {
		return nil, fmt.Errorf("replica %s: %w", to, state.ErrNotLeading)
	}
	return x, nil
}

// kept is a disk as a replica's state takes it.
func (m *mount) kept() *state.Kept { return &state.Kept{Log: m, Snapshots: m.snapshots} }
