package events

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
)

// budgets are how many bytes of output are kept, counted in whole blocks:
// whoever is on the wire can open an installer session and send output.
type budgets struct {
	stranger  int64 // of a machine that nobody approved
	strangers int64 // of all of those together
	machine   int64 // of an approved one
}

var defaultBudgets = budgets{stranger: 2 << 20, strangers: 256 << 20, machine: 64 << 20}

const (
	// Space that output leaves free for leases, intents and images: the
	// smaller one of reserveMost and a tenth of the file system.
	reserveMost = 512 << 20

	// sweepPause is the time between two looks for files that nothing needs.
	sweepPause = 5 * time.Minute
	// sweepAge is how long a file is kept that the state does not know: its
	// chunk may be committed yet. A commit is given up after seconds.
	sweepAge = 10 * time.Minute
)

var (
	// ErrBudget says that a machine has stored what it may, it alone or with
	// the others that nobody approved. It keeps its lines, and sends them again
	// later.
	ErrBudget = errors.New("as much output is stored as machines may that are not approved: approve it, and the rest is taken")
	// ErrSpace says that what is free is kept for more important things.
	ErrSpace = errors.New("the data partition has no space left for output: what is left is kept for leases and orders")
)

// usage counts what machines have on disk.
type usage struct {
	mu        sync.Mutex
	of        map[machine.ID]used
	strangers int64 // the sum of those that nobody approved
}

type used struct {
	bytes    int64
	stranger bool
}

// set puts a machine's count in place of the one before.
func (u *usage) set(of machine.ID, now used) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if old := u.of[of]; old.stranger {
		u.strangers -= old.bytes
	}
	delete(u.of, of)
	if now.bytes == 0 {
		return
	}
	if now.stranger {
		u.strangers += now.bytes
	}
	u.of[of] = now
}

// get is a machine's count; not ok: it was not counted yet.
func (u *usage) get(of machine.ID) (bytes int64, ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	c, ok := u.of[of]
	return c.bytes, ok
}

// others is what the strangers but this machine have.
func (u *usage) others(of machine.ID) int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	if c := u.of[of]; c.stranger {
		return u.strangers - c.bytes
	}
	return u.strangers
}

// room makes room for a chunk of size bytes on a stream, or says why there is
// none. The caller has the machine's turn. It returns the count with the chunk.
func (l *Log) room(of machine.ID, stream string, size int64) (used, error) {
	free, all, err := l.files.space()
	if err != nil {
		return used{}, err
	}
	if free < min(reserveMost, all/10)+uint64(size) {
		return used{}, fmt.Errorf("%w (%d MiB are free)", ErrSpace, free>>20)
	}
	view := l.store.View()
	m, known := view.Machine(of)
	now := used{stranger: !known || !m.Approved()}
	if bytes, counted := l.usage.get(of); counted {
		now.bytes = bytes
	} else if now.bytes, err = l.count(of); err != nil {
		return used{}, err
	}
	size = charge(size)
	budget := l.budgets.machine
	if now.stranger {
		budget = l.budgets.stranger
	}
	if now.bytes+size > budget {
		// A quarter more than is needed, so that not each chunk comes here. A
		// stranger's older boots make room; what it sends now does not: its
		// first lines are those that tell what it is.
		dropped, err := l.drop(view, of, now.bytes+size-budget+budget/4, func(c machine.Chunk) bool {
			return !now.stranger || c.Stream != stream
		})
		now.bytes -= dropped
		l.usage.set(of, now)
		if err != nil {
			return used{}, err
		}
	}
	if now.bytes+size > budget || now.stranger && l.usage.others(of)+now.bytes+size > l.budgets.strangers {
		return used{}, ErrBudget
	}
	now.bytes += size
	return now, nil
}

// count adds up what a machine has on disk.
func (l *Log) count(of machine.ID) (bytes int64, err error) {
	files, err := l.files.list(of)
	for _, f := range files {
		bytes += f.charge
	}
	return bytes, err
}

