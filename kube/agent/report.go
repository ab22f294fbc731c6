package agent

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/rackseed/rackseed/services/wire"
)

// maxReports that wait for the boot service. Only a node that becomes ready and
// unready for hours without it gets there; then the oldest is let go, but for
// the one that it joined: others wait for that.
const maxReports = 64

// progress is what an agent remembers of this boot, in a file of /run: it may
// be restarted, and reports are numbered per boot.
type progress struct {
	BootID string         `json:"bootId"`
	Number uint64         `json:"number"` // the last one that was used
	Last   wire.NodeEvent `json:"last"`   // the last event that the boot service took
}

// reports sends the node's events in order, each until it is taken.
type reports struct {
	client *client
	slot   string
	file   string
	log    *slog.Logger

	mu       sync.Mutex
	progress progress
	queue    []queued
	wake     chan struct{}
}

type queued struct {
	event    wire.NodeEvent
	text     string
	progress bool          // a newer one may take its place
	taken    chan struct{} // closed when the boot service has it
}

func newReports(c *client, bootID, slot, file string, log *slog.Logger) (*reports, error) {
	r := &reports{client: c, slot: slot, file: file, log: log, wake: make(chan struct{}, 1)}
	b, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err == nil {
		// A torn file counts as none: numbers start again, and the worst is a
		// report that is taken for a repeated one.
		if e := json.Unmarshal(b, &r.progress); e != nil {
			log.Warn("what the agent remembered of this boot cannot be read", "file", file, "error", e)
		}
	}
	if r.progress.BootID != bootID {
		r.progress = progress{BootID: bootID}
	}
	return r, nil
}

// Last is the last event that the boot service took in this boot, or "".
func (r *reports) Last() wire.NodeEvent {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.progress.Last
}

// Send queues an event; the channel closes when the boot service has it.
func (r *reports) Send(event wire.NodeEvent, text string) <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.queue) >= maxReports {
		oldest := max(0, slices.IndexFunc(r.queue, func(q queued) bool { return q.event != wire.NodeJoined }))
		r.log.Warn("a report is let go", "event", r.queue[oldest].event, "text", r.queue[oldest].text)
		close(r.queue[oldest].taken)
		r.queue = slices.Delete(r.queue, oldest, oldest+1)
	}
	q := queued{event: event, text: clean(text), taken: make(chan struct{})}
	r.queue = append(r.queue, q)
	r.ring()
	return q.taken
}

// Progress queues how far something is. Of those that wait only the newest is
// kept, and none while something else does.
func (r *reports) Progress(event wire.NodeEvent, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	q := queued{event: event, text: clean(text), progress: true, taken: make(chan struct{})}
	switch n := len(r.queue); {
	case n == 0:
		r.queue = append(r.queue, q)
	case r.queue[n-1].progress:
		r.queue[n-1] = q
	default:
		return
	}
	r.ring()
}

// ring is called with the lock held.
func (r *reports) ring() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Run sends until the context ends.
func (r *reports) Run(ctx context.Context) error {
	for {
		q, number, found := r.head()
		if !found {
			select {
			case <-ctx.Done():
				return nil
			case <-r.wake:
			}
			continue
		}
		r.deliver(ctx, q, number)
		if ctx.Err() != nil {
			return nil
		}
		r.done(q)
	}
}

// head takes the first of the queue, and a number for it that no report of this
// boot ever had, also after a crash.
func (r *reports) head() (queued, uint64, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.queue) == 0 {
		return queued{}, 0, false
	}
	q := r.queue[0]
	r.queue = r.queue[1:]
	r.progress.Number++
	r.save()
	return q, r.progress.Number, true
}

func (r *reports) done(q queued) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.progress.Last = q.event
	r.save()
	close(q.taken)
}

// save is called with the lock held. Failing to remember must not stop the
// node: it is logged.
func (r *reports) save() {
	b, err := json.Marshal(r.progress)
	if err == nil {
		err = writeFile(r.file, b, 0o600)
	}
	if err != nil {
		r.log.Warn("remembering the last report", "file", r.file, "error", err)
	}
}

// deliver returns when the boot service took or refused the report, or when
// the context ended.
func (r *reports) deliver(ctx context.Context, q queued, number uint64) {
	report := wire.NodeReport{
		BootID: r.progress.BootID, Number: number, Event: q.event, Text: q.text, Slot: r.slot,
	}
	retry := backoff{first: time.Second, most: 15 * time.Second}
	for {
		err := r.client.call(ctx, http.MethodPost, wire.PathNodeReport, report, nil)
		switch {
		case err == nil, ctx.Err() != nil:
			return
		case final(err):
			r.log.Error("the boot service refused a report; it is let go", "event", q.event, "text", q.text, "error", err)
			return
		}
		r.log.Warn("reporting", "event", q.event, "error", err)
		if !retry.wait(ctx) {
			return
		}
	}
}
