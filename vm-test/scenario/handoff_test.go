//go:build vm || full

package scenario

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/api"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/vm-test/rack"
)

// moveIn moves the boot service into the cluster, to so many nodes, and pulls the
// stick.
func moveIn(t *testing.T, r *rack.Rack, console rack.Console, k kubectl, nodes int) {
	t.Helper()
	startHandoff(t, console)
	movesIn(t, r, console, k, nodes)
}

// startHandoff starts a handoff, to the nodes that are named if any are.
func startHandoff(t *testing.T, console rack.Console, names ...string) {
	t.Helper()
	if err := console.Call(t.Context(), http.MethodPost, "/api/handoff/start", nil, api.HandoffRequest{Nodes: names}, nil); err != nil {
		t.Fatal(err)
	}
}

// movesIn waits until a handoff that was started is over, and pulls the stick.
func movesIn(t *testing.T, r *rack.Rack, console rack.Console, k kubectl, nodes int) {
	t.Helper()
	start := time.Now()
	step := machine.HandoffStep("")
	var before []machine.Event // as the appliance told them last
	eventually(t, 15*time.Minute, "the appliance's screen says that it is safe to unplug", func() error {
		var h api.Handoff
		if err := console.Call(t.Context(), http.MethodGet, "/api/handoff", nil, nil, &h); err == nil && h.Plan != nil && h.Plan.Step != step {
			step = h.Plan.Step
			t.Logf("%4.0f s: handoff %s", time.Since(start).Seconds(), step)
		}
		if step == machine.HandoffAborting || step == machine.HandoffAborted {
			t.Fatalf("it was given up: %s", h.Plan.Reason)
		}
		if all, err := allEvents(t.Context(), console); err == nil {
			before = all
		}
		safe, err := r.SafeToUnplug()
		if err == nil && !safe {
			err = fmt.Errorf("the handoff is %s: %+v", step, h.Plan)
		}
		return err
	})
	t.Logf("%4.0f s: safe to unplug", time.Since(start).Seconds())
	if err := r.PullStick(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, 5*time.Minute, "the console answers at the service address", func() error {
		var h api.Handoff
		err := console.Call(t.Context(), http.MethodGet, "/api/handoff", nil, nil, &h)
		if err == nil && (len(h.Replicas) != nodes || !slices.ContainsFunc(h.Replicas, func(x api.Replica) bool { return x.Leads && x.Machine != "" })) {
			err = fmt.Errorf("replicas: %+v", h.Replicas)
		}
		return err
	})
	after := serviceEvents(t, console)
	if len(after) < len(before) || !slices.EqualFunc(before, after[:len(before)], func(a, b machine.Event) bool { return a.Seq == b.Seq && a.Text == b.Text }) {
		t.Errorf("events: %s\nwere before the stick was pulled\n%s", texts(after), texts(before))
	}
	k.until(5*time.Minute, "the boot service's pods run", func(out string) bool { return strings.Count(out, "Running") == nodes },
		"get", "pods", "-n", "rackseed", "-o", "wide")
}

// powerCut cuts all power and switches machines on again: they boot their own
// disks, the boot service comes back with them, and nothing is installed again.
func powerCut(t *testing.T, r *rack.Rack, console rack.Console, machines ...int) {
	t.Helper()
	events := serviceEvents(t, console)
	for _, i := range machines {
		if err := r.Machines[i-1].Kill(); err != nil {
			t.Fatal(err)
		}
	}
	start := time.Now()
	powerOn(t, r, machines...)
	var since []machine.Event
	eventually(t, 15*time.Minute, "all nodes are Ready after a power cut everywhere", func() error {
		var err error
		if since, err = console.Events(t.Context(), events[len(events)-1].Seq); err != nil {
			return err
		}
		ready := map[machine.ID]bool{}
		for _, e := range since {
			if e.Kind == "node.ready" {
				ready[e.Machine] = true
			}
		}
		if len(ready) < len(machines) {
			return fmt.Errorf("events since: %s", texts(since))
		}
		return nil
	})
	t.Logf("all Ready %.0f s after all power was cut", time.Since(start).Seconds())
	for _, e := range since {
		if strings.HasPrefix(e.Kind, "install.") || strings.HasPrefix(e.Kind, "session.") || strings.HasPrefix(e.Kind, "join.") {
			t.Errorf("after a power cut: %s", e.Text)
		}
	}
}

// serviceEvents are all events, whose numbers have no gap.
func serviceEvents(t *testing.T, console rack.Console) (all []machine.Event) {
	t.Helper()
	eventually(t, 5*time.Minute, "the console tells its events", func() (err error) {
		all, err = allEvents(t.Context(), console)
		return err
	})
	return all
}

func allEvents(ctx context.Context, console rack.Console) (all []machine.Event, err error) {
	for {
		page, err := console.Events(ctx, uint64(len(all)))
		if err != nil || len(page) == 0 {
			return all, err
		}
		for _, e := range page {
			if e.Seq != uint64(len(all))+1 {
				return nil, fmt.Errorf("event %d follows %d", e.Seq, len(all))
			}
			all = append(all, e)
		}
	}
}
