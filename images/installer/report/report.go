// Package report tells the boot service how an install goes.
package report

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/rackseed/rackseed/services/wire"
)

// progressEvery bounds how often progress is reported.
const progressEvery = 2 * time.Second

// Reporter sends numbered reports in order, each until it is acknowledged.
// Progress that a newer report follows before it was sent is left out.
type Reporter struct {
	mu      sync.Mutex
	queue   []wire.Report
	number  uint64
	last    time.Time // of the newest progress
	refused error     // the first report that the service would not take
	wake    chan struct{}
	now     func() time.Time
}

// New returns a reporter. Numbers go on through all installs of a session.
func New() *Reporter { return &Reporter{wake: make(chan struct{}, 1), now: time.Now} }

// Add queues a report; its Number is set when it is sent.
func (r *Reporter) Add(report wire.Report) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if report.Status == wire.StepProgress {
		if r.now().Sub(r.last) < progressEvery {
			return
		}
		r.last = r.now()
	}
	if n := len(r.queue); n > 0 && r.queue[n-1].Number == 0 && r.queue[n-1].Status == wire.StepProgress {
		r.queue[n-1] = report
	} else {
		r.queue = append(r.queue, report)
	}
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// head returns the report to send, numbered from now on.
func (r *Reporter) head() (wire.Report, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.queue) == 0 {
		return wire.Report{}, false
	}
	if r.queue[0].Number == 0 {
		r.number++
		r.queue[0].Number = r.number
	}
	return r.queue[0], true
}

func (r *Reporter) sent(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil && r.refused == nil {
		r.refused = fmt.Errorf("report %d (%s %s): %w", r.queue[0].Number, r.queue[0].Step, r.queue[0].Status, err)
	}
	r.queue = r.queue[1:]
}

// Run sends until ctx ends. post sends one report and returns only when it is
// acknowledged, refused for good, or ctx has ended.
func (r *Reporter) Run(ctx context.Context, post func(context.Context, wire.Report) error, log *slog.Logger) {
	for {
		report, ok := r.head()
		if !ok {
			select {
			case <-ctx.Done():
				return
			case <-r.wake:
			}
			continue
		}
		err := post(ctx, report)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			log.Warn("a report was refused", "step", report.Step, "status", report.Status, "error", err)
		}
		r.sent(err)
	}
}

// Flush waits until every report is acknowledged, and returns the first refusal
// since the last Flush. It ends early only with ctx.
func (r *Reporter) Flush(ctx context.Context) error {
	t := time.NewTicker(20 * time.Millisecond)
	defer t.Stop()
	for {
		r.mu.Lock()
		left, refused := len(r.queue), r.refused
		if left == 0 {
			r.refused = nil
		}
		r.mu.Unlock()
		if left == 0 {
			return refused
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d reports were not acknowledged: %w", left, context.Cause(ctx))
		case <-t.C:
		}
	}
}
