package replica

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/rackseed/rackseed/services/keyring"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/statetest"
	"github.com/rackseed/rackseed/services/wire"
)

// TestAPIServers: connections go to the control plane that starts the cluster,
// and to those that have joined: none to one that is joining, and none to one
// whose cluster was abandoned.
func TestAPIServers(t *testing.T) {
	s := statetest.Open(t)
	s.Begin(nil, statetest.Site())
	s.Image()
	image, _ := s.View().Image("node")
	install := func(n int, role machine.Role) machine.ID {
		id := s.Waiting(n)
		m, _ := s.View().Machine(id)
		seed := sha256.Sum256([]byte(id))
		s.Must(state.MachineApprove{
			Machine: id, Session: m.Session.ID, Intent: fmt.Sprint("i-", n), Bootstrap: fmt.Sprint("b-", n), Name: fmt.Sprint("node-", n), Image: image.Digest,
			Profile: machine.Profile{Name: string(role), Role: role}, Address: netip.AddrFrom4([4]byte{192, 0, 2, byte(20 + n)}), NodeKey: seed[:],
		})
		s.Installed(id)
		return id
	}
	want := func(when string, servers ...string) {
		t.Helper()
		if got := apiServers(s.View()); !slices.Equal(got, servers) {
			t.Errorf("%s: %q, want %q", when, got, servers)
		}
	}
	first := install(1, machine.RoleControlPlane)
	second, worker := install(2, machine.RoleControlPlane), install(3, machine.RoleWorker)
	want("installed")
	s.Must(state.BootstrapClaim{Machine: first})
	want("kubeadm init runs", "192.0.2.21:6443")
	s.Node(first, 1, wire.NodeJoined)
	for _, id := range []machine.ID{second, worker} {
		s.Must(state.JoinClaim{Machine: id, Intent: "j-" + string(id)})
	}
	want("others join", "192.0.2.21:6443")
	s.Node(worker, 1, wire.NodeJoined)
	s.Node(second, 1, wire.NodeJoined)
	want("they have joined", "192.0.2.21:6443", "192.0.2.22:6443")
	for _, id := range []machine.ID{second, worker} {
		s.Must(state.MachineForget{Machine: id})
	}
	s.Must(state.BootstrapAbandon{Intent: "b-1", Reason: "test", Secrets: map[string]keyring.Sealed{"pki/ca.key": statetest.Seal("pki/ca.key", []byte("new"))}})
	want("abandoned")
}
