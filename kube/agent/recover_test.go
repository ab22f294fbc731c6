package agent

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"testing"

	"github.com/rackseed/rackseed/kube/config"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/wire"
)

// The kubelet does not see the replica's manifest while its cluster is recovered, and
// sees it again afterwards; each also when it is done twice.
func TestRecoveryHost(t *testing.T) {
	h := host{t.TempDir()}
	if _, err := h.recoveryHost(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no node: %v", err)
	}
	b, err := json.Marshal(wire.NodeConfig{URL: "http://10.77.0.1", Machine: "m-1", Name: "node-1", Role: machine.RoleControlPlane, Address: netip.MustParsePrefix("10.77.0.11/24"), KeySeed: testSeed})
	if err == nil {
		err = errors.Join(writeFile(h.path(wire.PathNodeConfig), b, 0o600), writeFile(h.path(config.ServiceManifest), []byte("pod"), 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
	node, err := h.recoveryHost()
	if err != nil || node.Node.Machine != "m-1" || node.Node.Endpoint != "10.77.0.11:8300" || node.Data != h.path(config.ServiceFolder) {
		t.Fatalf("%+v, %v", node, err)
	}
	for range 2 {
		if err := node.Stop(); err != nil || h.exists(config.ServiceManifest) {
			t.Errorf("stopped: %v", err)
		}
	}
	for range 2 {
		if err := node.Start(); err != nil {
			t.Error(err)
		}
		if text, err := os.ReadFile(h.path(config.ServiceManifest)); err != nil || string(text) != "pod" || h.exists(stoppedManifest) {
			t.Errorf("started: %q, %v", text, err)
		}
	}
}
