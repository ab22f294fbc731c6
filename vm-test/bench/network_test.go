package bench

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// All begin before any ends, and the last one's end counts.
func TestAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		waits := map[string]time.Duration{"a": time.Second, "b": 3 * time.Second, "c": 2 * time.Second}
		var mu sync.Mutex
		var seen []string
		took, err := atOnce(t.Context(), time.Minute, []string{"a", "b", "c"}, func(_ context.Context, client string) error {
			time.Sleep(waits[client])
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, client)
			return nil
		})
		if err != nil || took != 3*time.Second || !slices.Equal(seen, []string{"a", "c", "b"}) {
			t.Errorf("took %v, %v, ended %v", took, err, seen)
		}
	})
}

func TestAtOnceEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("it broke")
		_, err := atOnce(t.Context(), time.Minute, []string{"a", "b"}, func(ctx context.Context, client string) error {
			if client == "b" {
				return broken
			}
			<-ctx.Done()
			return context.Cause(ctx)
		})
		if !errors.Is(err, broken) || !strings.Contains(err.Error(), "client b") {
			t.Errorf("one that fails ends the others: %v", err)
		}
		_, err = atOnce(t.Context(), time.Minute, []string{"a"}, func(ctx context.Context, _ string) error {
			<-ctx.Done()
			return context.Cause(ctx)
		})
		if err == nil || !strings.Contains(err.Error(), "not within 1m") {
			t.Errorf("one that hangs: %v", err)
		}
	})
}
