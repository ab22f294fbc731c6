package rack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/rackseed/rackseed/services/api"
	"github.com/rackseed/rackseed/services/machine"
)

// API is what following the story asks of the boot service.
type API interface {
	// Events are those after a sequence number, oldest first.
	Events(ctx context.Context, after uint64) ([]machine.Event, error)
	// Machines are all that the boot service knows.
	Machines(ctx context.Context) ([]api.Machine, error)
}

// Follow tells events as they happen, each with its machine, until `want`
// machines are Ready. A failure of a machine is told, and waited for to be
// mended; ctx bounds it.
func Follow(ctx context.Context, boot API, want int, out io.Writer) error {
	start := time.Now()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var after uint64
	var phases map[machine.ID]machine.Phase
	for {
		events, err := boot.Events(ctx, after)
		var machines []api.Machine
		if err == nil { // those that the events are of
			machines, err = boot.Machines(ctx)
		}
		if err == nil {
			for _, e := range events {
				after = e.Seq
				fmt.Fprintf(out, "  %4.0f s  %-9s  %s%s\n", time.Since(start).Seconds(), who(machines, e.Machine), mark(e.Severity), e.Text)
			}
			phases = map[machine.ID]machine.Phase{}
			for _, m := range machines {
				phases[m.ID] = m.Phase
			}
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

// who names the machine of an event: by its name, else the end of its hardware
// address; "" if it is none's.
func who(machines []api.Machine, id machine.ID) string {
	for _, m := range machines {
		switch {
		case m.ID != id:
		case m.Name != "":
			return m.Name
		case len(m.MACs) > 0:
			mac := string(m.MACs[0])
			return "…" + mac[max(0, len(mac)-8):]
		}
	}
	return ""
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
