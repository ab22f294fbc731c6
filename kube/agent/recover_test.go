package agent

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rackseed/rackseed/kube/config"
	"github.com/rackseed/rackseed/services/keyring"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/wire"
)

// The kubelet does not see the replica's manifest while its cluster is recovered, and
// sees it again afterwards; also where it had none before. Who stops it twice, or beside
// another one, is refused, and the node agent leaves it alone meanwhile.
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
		if other, err := h.recoveryHost(); err != nil || other.Stop() == nil {
			t.Errorf("two stop it: %v", err)
		}
		if started, busy, err := h.startAbandoned(); started || !busy || err != nil || h.exists(config.ServiceManifest) {
			t.Errorf("the agent, while it is stopped: started %v, busy %v, %v", started, busy, err)
		}
		if err := node.Start(); err != nil {
			t.Error(err)
		}
		if text, err := os.ReadFile(h.path(config.ServiceManifest)); err != nil || string(text) != "pod" || h.exists(stoppedManifest) {
			t.Errorf("started: %q, %v", text, err)
		}
	}
	if err := errors.Join(os.Remove(h.path(config.ServiceManifest)), node.Stop(), node.Start()); err != nil || h.exists(config.ServiceManifest) {
		t.Errorf("a node without a replica: %v", err)
	}
}

// A recovery whose process is gone left the manifest away, in part or whole; the node
// agent, to which nobody answers, puts it back.
func TestAbandonedRecovery(t *testing.T) {
	for name, test := range map[string]struct {
		live, stopped, want string
		started             bool
	}{
		"none was stopped":                  {"pod", "", "pod", false},
		"stopped":                           {"", "pod", "pod", true},
		"cut off while it was moved":        {"pod", "pod", "pod", true},
		"the agent wrote another meanwhile": {"newer", "pod", "newer", true},
		"no replica here":                   {"", "", "", false},
	} {
		h := host{t.TempDir()}
		for file, text := range map[string]string{config.ServiceManifest: test.live, stoppedManifest: test.stopped} {
			if text != "" {
				if err := writeFile(h.path(file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
		started, busy, err := h.startAbandoned()
		if started != test.started || busy || err != nil || h.exists(stoppedManifest) {
			t.Errorf("%s: started %v, busy %v, %v", name, started, busy, err)
		}
		if text, _ := os.ReadFile(h.path(config.ServiceManifest)); string(text) != test.want {
			t.Errorf("%s: the manifest is %q", name, text)
		}
	}
}

// The agent starts it before the boot service answered at all, and the node joined.
func TestAgentStartsAbandoned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := host{t.TempDir()}
		if err := writeFile(h.path(stoppedManifest), []byte("pod"), 0o600); err != nil {
			t.Fatal(err)
		}
		held, err := state.Lock(h.path(stoppedLock))
		if err != nil {
			t.Fatal(err)
		}
		a := &agent{host: h, log: slog.New(slog.DiscardHandler), tpm: keyring.NewRelay(), joined: make(chan struct{})}
		a.output = newOutput(nil, "node", a.log)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); a.keepReplica(ctx) }()
		time.Sleep(3 * replicaLook)
		synctest.Wait()
		if h.exists(config.ServiceManifest) {
			t.Error("the replica was started while it is recovered")
		}
		if err := held.Close(); err != nil { // its process ended
			t.Fatal(err)
		}
		time.Sleep(replicaLook)
		synctest.Wait()
		if !h.exists(config.ServiceManifest) {
			t.Error("the replica stays stopped")
		}
		cancel()
		<-done
	})
}
