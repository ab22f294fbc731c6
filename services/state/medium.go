package state

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"github.com/hashicorp/raft-wal/metadb"
	"github.com/hashicorp/raft-wal/types"
)

const (
	// slowCommit is the time from which a commit is told to be slow: every
	// binding answer waits for one, and DHCP's wait 2 s at the longest.
	slowCommit = 250 * time.Millisecond
	// measured is how many of the newest writes are looked at.
	measured = 32
	// mendPause is the time between two tries to write again.
	mendPause = time.Second
)

// ErrUnwritable says that the log cannot be written: the medium is full, was
// made read-only, or fails. What was committed stays. Once the medium takes
// writes again, so does the log, without a restart.
var ErrUnwritable = errors.New("the data partition takes no writes")

var errClosing = errors.New("the state is being closed")

// Medium is how what the log is kept on does.
type Medium struct {
	Median, Longest time.Duration // of the newest writes to the log, each with its sync
	Slow            bool          // the median was at slowCommit or above, and not below half of it since
	Failed          error         // why it takes no writes now, an ErrUnwritable; nil: it does
	// Since is when what is under way began, or when writes began to fail; zero:
	// neither is so.
	Since time.Time
}

// backing is where entries and Raft's few values are.
type backing interface {
	raft.LogStore
	raft.StableStore
}

// metaStore is the database of the log's metadata, which can be closed while
// raft-wal's background work still wants it.
type metaStore struct {
	mu sync.Mutex
	db metadb.BoltMetaDB
}

// Load implements types.MetaStore.
func (m *metaStore) Load(dir string) (types.PersistentState, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.db.Load(dir)
}

// CommitState implements types.MetaStore.
func (m *metaStore) CommitState(state types.PersistentState) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.db.CommitState(state)
}

// GetStable implements types.MetaStore.
func (m *metaStore) GetStable(key []byte) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.db.GetStable(key)
}

// SetStable implements types.MetaStore.
func (m *metaStore) SetStable(key, value []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.db.SetStable(key, value)
}

// Close implements io.Closer.
func (m *metaStore) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.db.Close()
}

// opened is a log that was opened. While its lock is held it cannot be opened
// again; without it, it can still be read.
type opened struct {
	backing
	lock, files io.Closer
}

// medium is the log as Raft sees it. After a failed write raft-wal 0.4.2
// refuses every other until it is opened anew, and Raft panics if it cannot
// store its term: so the log is opened anew here, without what nobody was
// promised, and Raft waits as long as the medium takes no writes.
type medium struct {
	open func() (opened, error)
	log  *slog.Logger

	write   chan struct{} // held while something is written or opened; a mutex would stop the time of tests whose disk hangs
	closing chan struct{}

	mu     sync.Mutex // of what follows; it is changed with write held, by set
	now    opened     // what can be read also while it takes no writes
	ready  bool       // it takes writes
	last   uint64     // the newest entry that was stored
	took   []time.Duration
	slow   bool
	failed error
	since  time.Time
	change chan struct{} // closed at the next change of what status tells
}

