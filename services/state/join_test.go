package state

import (
	"fmt"
	"strings"
	"testing"

	"github.com/rackseed/rackseed/services/keyring"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/wire"
)

// installed brings machine n to where its installed system has reported, as a
// worker or a control plane.
func (w *world) installed(n int, role machine.Role) {
	w.t.Helper()
	w.waiting(n)
	w.must(with(approval(n), func(x *MachineApprove) { x.Profile = machine.Profile{Name: string(role), Role: role} }))
	w.must(claim(n))
	w.must(nodeReport(n, fmt.Sprintf("boot-%d", n), 1, wire.NodeBooted))
}

// started is a cluster that machine 1 started.
func started(t *testing.T) *world {
	w := newWorld(t)
	w.installed(1, machine.RoleControlPlane)
	w.must(BootstrapClaim{Machine: machineID(1)})
	w.must(nodeReport(1, "boot-1", 2, wire.NodeJoined))
	return w
}

func join(n int) JoinClaim { return JoinClaim{Machine: machineID(n), Intent: fmt.Sprintf("j-%d", n)} }

func TestJoin(t *testing.T) {
	w := newWorld(t)
	w.installed(1, machine.RoleControlPlane)
	w.installed(2, machine.RoleWorker)
	if text := w.refused(join(2)); !strings.Contains(text, "not started yet") {
		t.Error(text)
	}
	w.must(BootstrapClaim{Machine: machineID(1)})
	w.must(nodeReport(1, "boot-1", 2, wire.NodeJoined))
	if text := w.refused(join(1)); !strings.Contains(text, "started the cluster itself") {
		t.Error(text)
	}
	if text := w.refused(join(9)); !strings.Contains(text, "never approved") {
		t.Error(text)
	}
	w.must(join(2))
	equal(t, "status", w.view().JoinIntent(machineID(2)).Status, machine.IntentClaimed)
	// The token ran out, or its answer was lost: another is made.
	w.must(join(2))
	equal(t, "epoch", w.view().JoinIntent(machineID(2)).Epoch, 2)
	w.must(nodeReport(2, "boot-2", 2, wire.NodeFailed))
	equal(t, "status", w.view().JoinIntent(machineID(2)).Status, machine.IntentFailed)
	w.must(join(2))
	w.must(nodeReport(2, "boot-2", 3, wire.NodeJoined))
	equal(t, "status", w.view().JoinIntent(machineID(2)).Status, machine.IntentDone)
	checkInvariants(t, w)
}

// TestReadyStartsTheCluster: the report that it joined may be lost.
func TestReadyStartsTheCluster(t *testing.T) {
	w := newWorld(t)
	w.installed(1, machine.RoleControlPlane)
	w.installed(2, machine.RoleWorker)
	w.must(BootstrapClaim{Machine: machineID(1)})
	w.must(nodeReport(1, "boot-1", 2, wire.NodeReady))
	equal(t, "bootstrap", w.view().Bootstrap().Status, machine.IntentDone)
	w.must(join(2))
	checkInvariants(t, w)
}

// TestRevokedJoin: who was sent away is not let in by asking once more.
func TestRevokedJoin(t *testing.T) {
	w := started(t)
	w.installed(2, machine.RoleWorker)
	w.must(join(2))
	w.must(IntentRevoke{Intent: "j-2", Reason: "wrong rack"})
	if text := w.refused(join(2)); !strings.Contains(text, "its join was revoked (wrong rack): forget it") {
		t.Error(text)
	}
	equal(t, "status", w.view().JoinIntent(machineID(2)).Status, machine.IntentRevoked)
	checkInvariants(t, w)
}

// TestControlPlanesJoinOneByOne: etcd's members change one at a time.
func TestControlPlanesJoinOneByOne(t *testing.T) {
	w := started(t)
	w.installed(2, machine.RoleControlPlane)
	w.installed(3, machine.RoleControlPlane)
	w.installed(4, machine.RoleWorker)
	w.must(join(2))
	equal(t, "joining", w.view().Joining(w.now), machineID(2))
	if text := w.refused(join(3)); !strings.Contains(text, "one at a time, and node-2 is joining") {
		t.Error(text)
	}
	w.must(join(4)) // workers are no etcd members
	w.must(join(2)) // the same one again
	w.must(nodeReport(2, "boot-2", 2, wire.NodeJoined))
	w.must(join(3))
	// One that fell silent does not keep the others for ever.
	w.installed(5, machine.RoleControlPlane)
	w.now = w.now.Add(joinPatience)
	w.must(join(5))
}

func abandon(name string) BootstrapAbandon {
	return BootstrapAbandon{Intent: "b-1", Reason: "its board burnt", Secrets: map[string]keyring.Sealed{name: sealed("", "new")}}
}

// TestAbandon: a cluster whose first machine was lost begins anew with new keys,
// and the lost machine is a stranger.
func TestAbandon(t *testing.T) {
	w := newWorld(t)
	w.installed(1, machine.RoleControlPlane)
	if text := w.refused(abandon("pki/ca.key")); !strings.Contains(text, "revoke that instead") {
		t.Error(text)
	}
	w.must(BootstrapClaim{Machine: machineID(1)})
	w.installed(2, machine.RoleControlPlane)
	if text := w.refused(abandon("pki/ca.key")); !strings.Contains(text, "node-2") {
		t.Error(text)
	}
	w.must(MachineForget{Machine: machineID(2)})
	w.installed(3, machine.RoleWorker)
	for _, name := range []string{"console.key", ""} {
		c := abandon(name)
		if name == "" {
			c.Secrets = nil
		}
		w.refused(c)
	}
	w.refused(MachineForget{Machine: machineID(1)})
	w.must(abandon("pki/ca.key"))
	if _, ok := w.view().Machine(machineID(1)); ok {
		t.Error("the lost machine is still known")
	}
	if r := first[secretRow](w.view().t, tableSecrets, byID, key("pki/ca.key")); r == nil || string(r.Sealed.Value) != "new" {
		t.Errorf("secret %+v", r)
	}
	if w.view().Bootstrap() != nil {
		t.Error("the abandoned bootstrap still counts")
	}
	w.refused(BootstrapClaim{Machine: machineID(1)})
	if text := w.refused(join(3)); !strings.Contains(text, "not started yet") {
		t.Error(text)
	}
	w.installed(4, machine.RoleControlPlane)
	w.must(BootstrapClaim{Machine: machineID(4)})
	checkInvariants(t, w)
}

func TestAbandonOfALivingCluster(t *testing.T) {
	w := started(t)
	w.installed(2, machine.RoleWorker)
	w.must(join(2))
	if text := w.refused(abandon("pki/ca.key")); !strings.Contains(text, "node-2 joined the cluster") {
		t.Error(text)
	}
	w.must(MachineForget{Machine: machineID(2)})
	w.must(abandon("pki/ca.key")) // alone, it may be: its operator said so
}
