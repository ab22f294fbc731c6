package agent

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/kube/config"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/wire"
)

func newTestAgent(t *testing.T, n *node) *agent {
	t.Helper()
	a, err := newAgent(n.root, quiet())
	if err != nil {
		t.Fatal(err)
	}
	a.commands.path = n.root + "/bin"
	return a
}

func TestAccessFollowsTheSite(t *testing.T) {
	n := newNode(t)
	a := newTestAgent(t, n)
	if err := os.Remove(a.host.path(wire.PathAuthorizedKeys)); err != nil {
		t.Fatal(err)
	}
	for _, keys := range [][]string{{"ssh-ed25519 AAAA ann"}, {"ssh-ed25519 AAAA ann", " ssh-ed25519 BBBB bob ", "ssh-ed25519 AAAA ann"}, {}} {
		n.s.access.SSHKeys = keys
		if err := a.tendAccess(t.Context()); err != nil {
			t.Fatal(err)
		}
		text := n.read(wire.PathAuthorizedKeys)
		i, err := os.Stat(a.host.path(wire.PathAuthorizedKeys))
		if err != nil || i.Mode().Perm() != 0o600 {
			t.Fatalf("%v, %v", i, err)
		}
		for _, k := range keys {
			if strings.Count(text, strings.TrimSpace(k)+"\n") != 1 {
				t.Errorf("of %q: %s", keys, text)
			}
		}
		if len(keys) == 0 && strings.Contains(text, "ssh-") {
			t.Errorf("what was taken back stays: %s", text)
		}
	}
}

// Who answers at the boot service's address and has not the node's key is nobody: it
// gets no way in, runs nothing, ends nothing, and has no report dropped.
func TestImpostor(t *testing.T) {
	n := newNode(t)
	n.role(machine.RoleWorker)
	a := newTestAgent(t, n)
	n.s.access.SSHKeys = []string{"ssh-ed25519 AAAA eve"}
	n.s.replica = wire.ReplicaOrder{Run: true, Image: "rackseed.local/rackseed/service@sha256:00"}
	n.s.impostor.Store(true)
	if err := a.tendAccess(t.Context()); !errors.Is(err, errNotAuthentic) || strings.Contains(n.read(wire.PathAuthorizedKeys), "eve") {
		t.Errorf("keys: %v", err)
	}
	if err := a.tendReplica(t.Context(), new(time.Time)); !errors.Is(err, errNotAuthentic) || a.host.exists(config.ServiceFolder) {
		t.Errorf("a replica: %v", err)
	}
	var order wire.NodeOrder
	if err := a.client.call(t.Context(), "GET", wire.PathNodeOrder, nil, &order); !errors.Is(err, errNotAuthentic) || order.Kind != "" {
		t.Errorf("an order: %+v, %v", order, err)
	}
	_, key, err := wire.NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	var sealed wire.Sealed
	join := wire.JoinRequest{SealKey: key.PublicKey().Bytes()}
	if err := a.client.call(t.Context(), "POST", wire.PathNodeJoin, join, &sealed); !errors.Is(err, errNotAuthentic) || sealed.Ciphertext != nil {
		t.Errorf("what it joins by: %v", err)
	}
	n.s.refuse[wire.PathNodeReport] = []int{409, 409}
	err = a.client.call(t.Context(), "POST", wire.PathNodeReport, wire.NodeReport{}, nil)
	if refused := (*statusError)(nil); errors.As(err, &refused) || !errors.Is(err, errNotAuthentic) {
		t.Errorf("its refusal is the boot service's: %v", err)
	}
	n.s.impostor.Store(false)
	if err := a.client.call(t.Context(), "POST", wire.PathNodeReport, wire.NodeReport{}, nil); !final(err) {
		t.Errorf("the boot service's refusal is not final: %v", err)
	}
}