func newMedium(open func() (opened, error), log *slog.Logger) (*medium, error) {
	m := &medium{open: open, log: log, write: make(chan struct{}, 1), closing: make(chan struct{}), change: make(chan struct{})}
	var err error
	if m.now, err = open(); err != nil {
		return nil, err
	}
	m.ready = true
	if m.last, err = m.now.LastIndex(); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// status is how the medium does, and a channel that is closed when that
// changes: it begins or ceases to be slow, or to take writes.
func (m *medium) status() (Medium, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.statusLocked(), m.change
}

func (m *medium) statusLocked() Medium {
	s := Medium{Slow: m.slow, Failed: m.failed, Since: m.since}
	if n := len(m.took); n > 0 {
		sorted := slices.Sorted(slices.Values(m.took))
		s.Median, s.Longest = sorted[n/2], sorted[n-1]
	}
	return s
}

// set changes what status tells, and wakes who waits for that.
func (m *medium) set(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := m.statusLocked()
	f()
	if now := m.statusLocked(); now.Slow != before.Slow || (now.Failed == nil) != (before.Failed == nil) {
		close(m.change)
		m.change = make(chan struct{})
	}
}

// fail keeps why a write failed, and lets go of the log. write is held.
func (m *medium) fail(err error) error {
	err = fmt.Errorf("%w: %w", ErrUnwritable, err)
	if m.ready {
		err = errors.Join(err, m.now.lock.Close())
	}
	if m.failed == nil {
		m.log.Error("state: nothing is committed until the medium takes writes again", "error", err)
	}
	m.set(func() { m.ready, m.failed = false, err })
	return err
}

// mend opens the log anew after a failed write. write is held.
func (m *medium) mend() error {
	select {
	case <-m.closing:
		return errClosing
	default:
	}
	if m.ready {
		return nil
	}
	now, err := m.open()
	if err != nil {
		return m.fail(err)
	}
	// What came after the last success was refused, and Raft will number other
	// entries so.
	newest, err := now.LastIndex()
	if err == nil && newest > m.last {
		err = now.DeleteRange(m.last+1, newest)
	}
	if err == nil && newest < m.last {
		err = fmt.Errorf("the log ends with entry %d, and %d was stored: the medium has lost it", newest, m.last)
	}
	if err != nil {
		return m.fail(errors.Join(err, now.files.Close(), now.lock.Close()))
	}
	old := m.now.files
	m.set(func() { m.now, m.ready = now, true })
	if err := old.Close(); err != nil {
		m.log.Debug("closing the log that could not be written", "error", err)
	}
	return nil
}

// do writes to the log, which is mended first if it must be.
func (m *medium) do(write func(backing) error) error {
	m.write <- struct{}{}
	defer func() { <-m.write }()
	m.begun(time.Now()) // whatever it is: if it hangs, so does each write after it
	if err := m.mend(); err != nil {
		return err
	}
	err := write(m.now)
	var newest uint64
	if err == nil {
		newest, err = m.now.LastIndex()
	}
	if err != nil {
		return m.fail(err)
	}
	if m.failed != nil {
		m.log.Warn("state: the medium takes writes again")
	}
	m.set(func() { m.failed, m.since, m.last = nil, time.Time{}, newest })
	return nil
}

// persist is do for what Raft cannot go on without: it tries until it has
// succeeded, or the state is closed.
func (m *medium) persist(write func(backing) error) error {
	for {
		err := m.do(write)
		if err == nil || errors.Is(err, errClosing) {
			return err
		}
		pause := time.NewTimer(mendPause)
		select {
		case <-pause.C:
		case <-m.closing:
			pause.Stop()
		}
	}
}

func (m *medium) reader() backing {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now
}

// release ends every wait for the medium; nothing is written after it.
func (m *medium) release() { close(m.closing) }

// Close closes the log; release came before.
func (m *medium) Close() error {
	m.write <- struct{}{}
	defer func() { <-m.write }()
	err := m.now.files.Close()
	if m.ready {
		err = errors.Join(err, m.now.lock.Close())
	}
	m.set(func() { m.ready = false })
	return err
}

// begun notes when a write began, unless writes fail since before: nobody waits for
// that, as for what set changes.
func (m *medium) begun(at time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failed == nil {
		m.since = at
	}
}

// StoreLogs implements raft.LogStore.
func (m *medium) StoreLogs(logs []*raft.Log) error {
	return m.do(func(b backing) error {
		begun := time.Now()
		err := b.StoreLogs(logs)
		if err == nil {
			took := time.Since(begun)
			m.set(func() {
				m.took = append(m.took, took)[max(0, len(m.took)+1-measured):]
				median := m.statusLocked().Median
				m.slow = median >= slowCommit || m.slow && median >= slowCommit/2
			})
		}
		return err
	})
}

// StoreLog implements raft.LogStore.
func (m *medium) StoreLog(l *raft.Log) error { return m.StoreLogs([]*raft.Log{l}) }

// DeleteRange implements raft.LogStore. Raft deletes the oldest entries, or the
// newest where another leader's are in force. One that failed may have taken effect, as
// raft-wal's does where there is no room for its next segment; so it goes on until it has
// succeeded, and what it takes away does not count as stored from its beginning on.
func (m *medium) DeleteRange(from, to uint64) error {
	return m.persist(func(b backing) error {
		first, err := b.FirstIndex()
		if err != nil {
			return err
		}
		switch {
		case to < m.last || from > m.last:
		case from <= first:
			m.set(func() { m.last = 0 })
		default:
			m.set(func() { m.last = from - 1 })
		}
		return b.DeleteRange(from, to)
	})
}

// FirstIndex implements raft.LogStore.
func (m *medium) FirstIndex() (uint64, error) { return m.reader().FirstIndex() }

// LastIndex implements raft.LogStore.
func (m *medium) LastIndex() (uint64, error) { return m.reader().LastIndex() }

// GetLog implements raft.LogStore.
func (m *medium) GetLog(index uint64, l *raft.Log) error { return m.reader().GetLog(index, l) }

// IsMonotonic implements raft.MonotonicLogStore.
func (m *medium) IsMonotonic() bool {
	s, ok := m.reader().(raft.MonotonicLogStore)
	return ok && s.IsMonotonic()
}

// Set implements raft.StableStore.
func (m *medium) Set(key, value []byte) error {
	return m.persist(func(b backing) error { return b.Set(key, value) })
}

// SetUint64 implements raft.StableStore. Raft panics at an error when it stores
// its term. One that is being closed does nothing more with a term: it cannot
// store a vote or an entry of it.
func (m *medium) SetUint64(key []byte, value uint64) error {
	err := m.persist(func(b backing) error { return b.SetUint64(key, value) })
	if errors.Is(err, errClosing) && string(key) == string(termKey) {
		return nil
	}
	return err
}

// Get implements raft.StableStore.
func (m *medium) Get(key []byte) ([]byte, error) { return m.reader().Get(key) }

// GetUint64 implements raft.StableStore.
func (m *medium) GetUint64(key []byte) (uint64, error) { return m.reader().GetUint64(key) }

// Medium is how what the log is kept on does, and a channel that is closed when
// it begins or ceases to be slow, or to take writes.
func (s *Store) Medium() (Medium, <-chan struct{}) { return s.medium.status() }
