package report

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rackseed/rackseed/services/wire"
)

func TestReporter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var got []string
		release := make(chan struct{})
		r := New()
		go r.Run(ctx, func(_ context.Context, w wire.Report) error {
			<-release
			got = append(got, fmt.Sprintf("%d %s %s %d", w.Number, w.Step, w.Status, w.Done))
			if w.Step == "bad" {
				return errors.New("409")
			}
			return nil
		}, slog.New(slog.DiscardHandler))
		r.Add(wire.Report{Step: "image", Status: wire.StepStarted})
		synctest.Wait() // it is being sent
		for i := range int64(10) {
			r.Add(wire.Report{Step: "image", Status: wire.StepProgress, Done: i})
			time.Sleep(time.Second) // virtual time
		}
		r.Add(wire.Report{Step: "image", Status: wire.StepDone})
		r.Add(wire.Report{Step: "bad", Status: wire.StepStarted})
		close(release)
		if err := r.Flush(ctx); err == nil || !strings.Contains(err.Error(), "report 3 (bad started)") {
			t.Errorf("a refusal: %v", err)
		}
		if want := "1 image started 0, 2 image done 0, 3 bad started 0"; strings.Join(got, ", ") != want {
			t.Errorf("%s\nwant %s", strings.Join(got, ", "), want)
		}
		if err := r.Flush(ctx); err != nil {
			t.Errorf("a refusal is told once: %v", err)
		}
	})
}

func TestProgressIsRare(t *testing.T) {
	now := time.Unix(1000, 0)
	r := New()
	r.now = func() time.Time { return now }
	sent := 0
	for range 100 { // 10 s
		r.Add(wire.Report{Status: wire.StepProgress})
		if _, ok := r.head(); ok {
			sent++
			r.sent(nil)
		}
		now = now.Add(100 * time.Millisecond)
	}
	if sent != 5 {
		t.Errorf("%d reports in 10 s", sent)
	}
}

func TestFlushEndsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(context.Background())
	r := New()
	r.Add(wire.Report{Status: wire.StepDone})
	cancel(errors.New("revoked"))
	if err := r.Flush(ctx); err == nil || !strings.Contains(err.Error(), "1 reports were not acknowledged: revoked") {
		t.Errorf("%v", err)
	}
}
