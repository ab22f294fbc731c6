package state

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"golang.org/x/sys/unix"

	"github.com/rackseed/rackseed/services/keyring"
)

// Config says where and as whom a Store runs.
type Config struct {
	Dir      string           // log, snapshots; made if absent
	ID       string           // raft server ID, never used twice
	Now      func() time.Time // the machine's clock (see Store.Now); Apply never reads it
	Logger   *slog.Logger
	InMemory bool // tests: nothing on disk
	// Halt is called once when an entry cannot be applied; nothing is applied
	// after it. nil: panic, so that the process ends.
	Halt func(error)
	// Tests: the bytes of a segment of the log (0: segmentSize), another log, and
	// the feature level of another binary (0: FeatureLevel).
	segment int
	level   uint64
	open    func() (opened, error)
	// Stream carries Raft between replicas; its addresses are server IDs. nil: one
	// that listens nowhere, for a replica that is alone.
	Stream raft.StreamLayer
	// Transport is for tests: it stands for Stream.
	Transport raft.Transport
	// Kept is for tests, with InMemory: what outlives the replica. nil: nothing.
	Kept *Kept
	// Peers asks other replicas; needed with Stream.
	Peers Peers
	// Joins says that the replica joined a cluster that there is: it must never
	// begin one. Fresh says that it has not been a member yet, so that an empty log
	// lost nothing.
	Joins, Fresh bool
	// Keys opens the secrets that views are asked for. nil: none can be opened.
	Keys *keyring.Ring
	// Members is called after each change of the membership that is committed: who
	// was removed is to be cut off. nil: nobody wants to know.
	Members func()
	// BeforeVote notes outside of the log that another replica is about to get a
	// vote, and returns once a loss of power cannot undo that; without it the vote is
	// not given. nil: nothing is noted.
	BeforeVote func(id string) error
	// Slower multiplies Raft's times; 0 is 1. For emulated machines, where a
	// second's silence means nothing.
	Slower int
}

// Kept stands for a replica's disk.
type Kept struct {
	Log       backing
	Snapshots raft.SnapshotStore
}

// Peers is how a replica asks another one.
type Peers interface {
	// Propose hands a command to the leader (see Store.Take). ErrNotLeading says
	// that it surely did nothing.
	Propose(ctx context.Context, leader string, p Proposal) (Result, error)
	// Stored is Store.Stored of a member.
	Stored(ctx context.Context, id string) (Stored, error)
}

func (c Config) slower() time.Duration { return time.Duration(max(c.Slower, 1)) }

const (
	proposeLimit   = 30 * time.Second // the longest that Propose waits, whatever its context says
	epochLimit     = 10 * time.Second // for a new leader's first entry to be taken
	keptSnapshots  = 2
	connectionPool = 3                // kept to each other replica
	streamTimeout  = 10 * time.Second // for one of Raft's requests
	// heartbeatTimeout, up to twice of it, is how long nobody hears of the leader
	// before another one is elected. Raft's own second made DHCP silent for 2.5 s
	// when a leader was killed: of three, both others must have missed it. A
	// heartbeat waits for no disk.
	heartbeatTimeout = 600 * time.Millisecond
	cachedEntries    = 512 // newest log entries kept in memory
	// segmentSize is what a segment of the log takes on disk, in bytes, from its
	// beginning: it is raft-wal's own default, far below what others leave free.
	segmentSize = 64 << 20
)

// Store is one replica of the state.
type Store struct {
	config   Config
	fsm      *fsm
	raft     *raft.Raft
	medium   *medium
	log      raft.LogStore
	leading  *leadership
	clock    clock
	changing sync.Mutex // held while the membership is changed
	hashing  sync.Mutex // of the newest hash that was asked for, and its entry
	hashed   string

	hashedIndex uint64

	behind    time.Duration // that the machine's clock was, since it was looked at last; of Open, then of lead
	clockTold bool

	stop     context.CancelFunc
	stopping <-chan struct{} // closed when Close begins
	stopped  chan struct{}   // the watch over leadership ended
	closers  []io.Closer     // in the order of closing, after Raft
}

