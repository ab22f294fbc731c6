package pins

import (
	"os"
	"strings"
	"testing"
)

// What is pinned here and what the nested modules really build must not drift.
func TestPinsAgreeWithModules(t *testing.T) {
	for _, c := range []struct{ module, path, version string }{
		{"kubernetes", "k8s.io/kubernetes", Kubernetes},
		{"etcd", "go.etcd.io/etcd/server/v3", Etcd},
		{"containerd", "github.com/containerd/containerd/v2", Containerd},
		{"runc", "github.com/opencontainers/runc", Runc},
		{"cni", "github.com/containernetworking/plugins", CNI},
		{"coredns", "github.com/coredns/coredns", CoreDNS},
		{"ignition", "github.com/coreos/ignition/v2", Ignition},
	} {
		b, err := os.ReadFile("../modules/" + c.module + "/go.mod")
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "require "))
			if len(f) >= 2 && f[0] == c.path && strings.HasPrefix(f[1], "v") {
				got = f[1]
			}
		}
		if got != c.version {
			t.Errorf("build/modules/%s requires %s %q, pinned is %q", c.module, c.path, got, c.version)
		}
	}
}
