// Package journal keeps the installer's output until the boot service has it.
package journal

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/rackseed/rackseed/services/wire"
)

const (
	// Limit is how many lines wait at most. A service that is away for longer
	// loses the oldest, and is told how many.
	Limit     = 20000
	lineBytes = 4096
	// A batch stays well under wire.MaxBody.
	batchLines = 1000
	batchBytes = 512 << 10
	// gather is how long the first line of a batch waits for more.
	gather = 300 * time.Millisecond
)

// Journal is a bounded queue of lines. Numbers are given when lines are first
// sent, so that those of a stream have no gaps though some were dropped.
type Journal struct {
	mu      sync.Mutex
	waiting []string // not numbered yet
	dropped int      // of them, since the last batch was made
	batch   []string // sent, not acknowledged
	first   uint64   // number of the batch's first line
	limit   int
	more    chan struct{}
}

// New returns a journal of at most limit waiting lines.
func New(limit int) *Journal {
	return &Journal{limit: limit, first: 1, more: make(chan struct{}, 1)}
}

// Append adds a line; what is beyond 4 KiB of it is cut off.
func (j *Journal) Append(line string) {
	line = strings.ToValidUTF8(strings.TrimRight(line, "\r\n"), "?")
	line = strings.ReplaceAll(line, "\n", " ")
	if len(line) > lineBytes {
		line = strings.ToValidUTF8(line[:lineBytes], "") + "…"
	}
	j.mu.Lock()
	if len(j.waiting) >= j.limit {
		// A tenth at once: shifting by one for each line would be slow.
		n := max(1, j.limit/10)
		j.waiting = append(j.waiting[:0], j.waiting[n:]...)
		j.dropped += n
	}
	j.waiting = append(j.waiting, line)
	j.mu.Unlock()
	select {
	case j.more <- struct{}{}:
	default:
	}
}

// next returns the batch to send: the one in flight again, or a new one. It is
// empty when there is nothing.
func (j *Journal) next() (first uint64, lines []string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.batch) == 0 {
		if j.dropped > 0 {
			j.batch = append(j.batch, fmt.Sprintf("[%d lines were dropped: the boot service was not reached]", j.dropped))
			j.dropped = 0
		}
		size, n := 0, 0
		for n < len(j.waiting) && len(j.batch) < batchLines && size < batchBytes {
			size += len(j.waiting[n])
			j.batch = append(j.batch, j.waiting[n])
			n++
		}
		j.waiting = append([]string(nil), j.waiting[n:]...)
	}
	return j.first, append([]string(nil), j.batch...)
}

// ack notes that the service wants line next now. One that wants an earlier
// line than the batch's first has lost what it acknowledged: numbering goes on
// from where it is.
func (j *Journal) ack(next uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch end := j.first + uint64(len(j.batch)); {
	case next >= end:
		j.batch = nil
	case next > j.first:
		j.batch = j.batch[next-j.first:]
	}
	j.first = next
}

// Restart begins a new stream: numbers start at 1 again, with what was not
// acknowledged.
func (j *Journal) Restart() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.first = 1
}

// Send sends lines to a stream until ctx ends; what is not acknowledged is sent
// again. post returns the number of the line that is wanted next.
func (j *Journal) Send(ctx context.Context, stream string, post func(context.Context, wire.Output) (uint64, error), log *slog.Logger) {
	wait := time.NewTimer(0)
	defer wait.Stop()
	failed := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-wait.C:
		}
		first, lines := j.next()
		if len(lines) == 0 {
			select {
			case <-ctx.Done():
				return
			case <-j.more:
			}
			wait.Reset(gather)
			continue
		}
		next, err := post(ctx, wire.Output{Stream: stream, First: first, Lines: lines})
		if err != nil {
			if !failed { // once: the message itself becomes a line
				log.Warn("the log does not reach the boot service; it is kept and sent again", "error", err)
			}
			failed = true
			wait.Reset(2 * time.Second)
			continue
		}
		failed = false
		j.ack(next)
		wait.Reset(0)
	}
}

// Flush waits until everything is acknowledged, or ctx ends.
func (j *Journal) Flush(ctx context.Context) {
	t := time.NewTicker(50 * time.Millisecond)
	defer t.Stop()
	for !j.empty() {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

func (j *Journal) empty() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.waiting) == 0 && len(j.batch) == 0
}