// Open starts the replica; the first time it bootstraps a log with itself as
// the one voter. It returns before leadership: see WaitLeader.
func Open(config Config) (*Store, error) {
	if config.ID == "" {
		return nil, errors.New("state: a server ID is missing")
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	if config.segment == 0 {
		config.segment = segmentSize
	}
	if config.Halt == nil {
		config.Halt = func(err error) { panic(err) }
	}
	s := &Store{config: config, leading: newLeadership(), clock: clock{machine: config.Now}, stopped: make(chan struct{})}
	if err := s.start(); err != nil {
		return nil, errors.Join(fmt.Errorf("state in %s, server %s: %w", cmp.Or(config.Dir, "memory"), config.ID, err), s.closeStores())
	}
	s.lookAtClock()
	ctx, cancel := context.WithCancel(context.Background())
	s.stop, s.stopping = cancel, ctx.Done()
	go func() {
		defer close(s.stopped)
		s.lead(ctx)
	}()
	return s, nil
}

// stores are where Raft keeps what it must not forget.
type stores struct {
	log       raft.LogStore
	stable    raft.StableStore
	snapshots raft.SnapshotStore
}

func (s *Store) start() error {
	var err error
	if s.fsm, err = newFSM(maxEvents, s.config.Halt, s.config.Logger); err != nil {
		return err
	}
	s.fsm.level = cmp.Or(s.config.level, FeatureLevel)
	if s.config.Keys != nil {
		s.fsm.keys = s.config.Keys
	}
	kept, err := s.openStores()
	if err != nil {
		return err
	}
	s.log = kept.log
	transport := s.config.Transport
	if transport == nil && s.config.Stream != nil {
		transport = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
			Stream: s.config.Stream, MaxPool: connectionPool, Timeout: streamTimeout * s.config.slower(),
			Logger: newRaftLogger(s.config.Logger).Named("transport"),
		})
	}
	if transport == nil {
		_, transport = raft.NewInmemTransport(raft.ServerAddress(s.config.ID))
	}
	settings := raft.DefaultConfig()
	settings.LocalID = raft.ServerID(s.config.ID)
	settings.Logger = newRaftLogger(s.config.Logger)
	settings.NoLegacyTelemetry = true
	// Many callers' entries share one fsync. What waits in Raft's queue at its shutdown
	// is never answered (raft 1.8.0): tests that kill replicas do without.
	settings.BatchApplyCh = s.config.Kept == nil
	settings.HeartbeatTimeout = heartbeatTimeout * s.config.slower()
	settings.ElectionTimeout = heartbeatTimeout * s.config.slower()
	settings.LeaderLeaseTimeout *= s.config.slower() // 500 ms
	if s.config.InMemory && s.config.Transport == nil {
		// Nobody to hear from and no disk to wait for.
		settings.HeartbeatTimeout, settings.ElectionTimeout = 20*time.Millisecond, 20*time.Millisecond
		settings.LeaderLeaseTimeout, settings.CommitTimeout = 20*time.Millisecond, 5*time.Millisecond
	}
	// What a snapshot holds is not handed over again.
	if list, err := kept.snapshots.List(); err == nil && len(list) > 0 {
		s.fsm.configured.set(list[0].ConfigurationIndex)
	}
	begun, err := kept.begun(s.config.Dir)
	if err != nil && s.config.Fresh && errors.Is(err, errElected) {
		begun, err = false, nil // by those that it joins
	}
	if err == nil && !begun && s.config.Joins && !s.config.Fresh {
		err = fmt.Errorf("%s: the log is gone; this replica may have forgotten what it promised, and never comes back under its ID: remove its whole folder, and let a new one join", s.config.Dir)
	}
	if err != nil {
		return fmt.Errorf("reading what is there: %w", err)
	}
	if !begun && !s.config.Joins {
		// A bootstrap that was cut off left the first term, which makes Raft
		// refuse another.
		if err := kept.stable.SetUint64(termKey, 0); err != nil {
			return fmt.Errorf("making the log: %w", err)
		}
		one := raft.Configuration{Servers: []raft.Server{{ID: settings.LocalID, Address: transport.LocalAddr()}}}
		if err := raft.BootstrapCluster(settings, kept.log, kept.stable, kept.snapshots, transport, one); err != nil {
			return fmt.Errorf("making the log: %w", err)
		}
	}
	s.fsm.configured.changed = s.config.Members
	if s.raft, err = raft.NewRaft(settings, s.fsm, kept.log, kept.stable, kept.snapshots, transport); err != nil {
		return fmt.Errorf("starting Raft: %w", err)
	}
	if s.config.Joins { // its log may end before the entry that makes it a member
		return nil
	}
	return s.checkMember()
}

// checkMember refuses a log that another server wrote: it could never elect
// this one, and a wait for that would explain nothing.
func (s *Store) checkMember() error {
	configuration := s.raft.GetConfiguration()
	err := configuration.Error()
	if err == nil {
		for _, member := range configuration.Configuration().Servers {
			if string(member.ID) == s.config.ID {
				return nil
			}
		}
		err = fmt.Errorf("the log belongs to %v; start with that server ID, or with an empty folder", configuration.Configuration().Servers)
	}
	s.medium.release()
	return errors.Join(err, s.raft.Shutdown().Error())
}

