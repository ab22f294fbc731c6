//go:build host

package agent

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/kube/internal/control"
	"github.com/rackseed/rackseed/kube/pki"
)

// TestKubeadmAfterATear: the real kubeadm stops for good at each file of its
// first two phases that a power loss left empty, and makes it again once
// removeTorn was there. It also holds kubeadmPairs and kubeadmConfigs to what
// kubeadm really writes.
func TestKubeadmAfterATear(t *testing.T) {
	h := host{t.TempDir()}
	secrets, err := pki.New(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	put := func(file string, b []byte) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(h.path(file)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(h.path(file), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, b := range secrets {
		put(kubernetes+"/pki/"+strings.TrimPrefix(name, pki.Prefix), b)
	}
	put("/kubeadm.yaml", []byte(`apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
localAPIEndpoint: {advertiseAddress: 10.77.0.11}
nodeRegistration: {name: node-1}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: v1.37.2
encryptionAlgorithm: ECDSA-P256
certificatesDir: `+h.path(kubernetes+"/pki")+"\n"))
	kubernetesBinary := control.Program(t, "RACKSEED_KUBERNETES")
	kubeadm := func() ([]byte, error) {
		out, err := exec.CommandContext(t.Context(), kubernetesBinary, "kubeadm", "init", "phase", "certs", "all", "--config", h.path("/kubeadm.yaml")).CombinedOutput()
		if err != nil {
			return out, err
		}
		return exec.CommandContext(t.Context(), kubernetesBinary, "kubeadm", "init", "phase", "kubeconfig", "all",
			"--config", h.path("/kubeadm.yaml"), "--kubeconfig-dir", h.path(kubernetes)).CombinedOutput()
	}
	files := func() []string {
		var list []string
		for _, pattern := range []string{"/*.conf", "/pki/*.crt", "/pki/*.key", "/pki/*.pub", "/pki/etcd/*"} {
			found, err := filepath.Glob(h.path(kubernetes + pattern))
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, found...)
		}
		slices.Sort(list)
		return list
	}
	clear := func(what string) int {
		removed, err := h.removeTorn(func() error { t.Errorf("%s: the kubelet was stopped", what); return nil })
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		return len(removed)
	}
	ours := files()
	if out, err := kubeadm(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if n := clear("whole"); n != 0 {
		t.Errorf("of what kubeadm wrote, %d were removed", n)
	}
	var want []string
	for _, name := range kubeadmPairs {
		want = append(want, h.path(kubernetes+"/pki/"+name+".crt"), h.path(kubernetes+"/pki/"+name+".key"))
	}
	for _, name := range kubeadmConfigs {
		want = append(want, h.path(kubernetes+"/"+name))
	}
	all := slices.Concat(ours, want)
	slices.Sort(all)
	if got := files(); !slices.Equal(got, all) {
		t.Fatalf("kubeadm's files are %q, wanted %q", got, all)
	}
	for _, file := range want {
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if clear(file) == 0 {
			t.Errorf("%s: nothing was removed", file)
		}
		if out, err := kubeadm(); err != nil {
			t.Errorf("%s: %v\n%s", file, err, out)
		}
		if got := files(); !slices.Equal(got, all) {
			t.Errorf("%s: then there are %q", file, got)
		}
	}
	// The reason for all this.
	if err := os.WriteFile(h.path(kubernetes+"/pki/apiserver.crt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := kubeadm(); err == nil || !bytes.Contains(out, []byte("apiserver")) {
		t.Errorf("kubeadm takes an empty certificate now: %v\n%s", err, out)
	}
}
