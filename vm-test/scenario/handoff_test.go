//go:build vm

package scenario

import (
	"errors"
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

// moveIn moves the boot service of a rack with two Ready nodes into its cluster,
// pulls the stick, has the third machine netboot from the cluster, and cuts all
// power.
func moveIn(t *testing.T, r *rack.Rack, console rack.Console, k kubectl) {
	start := time.Now()
	if err := console.Call(t.Context(), http.MethodPost, "/api/handoff/start", nil, struct{}{}, nil); err != nil {
		t.Fatal(err)
	}
	step := machine.HandoffStep("")
	eventually(t, 15*time.Minute, "the appliance's screen says that it is safe to unplug", func() error {
		var h api.Handoff
		if err := console.Call(t.Context(), http.MethodGet, "/api/handoff", nil, nil, &h); err == nil && h.Plan != nil && h.Plan.Step != step {
			step = h.Plan.Step
			t.Logf("%4.0f s: handoff %s", time.Since(start).Seconds(), step)
		}
		if step == machine.HandoffAborting || step == machine.HandoffAborted {
			t.Fatalf("it was given up: %s", h.Plan.Reason)
		}
		safe, err := r.SafeToUnplug()
		if err == nil && !safe {
			err = fmt.Errorf("the handoff is %s: %+v", step, h.Plan)
		}
		return err
	})
	t.Logf("%4.0f s: safe to unplug", time.Since(start).Seconds())
	before := serviceEvents(t, console)
	if err := r.PullStick(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, 5*time.Minute, "the console answers at the service address", func() error {
		var h api.Handoff
		err := console.Call(t.Context(), http.MethodGet, "/api/handoff", nil, nil, &h)
		if err == nil && (len(h.Replicas) != 1 || h.Replicas[0].Name != "node-1" || !h.Replicas[0].Leads) {
			err = fmt.Errorf("replicas: %+v", h.Replicas)
		}
		return err
	})
	after := serviceEvents(t, console)
	if len(after) < len(before) || !slices.EqualFunc(before, after[:len(before)], func(a, b machine.Event) bool { return a.Seq == b.Seq && a.Text == b.Text }) {
		t.Errorf("events: %s\nwere before the stick was pulled\n%s", texts(after), texts(before))
	}
	k.until(5*time.Minute, "the boot service's pod runs", func(out string) bool { return strings.Contains(out, "Running") },
		"get", "pods", "-n", "rackseed", "-o", "wide")

	// A machine that was never seen netboots from the cluster.
	powerOn(t, r, 3)
	joined := time.Now()
	if err := rack.Follow(within(t, 20*time.Minute), console, 3, t.Output()); err != nil {
		t.Fatalf("%v\nmachines:%s%s", err, rack.LastLines(r.Machines[0], 20), rack.LastLines(r.Machines[2], 30))
	}
	t.Logf("installed by the cluster, and Ready after %.0f s", time.Since(joined).Seconds())

	// All power is lost everywhere: they boot their own disks, the boot service
	// comes back with them, and nothing is installed again.
	events := serviceEvents(t, console)
	for _, m := range r.Machines {
		if err := m.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	start = time.Now()
	powerOn(t, r, 1, 2, 3)
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
		if len(ready) < 3 {
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
	eventually(t, 5*time.Minute, "the console tells its events", func() error {
		all = nil
		for {
			page, err := console.Events(t.Context(), uint64(len(all)))
			if err != nil {
				return err
			}
			if len(page) == 0 {
				return nil
			}
			for _, e := range page {
				if e.Seq != uint64(len(all))+1 {
					return errors.New("event " + fmt.Sprint(e.Seq) + " follows " + fmt.Sprint(len(all)))
				}
				all = append(all, e)
			}
		}
	})
	return all
}
