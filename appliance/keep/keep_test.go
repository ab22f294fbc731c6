package keep

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
	"testing"
	"testing/synctest"
	"time"
)

// The pauses between starts grow, and begin anew after a long run.
func TestKeepBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runs := []time.Duration{0, 0, 0, 0, 0, 0, 0, 2 * time.Minute, 0}
		var starts []time.Duration
		begun := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		k := &Keeper{Name: "p", Log: slog.New(slog.DiscardHandler)}
		k.Run = func(ctx context.Context) error {
			starts = append(starts, time.Since(begun))
			if len(starts) == len(runs) {
				cancel()
				return ctx.Err()
			}
			time.Sleep(runs[len(starts)-1])
			return errors.New("exit status 1")
		}
		k.Keep(ctx)
		var pauses []time.Duration
		for i := 1; i < len(starts); i++ {
			pauses = append(pauses, (starts[i] - starts[i-1] - runs[i-1]).Round(time.Second))
		}
		s := time.Second
		want := []time.Duration{s, 2 * s, 4 * s, 8 * s, 16 * s, 30 * s, 30 * s, s}
		if !reflect.DeepEqual(pauses, want) {
			t.Errorf("pauses %v, want %v", pauses, want)
		}
		if got := k.State(); got.Running || got.Restarts != len(runs)-1 {
			t.Errorf("state %+v", got)
		}
	})
}

func TestKeepStopsWhileItWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		changes := 0
		k := &Keeper{Name: "p", Log: slog.New(slog.DiscardHandler), Run: func(context.Context) error { return nil }}
		k.OnChange(func() { changes++ })
		done := make(chan struct{})
		go func() {
			k.Keep(ctx)
			close(done)
		}()
		synctest.Wait()
		if got := k.State(); got.Running || got.Restarts != 1 || got.Why != "p ended by itself" {
			t.Errorf("state %+v", got)
		}
		cancel()
		<-done
		if changes != 2 {
			t.Errorf("%d changes were told, want 2", changes)
		}
	})
}
