package events

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/wire"
)

// attempts bounds how often a run is tried that a request to another replica
// overtook.
const attempts = 4

// Store is what output needs of the state.
type Store interface {
	Propose(ctx context.Context, by string, c state.Command) (state.Result, error)
	View() state.View
}

// Log is the machines' output.
type Log struct {
	// Others are the other replicas; nil: there are none.
	Others Others

	store   Store
	copying copying
	files   *Files
	budgets budgets
	usage   usage
	// turns has requests of one machine wait for one another: a repeated
	// request beside the first would store a chunk with the same lines.
	// Machines share turns by chance; a commit is short.
	turns [64]chan struct{}
	seed  maphash.Seed
}

// New makes the log over a state and the chunks' files.
func New(store Store, files *Files) *Log {
	l := &Log{store: store, files: files, budgets: defaultBudgets, usage: usage{of: map[machine.ID]used{}}, seed: maphash.MakeSeed()}
	for i := range l.turns {
		l.turns[i] = make(chan struct{}, 1)
	}
	return l
}

// turn waits for the machine's turn; done ends it.
func (l *Log) turn(ctx context.Context, of machine.ID) (done func(), err error) {
	turn := l.turns[maphash.String(l.seed, string(of))%uint64(len(l.turns))]
	select {
	case turn <- struct{}{}:
		return func() { <-turn }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Append stores the lines of out that are new, and returns the number of the
// first line that is not committed: from there on the machine sends next. The
// chunk's bytes are on disk before its manifest is proposed.
//
// An error that wraps ErrRequest is the sender's fault; ErrBudget and ErrSpace
// say that the lines are not taken now, and may be later.
func (l *Log) Append(ctx context.Context, of machine.ID, out wire.Output) (next uint64, err error) {
	done, err := l.turn(ctx, of)
	if err != nil {
		return 0, fmt.Errorf("machine %s: output: stream %.64s: %w", of, out.Stream, err)
	}
	defer done()
	var refused *state.Refusal
	for range attempts {
		next = l.next(of, out.Stream)
		r, err := fresh(out, next)
		if err != nil {
			return 0, errors.Join(ErrRequest, err)
		}
		if len(r.text) == 0 {
			return next, nil
		}
		digest, err := l.put(of, out.Stream, r.text)
		if err != nil {
			return 0, fmt.Errorf("machine %s: output: stream %s: lines %d to %d: %w", of, out.Stream, r.first, r.last, err)
		}
		if l.Others != nil {
			if err := l.Others.Keep(ctx, of, out.Stream, r.text); err != nil {
				return 0, fmt.Errorf("machine %s: output: stream %s: lines %d to %d are on one disk only: %w", of, out.Stream, r.first, r.last, err)
			}
		}
		_, err = l.store.Propose(ctx, string(of), state.OutputStore{Chunk: machine.Chunk{
			Machine: of, Stream: out.Stream, First: r.first, Last: r.last, Digest: digest, Size: int64(len(r.text)),
		}})
		if err == nil {
			return l.next(of, out.Stream), nil
		}
		if !errors.As(err, &refused) {
			return 0, fmt.Errorf("machine %s: output: stream %s: %w", of, out.Stream, err)
		}
	}
	return 0, fmt.Errorf("machine %s: output: stream %s: %w", of, out.Stream, refused)
}

// put writes a chunk where there is room for it.
func (l *Log) put(of machine.ID, stream string, text []byte) (digest string, err error) {
	now, err := l.room(of, stream, int64(len(text)))
	if err != nil {
		return "", err
	}
	// Counted before it is tried, and for a file that was there already twice:
	// the next sweep counts again.
	l.usage.set(of, now)
	return l.files.put(of, text)
}

// ErrRequest marks errors in what a machine sent.
var ErrRequest = errors.New("the request cannot be used")

func (l *Log) next(of machine.ID, stream string) uint64 {
	return max(l.store.View().NextLine(of, stream), 1)
}

// Read returns the lines of a chunk. An error that wraps fs.ErrNotExist says
// that they are no longer kept.
func (l *Log) Read(ctx context.Context, c machine.Chunk) ([]string, error) {
	b, err := l.files.read(ctx, c)
	if errors.Is(err, fs.ErrNotExist) && l.Others != nil {
		b, err = l.Others.Chunk(ctx, c)
	}
	if err != nil {
		return nil, fmt.Errorf("machine %s: output: stream %s: lines %d to %d: %w", c.Machine, c.Stream, c.First, c.Last, err)
	}
	lines := split(b)
	if want := c.Last - c.First + 1; uint64(len(lines)) != want {
		return nil, fmt.Errorf("machine %s: output: stream %s: chunk %s has %d lines, its manifest says %d", c.Machine, c.Stream, c.Digest, len(lines), want)
	}
	return lines, nil
}

// Line is one line of a machine's output.
type Line struct {
	Stream   string `json:"stream"`
	N        uint64 `json:"n"` // its number in the stream, from 1
	Text     string `json:"text"`
	ChunkSeq uint64 `json:"chunkSeq"` // of its chunk; a reader goes on after the last one's
}

// Lines returns the lines of the chunks after afterSeq, in the order in which
// they were stored. Chunks come whole, so that a reader can resume by their
// sequence number: the last may go beyond limit. A line that was stored twice
// comes once, unless its chunks fall into two calls: N tells.
func (l *Log) Lines(ctx context.Context, v state.View, of machine.ID, afterSeq uint64, limit int) ([]Line, error) {
	var lines []Line
	last := map[string]uint64{} // by stream
	for len(lines) < limit {
		chunks := v.Chunks(of, afterSeq, 16)
		if len(chunks) == 0 {
			break
		}
		for _, c := range chunks {
			first := c.First
			texts, err := l.Read(ctx, c)
			if errors.Is(err, fs.ErrNotExist) {
				first, texts, err = c.Last, []string{Gone(c)}, nil
			}
			if err != nil {
				return nil, err
			}
			for i, text := range texts {
				if n := first + uint64(i); n > last[c.Stream] {
					lines = append(lines, Line{c.Stream, n, text, c.Seq})
				}
			}
			last[c.Stream] = max(last[c.Stream], c.Last)
			if afterSeq = c.Seq; len(lines) >= limit {
				break
			}
		}
	}
	return lines, nil
}