// drop removes the files of a machine's oldest chunks, of those that may go,
// until want bytes are free, and returns how many are. The state goes on naming
// the chunks; Read says of them that they are no longer kept.
func (l *Log) drop(view state.View, of machine.ID, want int64, may func(machine.Chunk) bool) (bytes int64, err error) {
	files, err := l.files.list(of)
	if err != nil {
		return 0, err
	}
	byDigest := map[string]kept{}
	for _, f := range files {
		byDigest[f.digest] = f
	}
	// Two chunks with the same lines are one file: it stays for the younger.
	chunks := view.Chunks(of, 0, 0)
	stay := map[string]uint64{}
	for _, c := range chunks {
		stay[c.Digest] = c.Seq
	}
	for _, c := range chunks {
		f, here := byDigest[c.Digest]
		if bytes >= want || !here || c.Seq != stay[c.Digest] || !may(c) {
			continue
		}
		if err := remove(f.path); err != nil {
			return bytes, fmt.Errorf("machine %s: output: dropping the oldest: %w", of, err)
		}
		bytes += f.charge
	}
	return bytes, nil
}

// Run removes, until ctx ends, the files that nothing needs, and tells after
// each time how it is.
func (l *Log) Run(ctx context.Context, tell func(ok bool, text string)) error {
	tick := time.NewTicker(sweepPause)
	defer tick.Stop()
	for {
		if err := l.Sweep(ctx, time.Now()); err != nil && ctx.Err() == nil {
			return err
		}
		tell(l.health())
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (l *Log) health() (ok bool, text string) {
	free, all, err := l.files.space()
	switch {
	case err != nil:
		return false, err.Error()
	case free < min(reserveMost, all/10):
		return false, fmt.Sprintf("machines' output is not taken any more: %d MiB are free on the data partition, and those are kept for leases and orders", free>>20)
	}
	return true, fmt.Sprintf("machines' output is kept; %d MiB are free", free>>20)
}

// Sweep removes the files of chunks that the state does not name any more:
// dropped there, or their machine forgotten. Those younger than sweepAge stay,
// since they may be committed yet.
func (l *Log) Sweep(ctx context.Context, now time.Time) error {
	ids, err := l.files.machines()
	if err != nil {
		return fmt.Errorf("looking through machines' output: %w", err)
	}
	for _, of := range ids {
		if err := l.sweep(ctx, of, now); err != nil {
			return fmt.Errorf("machine %s: removing output that nothing needs: %w", of, err)
		}
	}
	return nil
}

// sweep is Sweep of one machine. It takes the machine's turn: a chunk that is
// written again is not removed before it is committed.
func (l *Log) sweep(ctx context.Context, of machine.ID, now time.Time) error {
	done, err := l.turn(ctx, of)
	if err != nil {
		return err
	}
	defer done()
	files, err := l.files.list(of)
	if err != nil {
		return err
	}
	view := l.store.View()
	named := map[string]bool{}
	for _, c := range view.Chunks(of, 0, 0) {
		named[c.Digest] = true
	}
	m, known := view.Machine(of)
	left := used{stranger: !known || !m.Approved()}
	for _, f := range files {
		// One from the future is of a clock that was set back since.
		age := now.Sub(f.written)
		if !named[f.digest] && (age > sweepAge || age < -sweepAge) {
			if err := remove(f.path); err != nil {
				return err
			}
			continue
		}
		left.bytes += f.charge
	}
	l.usage.set(of, left)
	if known || left.bytes > 0 {
		return nil
	}
	if err := os.Remove(filepath.Join(l.files.dir, string(of))); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Gone says in one line what stands for a chunk that is no longer kept.
func Gone(c machine.Chunk) string {
	return fmt.Sprintf("[lines %d to %d are no longer kept]", c.First, c.Last)
}