func (s *Store) openStores() (stores, error) {
	open, snapshots := s.openLog, raft.SnapshotStore(raft.NewInmemSnapshotStore())
	logger := newRaftLogger(s.config.Logger)
	if s.config.InMemory {
		kept := Kept{raft.NewInmemStore(), snapshots}
		if s.config.Kept != nil {
			kept = *s.config.Kept
		}
		snapshots = kept.Snapshots
		open = func() (opened, error) { return opened{kept.Log, io.NopCloser(nil), io.NopCloser(nil)}, nil }
	} else {
		if err := os.MkdirAll(filepath.Join(s.config.Dir, "raft"), 0o700); err != nil {
			return stores{}, err
		}
		held, err := Lock(LockOf(s.config.Dir))
		if err != nil {
			return stores{}, err
		}
		s.closers = append(s.closers, held)
		if snapshots, err = raft.NewFileSnapshotStoreWithLogger(s.config.Dir, keptSnapshots, logger.Named("snapshot")); err != nil {
			return stores{}, fmt.Errorf("opening the snapshots: %w", err)
		}
	}
	if s.config.open != nil {
		open = s.config.open
	}
	var err error
	if s.medium, err = newMedium(open, s.config.Logger); err != nil {
		return stores{}, fmt.Errorf("opening the log: %w", err)
	}
	s.closers = append([]io.Closer{s.medium}, s.closers...)
	cache, err := raft.NewLogCache(cachedEntries, s.medium)
	if err != nil {
		return stores{}, fmt.Errorf("opening the log: %w", err)
	}
	return stores{cache, s.medium, snapshots}, nil
}

// openLog opens the log that is in the folder.
func (s *Store) openLog() (opened, error) {
	log := filepath.Join(s.config.Dir, "raft")
	if err := metaIntact(s.config.Dir, log); err != nil {
		return opened{}, err
	}
	// The database of its metadata is ours: its lock would keep the next Open of
	// this process waiting for ever, and must be gone while segments are still read.
	meta := &metaStore{}
	entries, err := openIntact(log, meta, func() (*wal.WAL, error) {
		return wal.Open(log, wal.WithLogger(newRaftLogger(s.config.Logger).Named("wal")), wal.WithMetaStore(meta), wal.WithSegmentSize(s.config.segment))
	})
	if err != nil {
		return opened{}, errors.Join(err, meta.Close())
	}
	return opened{entries, meta, entries}, nil
}

// Lock keeps other processes from what goes by a lock file. The kernel drops it with
// the process.
func Lock(path string) (io.Closer, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: another process uses this folder; stop it first: %w", path, err), f.Close())
	}
	return f, nil
}

// LockOf is the lock file of the state in a folder.
func LockOf(dir string) string { return filepath.Join(dir, "lock") }

// Close stops the replica. What was committed stays.
func (s *Store) Close() error {
	s.stop()
	s.medium.release()
	err := s.raft.Shutdown().Error()
	<-s.stopped
	return errors.Join(err, s.closeStores())
}

func (s *Store) closeStores() error {
	var errs []error
	for _, c := range s.closers {
		errs = append(errs, c.Close())
	}
	s.closers = nil
	return errors.Join(errs...)
}

// View is the state now: everything that Propose has answered is in it.
func (s *Store) View() View { return s.fsm.view() }

// Hash is the SHA-256 of the state now, in hex.
func (s *Store) Hash() (string, error) { return s.View().Hash() }

// WaitLeader waits until this replica leads and its epoch is committed.
func (s *Store) WaitLeader(ctx context.Context) error {
	if err := s.leading.wait(ctx, s.stopping); err != nil {
		if m, _ := s.Medium(); m.Failed != nil {
			err = fmt.Errorf("%w: %w", err, m.Failed)
		}
		return fmt.Errorf("waiting for replica %s to lead: %w", s.config.ID, err)
	}
	return nil
}

// ErrNotLeading says that this replica does not lead, and so did nothing.
var ErrNotLeading = errors.New("this replica does not lead")

// Propose has a command committed and answers what it did, by the leader where
// this replica does not lead: View has it then. by says who asks: "dhcp",
// "operator:ann", a machine's ID. A *Refusal is the rules' no. After any other
// error the command may or may not be committed.
func (s *Store) Propose(ctx context.Context, by string, c Command) (Result, error) {
	ctx, cancel := context.WithTimeout(ctx, proposeLimit)
	defer cancel()
	for {
		r, err := s.proposeOnce(ctx, by, c)
		if refusal := (*Refusal)(nil); err == nil || errors.As(err, &refusal) {
			return r, err
		}
		// Nothing was done, and soon somebody leads.
		if errors.Is(err, ErrNotLeading) {
			over := s.pause(ctx, 50*time.Millisecond)
			if over == nil {
				continue
			}
			err = errors.Join(err, over)
		}
		if m, _ := s.Medium(); m.Failed != nil && !errors.Is(err, ErrUnwritable) {
			err = fmt.Errorf("%w: %w", err, m.Failed)
		}
		return Result{}, fmt.Errorf("command %s of %s: %w", c.Kind(), by, err)
	}
}

