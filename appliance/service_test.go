package appliance

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// What needs the boot service's folder for itself waits until that has ended, and it
// does not start meanwhile.
func TestWithoutService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &appliance{running: make(chan struct{}, 1)}
		ctx, end := context.WithCancel(t.Context())
		a.endServe = end
		a.running <- struct{}{}
		ended := false
		go func() { // the boot service, which takes a while to end
			<-ctx.Done()
			time.Sleep(stopLimit - time.Second)
			ended = true
			<-a.running
		}()
		did := false
		err := a.withoutService(t.Context(), func() {
			did = true
			select {
			case a.running <- struct{}{}:
				t.Error("the boot service may start meanwhile")
			default:
			}
			if !ended {
				t.Error("the boot service still runs")
			}
		})
		if err != nil || !did {
			t.Errorf("done: %v, %v", did, err)
		}
		if len(a.running) != 0 {
			t.Error("the boot service may not start any more")
		}
	})
}

// A boot service that does not end is waited for as long as who ordered it waits.
func TestWithoutServiceGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &appliance{running: make(chan struct{}, 1)}
		a.running <- struct{}{}
		ctx, cancel := context.WithTimeout(t.Context(), 3*stopLimit)
		defer cancel()
		err := a.withoutService(ctx, func() { t.Error("it was done beside the boot service") })
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}
