package events

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"

	"github.com/rackseed/rackseed/services/machine"
)

// Others are the other replicas, which keep the same output.
type Others interface {
	// Keep has another replica write a chunk to its disk; nil also where there is
	// no other one.
	Keep(ctx context.Context, of machine.ID, stream string, text []byte) error
	// Chunk reads a chunk that another replica has; fs.ErrNotExist: none has it.
	Chunk(ctx context.Context, c machine.Chunk) ([]byte, error)
}

// Take keeps a chunk for another replica, which commits it. On return it is on the
// disk.
func (l *Log) Take(ctx context.Context, of machine.ID, stream string, text []byte) error {
	done, err := l.turn(ctx, of)
	if err != nil {
		return err
	}
	defer done()
	_, err = l.put(of, stream, text)
	return err
}

// Kept reads a chunk that is here; fs.ErrNotExist: it is not.
func (l *Log) Kept(ctx context.Context, c machine.Chunk) ([]byte, error) { return l.files.read(ctx, c) }

const (
	copyPause = 2 * time.Second
	// copyAnew is after what time everything is looked at again: also what no
	// replica had, or there was no room for.
	copyAnew = 10 * time.Minute
)

// Copies is how complete the output is that others took.
type Copies struct {
	Counted bool
	Missing int   // chunks that another replica may have, and that there is room for
	Bytes   int64 // of those
}

// copying is the state of Copy.
type copying struct {
	mu  sync.Mutex
	now Copies
}

// Copies is how complete it was when it was looked last.
func (l *Log) Copies() Copies {
	l.copying.mu.Lock()
	defer l.copying.mu.Unlock()
	return l.copying.now
}

// Copy fetches, until ctx ends, the chunks that the state names and that are not
// here, as far as there is room: a copy drops nothing.
func (l *Log) Copy(ctx context.Context, tell func(ok bool, text string)) error {
	if l.Others == nil {
		tell(true, "this replica is the only one")
		<-ctx.Done()
		return nil
	}
	anew := time.Time{}
	// Those that came not, since no replica has them or there is no room: tried anew,
	// and meanwhile nobody waits for them.
	given := map[string]bool{}
	var done map[machine.ID]uint64 // chunks up to there are here, or cannot be
	for ctx.Err() == nil {
		if time.Since(anew) > copyAnew {
			anew, done = time.Now(), map[machine.ID]uint64{}
		}
		view := l.store.View()
		changed := view.Changed("chunks")
		var wanted []machine.Chunk
		for _, m := range view.Machines() {
			some, err := l.lacks(m.ID, view.Chunks(m.ID, done[m.ID], 0))
			if err != nil {
				return err
			}
			wanted = append(wanted, some...)
		}
		waited := slices.DeleteFunc(slices.Clone(wanted), func(c machine.Chunk) bool { return given[c.Digest] })
		if len(done) == 0 { // all were looked at: those that the state names no more are forgotten
			given = map[string]bool{}
		}
		l.counted(waited)
		var failed error
		for _, c := range wanted {
			here, err := l.fetch(ctx, c)
			switch {
			case err != nil:
				failed = err
			case here:
				delete(given, c.Digest)
			default:
				given[c.Digest] = true
			}
			if ctx.Err() != nil {
				break
			}
		}
		if failed == nil {
			for _, m := range view.Machines() {
				if all := view.Chunks(m.ID, done[m.ID], 0); len(all) > 0 {
					done[m.ID] = all[len(all)-1].Seq
				}
			}
			l.counted(nil)
			if len(given) == 0 {
				tell(true, "machines' output is here, too")
			} else {
				tell(true, fmt.Sprintf("machines' output is here, too, but %d pieces that no replica has any more or that there is no room for", len(given)))
			}
		} else if ctx.Err() == nil {
			tell(false, fmt.Sprintf("%d pieces of machines' output are missing: %v", len(wanted), failed))
		}
		pause := time.NewTimer(copyPause)
		select {
		case <-pause.C:
		case <-ctx.Done():
		}
		pause.Stop()
		if failed == nil {
			look := time.NewTimer(copyAnew)
			select {
			case <-changed:
			case <-look.C:
			case <-ctx.Done():
			}
			look.Stop()
		}
	}
	return nil
}

// lacks are those of a machine's chunks that are not here.
func (l *Log) lacks(of machine.ID, chunks []machine.Chunk) (list []machine.Chunk, err error) {
	if len(chunks) == 0 {
		return nil, nil
	}
	files, err := l.files.list(of)
	if err != nil {
		return nil, err
	}
	here := map[string]bool{}
	for _, f := range files {
		here[f.digest] = true
	}
	for _, c := range chunks {
		if !here[c.Digest] {
			list = append(list, c)
		}
	}
	return list, nil
}

func (l *Log) counted(wanted []machine.Chunk) {
	now := Copies{Counted: true, Missing: len(wanted)}
	for _, c := range wanted {
		now.Bytes += c.Size
	}
	l.copying.mu.Lock()
	defer l.copying.mu.Unlock()
	l.copying.now = now
}

// fetch fetches one chunk, and says whether it is here then. One that no replica has
// any more is no error, nor is one that there is no room for.
func (l *Log) fetch(ctx context.Context, c machine.Chunk) (here bool, err error) {
	text, err := l.Others.Chunk(ctx, c)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if got := digestOf(text); got != c.Digest {
		return false, fmt.Errorf("machine %s: output: other bytes came than %s: %s", c.Machine, c.Digest, got)
	}
	done, err := l.turn(ctx, c.Machine)
	if err != nil {
		return false, err
	}
	defer done()
	bytes, err := l.count(c.Machine)
	free, all, spaceErr := l.files.space()
	if err = errors.Join(err, spaceErr); err != nil {
		return false, err
	}
	if bytes+charge(c.Size) > l.budgets.machine || free < min(reserveMost, all/10)+uint64(c.Size) {
		return false, nil
	}
	m, known := l.store.View().Machine(c.Machine)
	l.usage.set(c.Machine, used{bytes: bytes + charge(c.Size), stranger: !known || !m.Approved()})
	_, err = l.files.put(c.Machine, text)
	return err == nil, err
}
