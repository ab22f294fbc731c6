//go:build full

package scenario

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/api"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/vm-test/rack"
)

// A site of three servers, one of which is the appliance: the boot service moves onto
// one of the two others by itself, as the site file says; the appliance's machine,
// restarted without its stick, netboots from the cluster, is approved, and is the
// last node. Then one replica becomes three, on all of them.
func TestLastMachine(t *testing.T) {
	r, p := room(t, rack.Config{Machines: 2, Approve: true, LastNode: true, Site: "handoff: auto\n"})
	console := open(t, r)
	powerOn(t, r, 1, 2)
	follow(t, r, console, 2)
	k := administrator(t, r, p, console)
	movesIn(t, r, console, k, 1)

	if err := r.RestartWithoutStick(t.Context()); err != nil {
		t.Fatal(err)
	}
	last := machineOf(t, console, 0)
	eventually(t, 15*time.Minute, "the appliance's machine waits for approval", func() error {
		return console.Call(t.Context(), http.MethodPost, "/api/machines/"+string(last.ID)+"/approve", nil, struct{}{}, nil)
	})
	follow(t, r, console, 3)

	var h api.Handoff
	if err := console.Call(t.Context(), http.MethodGet, "/api/handoff", nil, nil, &h); err != nil {
		t.Fatal(err)
	}
	var more []string
	for _, n := range h.Nodes {
		if n.Why == "" {
			more = append(more, n.Name)
		}
	}
	startHandoff(t, console, more...)
	eventually(t, 15*time.Minute, "three nodes carry the boot service", func() error {
		err := console.Call(t.Context(), http.MethodGet, "/api/handoff", nil, nil, &h)
		if err == nil && (h.Plan.Step != machine.HandoffDone || len(h.Replicas) != 3 || slices.ContainsFunc(h.Replicas, func(x api.Replica) bool { return !x.Voter })) {
			err = fmt.Errorf("%s: %+v", h.Plan.Step, h.Replicas)
		}
		return err
	})
}
