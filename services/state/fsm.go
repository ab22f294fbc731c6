package state

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"

	"github.com/hashicorp/go-memdb"
	"github.com/hashicorp/raft"

	"github.com/rackseed/rackseed/services/keyring"
	"github.com/rackseed/rackseed/services/machine"
)

// Result is what a committed command did.
type Result struct {
	Events  []machine.Event
	Machine *machine.Machine // the one it was about, as it is after it
	Intent  *machine.Intent
	Replica *machine.Replica
	Index   uint64 // of the log entry
	Epoch   uint64 // in which it was committed
}

// errNoEpoch answers a command of a leader that has not begun its epoch.
var errNoEpoch = errors.New("the leader changed before the command was committed, and it did nothing; ask again")

// errHalted is in every answer of a state machine that stopped.
var errHalted = errors.New("the state machine has stopped")

// fsm is the state machine that Raft drives, from one goroutine.
type fsm struct {
	db         *memdb.MemDB
	limit      uint64 // of events
	level      uint64 // the highest feature level that this binary supports
	halt       func(error)
	halted     error // what stopped it; nothing is applied afterwards
	told       bool  // halt was called
	hub        *hub
	log        *slog.Logger
	keys       *keyring.Ring // for views only: nothing is applied by it
	configured configured
	checked    atomic.Pointer[version] // as it was at the newest StateCheck
	current    atomic.Pointer[version]
}

// version is one published state of all tables.
type version struct {
	txn   *memdb.Txn // read-only: safe to share
	index uint64     // of the last entry in it
	count uint64     // of versions published before it
}

func newFSM(limit uint64, halt func(error), log *slog.Logger) (*fsm, error) {
	db, err := newDatabase()
	if err != nil {
		return nil, fmt.Errorf("the tables: %w", err)
	}
	f := &fsm{db: db, limit: limit, level: FeatureLevel, halt: halt, hub: newHub(), log: log, keys: keyring.Memory()}
	f.current.Store(&version{txn: db.Snapshot().Txn(false)})
	return f, nil
}

// publish makes what was written visible, and wakes who waits for it.
func (f *fsm) publish(index uint64, changed tableSet) {
	f.hub.publish(changed, func(count uint64) {
		f.current.Store(&version{txn: f.db.Snapshot().Txn(false), index: index, count: count})
	})
}

// await waits until an entry is applied here.
func (f *fsm) await(ctx context.Context, index uint64, stopping <-chan struct{}) error {
	for {
		v := f.view()
		if v.Index() >= index {
			return nil
		}
		select {
		case <-f.hub.next(v.v.count):
		case <-stopping:
			return raft.ErrRaftShutdown
		case <-ctx.Done():
			return fmt.Errorf("it was committed as entry %d, which this replica has not heard of yet: %w", index, ctx.Err())
		}
	}
}

// Apply is ApplyBatch of one.
func (f *fsm) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch applies committed entries in one transaction of the tables. The
// answers are Result, *Refusal or another error, in order.
func (f *fsm) ApplyBatch(logs []*raft.Log) []any {
	answers := make([]any, len(logs))
	w := &writer{txn: f.db.Txn(true), limit: f.limit}
	index := f.current.Load().index
	for n, l := range logs {
		if f.halted != nil {
			answers[n] = f.halted
			continue
		}
		if l.Type != raft.LogCommand {
			index = l.Index
			if l.Type == raft.LogConfiguration {
				// Raft hands them over among the others where an FSM takes batches, and
				// never calls StoreConfiguration then (raft 1.8.0).
				f.configured.set(l.Index)
			}
			continue
		}
		answer, err := apply(w, l, f.level)
		if err != nil {
			f.halted = fmt.Errorf("%w before log entry %d, which cannot be applied: %w", errHalted, l.Index, err)
			answers[n] = f.halted
			continue
		}
		index, answers[n] = l.Index, answer
	}
	if w.torn { // half a change is in the transaction: none of the batch is kept
		w.txn.Abort()
		for n := range answers {
			answers[n] = f.halted
		}
	} else {
		w.txn.Commit()
		if w.check != nil {
			f.checked.Store(w.check)
		}
		f.publish(index, w.changed)
	}
	if f.halted != nil && !f.told {
		f.told = true
		f.log.Error("the state machine stops", "error", f.halted)
		f.halt(f.halted)
	}
	return answers
}

// apply applies one entry. An error halts; a refusal is an answer.
func apply(w *writer, l *raft.Log, own uint64) (any, error) {
	e, command, err := decode(l.Data, own)
	if err != nil {
		return nil, err
	}
	cluster := w.tables().cluster()
	if _, begins := command.(EpochBegin); !begins && l.Term != cluster.Term {
		return errNoEpoch, nil
	}
	c, err := decide(w.tables(), e.At, e.By, l.Index, l.Term, command)
	if refusal := (*Refusal)(nil); errors.As(err, &refusal) {
		return refusal, nil
	}
	if err != nil {
		return nil, err
	}
	if c.raised > own {
		return nil, tooNew(c.raised, own)
	}
	if err := w.write(c); err != nil {
		w.torn = true
		return nil, err
	}
	if _, checks := command.(StateCheck); checks {
		// In the midst of a batch: other replicas batch otherwise.
		w.check = &version{txn: w.txn.Snapshot(), index: l.Index}
	}
	r := Result{Events: c.events, Index: l.Index, Epoch: w.tables().cluster().Epoch}
	if c.machine != nil {
		m := c.machine.Machine
		r.Machine = &m
	}
	if c.intent != nil {
		i := c.intent.Intent
		r.Intent = &i
	}
	r.Replica = c.replicaAnswer
	return r, nil
}

// Snapshot holds on to the present version; writing it goes on beside Apply.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	if f.halted != nil {
		return nil, f.halted
	}
	return snapshot{f.current.Load()}, nil
}

// Restore replaces the state by a snapshot's.
func (f *fsm) Restore(from io.ReadCloser) error {
	db, index, err := readSnapshot(from, f.level)
	if closing := from.Close(); err == nil && closing != nil {
		err = closing
	}
	if err != nil {
		return fmt.Errorf("restoring the state from a snapshot: %w", err)
	}
	f.db = db
	f.publish(index, allTables)
	return nil
}
