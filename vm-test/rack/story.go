package rack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/rackseed/rackseed/services/machine"
)

// API is what following the story asks of the boot service.
type API interface {
	// Events are those after a sequence number, oldest first.
	Events(ctx context.Context, after uint64) ([]machine.Event, error)
	// Phases are the machines' phases by name (or hardware address).
	Phases(ctx context.Context) (map[string]machine.Phase, error)
}

// Follow tells events as they happen until `want` machines are Ready. A
// failure of a machine is told, and waited for to be mended; ctx bounds it.
func Follow(ctx context.Context, api API, want int, out io.Writer) error {
	start := time.Now()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var after uint64
	var phases map[string]machine.Phase
	for {
		events, err := api.Events(ctx, after)
		if err == nil {
			for _, e := range events {
				after = e.Seq
				fmt.Fprintf(out, "  %4.0f s  %s%s\n", time.Since(start).Seconds(), mark(e.Severity), e.Text)
			}
			phases, err = api.Phases(ctx)
		}
		// The console is there a moment before its port is forwarded.
		if err != nil && ctx.Err() == nil && time.Since(start) > 10*time.Second {
			fmt.Fprintf(out, "  %4.0f s  the boot service: %v\n", time.Since(start).Seconds(), err)
		}
		ready := 0
		for _, phase := range phases {
			if phase == machine.PhaseReady {
				ready++
			}
		}
		if ready >= want {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), fmt.Errorf("%d of %d machines are Ready: %v", ready, want, phases))
		}
	}
}

func mark(s machine.Severity) string {
	switch s {
	case machine.Error:
		return "ERROR: "
	case machine.Warning:
		return "warning: "
	default:
		return ""
	}
}
