//go:build full

package scenario

import (
	"testing"

	"github.com/rackseed/rackseed/vm-test/rack"
)

// The boot service moves onto three nodes, one of them the control plane; the stick
// is pulled, a fourth machine netboots from the cluster, and all power is cut.
func TestThreeReplicas(t *testing.T) {
	r, p := room(t, rack.Config{Machines: 4, Approve: true})
	console := open(t, r)
	powerOn(t, r, 1, 2, 3)
	follow(t, r, console, 3)
	k := administrator(t, r, p, console)
	moveIn(t, r, console, k, 3)
	powerOn(t, r, 4)
	follow(t, r, console, 4)
	powerCut(t, r, console, 1, 2, 3, 4)
}