func (s *Store) proposeOnce(ctx context.Context, by string, c Command) (Result, error) {
	if s.config.Peers == nil {
		if err := s.WaitLeader(ctx); err != nil {
			return Result{}, err
		}
	}
	if s.leading.is() {
		return s.propose(ctx, by, c)
	}
	m := s.Membership()
	if m.Leader == "" || m.Leader == s.config.ID {
		return Result{}, ErrNotLeading
	}
	p, err := newProposal(by, c)
	if err != nil {
		return Result{}, err
	}
	r, err := s.config.Peers.Propose(ctx, m.Leader, p)
	if err != nil {
		return Result{}, err
	}
	return r, s.fsm.await(ctx, r.Index, s.stopping)
}

// propose has a command committed by this replica, which leads.
func (s *Store) propose(ctx context.Context, by string, c Command) (Result, error) {
	if err := supported(c.Kind(), s.View().t.cluster().FeatureLevel); err != nil {
		return Result{}, err
	}
	entry, err := encode(s.Now(), by, c)
	if err != nil {
		return Result{}, err
	}
	answer, err := s.commit(ctx, entry)
	// While it hands the lead over, raft takes nothing either.
	if errors.Is(err, raft.ErrNotLeader) || errors.Is(err, raft.ErrLeadershipTransferInProgress) || errors.Is(err, errNoEpoch) {
		err = fmt.Errorf("%w: %w", ErrNotLeading, err)
	}
	if err != nil {
		return Result{}, err
	}
	switch a := answer.(type) {
	case Result:
		return a, nil
	case error:
		if errors.Is(a, errNoEpoch) {
			a = fmt.Errorf("%w: %w", ErrNotLeading, a)
		}
		return Result{}, a
	}
	return Result{}, fmt.Errorf("the state machine answered %T", answer)
}

// Proposal is a command on its way to the leader, whose clock dates it.
type Proposal struct {
	By   string          `json:"by"`
	Kind string          `json:"kind"`
	Data json.RawMessage `json:"data"`
}

func newProposal(by string, c Command) (Proposal, error) {
	data, err := json.Marshal(c)
	if err != nil {
		return Proposal{}, fmt.Errorf("command %s: %w", c.Kind(), err)
	}
	return Proposal{by, c.Kind(), data}, nil
}

// Take commits what another replica proposes; ErrNotLeading: it did nothing.
func (s *Store) Take(ctx context.Context, p Proposal) (Result, error) {
	if !s.leading.is() {
		return Result{}, ErrNotLeading
	}
	info, known := kindByName[p.Kind]
	if !known {
		return Result{}, &Refusal{fmt.Sprintf("command %s is not known to the replica that leads, which is of an older release: once it is upgraded, ask again", p.Kind)}
	}
	c, err := info.decode(p.Data)
	if err != nil {
		return Result{}, fmt.Errorf("command %s: %w", p.Kind, err)
	}
	return s.propose(ctx, p.By, c)
}

// commit hands an entry to Raft and waits for the state machine's answer.
func (s *Store) commit(ctx context.Context, entry []byte) (any, error) {
	type outcome struct {
		answer any
		err    error
	}
	done := make(chan outcome, 1)
	limit := proposeLimit
	if deadline, ok := ctx.Deadline(); ok {
		limit = max(time.Until(deadline), time.Millisecond) // 0 would be for ever
	}
	// Raft's futures know no context. The goroutine ends with the entry's
	// commit or the loss of leadership. An entry that waits in Raft's queue at
	// its shutdown is never answered (raft 1.8.0, seen by reading).
	go func() {
		f := s.raft.Apply(entry, limit)
		err := f.Error()
		if err != nil {
			done <- outcome{nil, err}
			return
		}
		done <- outcome{f.Response(), nil}
	}()
	select {
	case o := <-done:
		return o.answer, o.err
	case <-s.stopping:
		return nil, fmt.Errorf("the state was closed, it may be committed: %w", raft.ErrRaftShutdown)
	case <-ctx.Done():
		return nil, fmt.Errorf("no answer in time, it may be committed later: %w", ctx.Err())
	}
}
