//go:build full

package scenario

import (
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/build/host/notrun"
	"github.com/rackseed/rackseed/services/api"
	"github.com/rackseed/rackseed/vm-test/qemu"
	"github.com/rackseed/rackseed/vm-test/rack"
)

// The boot service moves onto three nodes, one of them the control plane; the stick
// is pulled, a fourth machine netboots from the cluster, two of three replicas lose
// their power for a while, and then all power is cut.
func TestThreeReplicas(t *testing.T) {
	workersYield := func(i int, m *qemu.Machine) { m.Yields = i > 1 }
	r, p := room(t, rack.Config{Machines: 4, Approve: true, Setup: workersYield})
	console := open(t, r)
	oneAfterTheOther(t, r, console, 3)
	k := administrator(t, r, p, console)
	moveIn(t, r, console, k, 3)
	powerOn(t, r, 4)
	follow(t, r, console, 4)
	withoutMajority(t, r, console, k)
	powerCut(t, r, console, 1, 2, 3, 4)
}

// Three control planes, joined one after the other, carry the boot service; the stick is
// pulled, and the one whose replica leads loses its power: the Kubernetes API and the
// boot service go on with two, at the same address, and it comes back by itself.
//
// Two processors emulate no three of them: etcd's members lose each other as the third
// one joins (an answer between them took 7 s, a read 30 s). With two for each they were
// not seen to.
func TestThreeControlPlanes(t *testing.T) {
	if runtime.NumCPU() < 6 && !tried().Works {
		notrun.Without(t, "KVM, or six processors")
	}
	r, p := room(t, rack.Config{Machines: 3, ControlPlanes: 3, Approve: true})
	console := open(t, r)
	oneAfterTheOther(t, r, console, 3)
	k := administrator(t, r, p, console)
	moveIn(t, r, console, k, 3)
	withoutLeader(t, r, console, k)
	powerCut(t, r, console, 1, 2, 3)
}

// oneAfterTheOther installs so many machines: together they take most of an hour on two
// processors.
func oneAfterTheOther(t *testing.T, r *rack.Rack, console rack.Console, machines int) {
	t.Helper()
	for i := 1; i <= machines; i++ {
		powerOn(t, r, i)
		follow(t, r, console, i)
	}
}

// withoutLeader switches the node off whose replica leads, and on again.
func withoutLeader(t *testing.T, r *rack.Rack, console rack.Console, k kubectl) {
	t.Helper()
	leader := func() (index int, name string, err error) {
		var h api.Handoff
		if err := console.Call(t.Context(), http.MethodGet, "/api/handoff", nil, nil, &h); err != nil {
			return 0, "", err
		}
		for _, x := range h.Replicas {
			for i := 1; x.Leads && i <= len(r.Machines); i++ {
				if machineOf(t, console, i).ID == x.Machine {
					return i, x.Name, nil
				}
			}
		}
		return 0, "", fmt.Errorf("nobody leads: %+v", h.Replicas)
	}
	var first int
	var name string
	eventually(t, 5*time.Minute, "a node's replica leads", func() (err error) {
		first, name, err = leader()
		return err
	})
	if err := r.Machines[first-1].Kill(); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	eventually(t, 5*time.Minute, "another replica leads, at the same address", func() error {
		now, _, err := leader()
		if err == nil && now == first {
			err = fmt.Errorf("%s leads still", name)
		}
		return err
	})
	t.Logf("%s is off: another replica leads after %.0f s", name, time.Since(start).Seconds())
	k.until(15*time.Minute, "Kubernetes goes on, and misses "+name, func(out string) bool { return strings.Count(out, "True") == 2 && strings.Contains(out, "Unknown") },
		"get", "nodes", "-o", `jsonpath={range .items[*]}{.status.conditions[?(@.type=="Ready")].status} {end}`)
	t.Logf("and Kubernetes knows after %.0f s", time.Since(start).Seconds())
	powerOn(t, r, first)
	k.until(15*time.Minute, "all three nodes are Ready", func(out string) bool { return strings.Count(out, "True") == 3 },
		"get", "nodes", "-o", `jsonpath={range .items[*]}{.status.conditions[?(@.type=="Ready")].status} {end}`)
	replicasAreBack(t, console, 3)
}

// replicasAreBack waits until so many replicas are voters that the leader reaches.
func replicasAreBack(t *testing.T, console rack.Console, n int) {
	t.Helper()
	eventually(t, 5*time.Minute, "the replicas are back", func() error {
		var h api.Handoff
		err := console.Call(t.Context(), http.MethodGet, "/api/handoff", nil, nil, &h)
		there := 0
		for _, x := range h.Replicas {
			if x.Voter && (x.Leads || x.Seen && x.Reachable) {
				there++
			}
		}
		if err == nil && there != n {
			err = fmt.Errorf("%d of %d are voters that are there: %+v", there, n, h.Replicas)
		}
		return err
	})
}

// withoutMajority switches two of the three nodes with replicas off, for longer than
// Kubernetes waits for a silent node (emulated 240 s): the boot service and the
// service address are gone, and a node without a replica stays Ready.
func withoutMajority(t *testing.T, r *rack.Rack, console rack.Console, k kubectl) {
	t.Helper()
	ready := func(out string) bool { return strings.HasPrefix(out, "True since ") }
	condition := []string{"get", "node", "node-4", "-o", `jsonpath={range .status.conditions[?(@.type=="Ready")]}{.status} since {.lastTransitionTime}{end}`}
	before := k.until(5*time.Minute, "node-4 is Ready", ready, condition...)
	for _, i := range []int{2, 3} {
		if err := r.Machines[i-1].Kill(); err != nil {
			t.Fatal(err)
		}
	}
	<-within(t, 8*time.Minute).Done()
	powerOn(t, r, 2, 3)
	// By the service address, which is back with the majority.
	if after := k.until(15*time.Minute, "node-4 is Ready", ready, condition...); after != before {
		t.Errorf("without the boot service node-4 did not stay Ready: %s, before %s", after, before)
	}
	k.until(15*time.Minute, "node-2 and node-3 are Ready", func(out string) bool { return strings.Count(out, "True") == 2 },
		"get", "node", "node-2", "node-3", "-o", `jsonpath={range .items[*].status.conditions[?(@.type=="Ready")]}{.status} {end}`)
	replicasAreBack(t, console, 3)
}
