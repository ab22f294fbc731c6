package replica

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rackseed/rackseed/services/api"
)

func TestSupervisorRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := newSupervisor(slog.New(slog.DiscardHandler))
		var starts []time.Duration
		begin := time.Now()
		bad := task{"bad", func(context.Context, report) error {
			starts = append(starts, time.Since(begin))
			if len(starts) == 2 {
				panic("a fault")
			}
			return errors.New("port 69 is taken")
		}}
		good := task{"good", func(ctx context.Context, r report) error {
			r(true, "serving")
			<-ctx.Done()
			return nil
		}}
		ended := make(chan struct{})
		go func() { defer close(ended); s.run(ctx, good, bad) }()

		time.Sleep(500 * time.Millisecond) // the bubble's clock
		synctest.Wait()
		h := s.list()
		if len(h) != 2 || !h[0].OK || h[0].Kind != "" || h[1].Kind != api.HealthFault || h[0].Text != "serving" || h[1].OK || !strings.Contains(h[1].Text, "port 69 is taken; it is tried again in 1s") {
			t.Errorf("health = %+v", h)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		want := []time.Duration{0, 1, 3, 7, 15, 31, 61, 91}
		if len(starts) != len(want) {
			t.Fatalf("started at %v, want %v (seconds)", starts, want)
		}
		for i := range want {
			if starts[i] != want[i]*time.Second {
				t.Errorf("start %d at %v, want %v s", i, starts[i], want[i])
			}
		}
		cancel()
		<-ended
		if h := s.list(); len(h) != 0 {
			t.Errorf("after the end: %+v", h)
		}
	})
}

// Programs tell what is not ok apart by its kind.
func TestHealthKinds(t *testing.T) {
	s := newSupervisor(slog.New(slog.DiscardHandler))
	for _, c := range []struct {
		ok   bool
		kind []api.HealthKind
		want api.HealthKind
	}{
		{true, nil, ""}, {true, []api.HealthKind{api.HealthSlow}, ""}, {false, nil, api.HealthFault}, {false, []api.HealthKind{api.HealthWaiting}, api.HealthWaiting},
	} {
		s.set("part", c.ok, "text", c.kind...)
		if got := s.list()[0].Kind; got != c.want {
			t.Errorf("ok %v, %v: %q, want %q", c.ok, c.kind, got, c.want)
		}
	}
}
