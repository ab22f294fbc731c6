//go:build host

package config

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/kube/pki"
	"github.com/rackseed/rackseed/services/wire"
)

// program runs one of the multi-call binary's programs; RACKSEED_KUBERNETES
// names the binary.
func program(t *testing.T, name string, args ...string) string {
	t.Helper()
	binary := os.Getenv("RACKSEED_KUBERNETES")
	if binary == "" {
		t.Fatal("RACKSEED_KUBERNETES is not set: it names the kubernetes binary of build/modules/kubernetes")
	}
	out, err := exec.CommandContext(t.Context(), binary, append([]string{name}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func write(t *testing.T, path string, b []byte) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestKubeadmAccepts(t *testing.T) {
	for _, emulated := range []bool{false, true} {
		b, err := Kubeadm(controlPlane(input(emulated)))
		if err != nil {
			t.Fatal(err)
		}
		file := write(t, filepath.Join(t.TempDir(), "kubeadm.yaml"), b)
		if out := program(t, "kubeadm", "config", "validate", "--config", file); !strings.Contains(out, "ok") || strings.Contains(out, "WARNING") {
			t.Errorf("emulated %v: kubeadm says: %s", emulated, out)
		}
		// The node image holds exactly these: nothing can be pulled.
		images := strings.Fields(program(t, "kubeadm", "config", "images", "list", "--config", file))
		slices.Sort(images)
		want := []string{
			"rackseed.local/coredns:v1.14.6", "rackseed.local/etcd:3.7.0-0",
			"rackseed.local/kube-apiserver:v1.37.2", "rackseed.local/kube-controller-manager:v1.37.2",
			"rackseed.local/kube-proxy:v1.37.2", "rackseed.local/kube-scheduler:v1.37.2", "rackseed.local/pause:3.10.2",
		}
		if !slices.Equal(images, want) {
			t.Errorf("emulated %v: kubeadm wants the images %q, the node image has %q", emulated, images, want)
		}
	}
}

// TestKubeadmAcceptsJoins has kubeadm judge what nodes join by.
func TestKubeadmAcceptsJoins(t *testing.T) {
	secret := wire.JoinSecret{Token: "abcdef.0123456789abcdef", Endpoint: "10.77.0.1:6443", CACertHashes: []string{"sha256:" + strings.Repeat("ab", 32)}}
	for _, emulated := range []bool{false, true} {
		for _, control := range []bool{false, true} {
			template, err := JoinTemplate(controlPlane(input(emulated)).Node, control)
			if err != nil {
				t.Fatal(err)
			}
			b, err := Join(template, secret)
			if err != nil {
				t.Fatal(err)
			}
			file := write(t, filepath.Join(t.TempDir(), "join.yaml"), b)
			if out := program(t, "kubeadm", "config", "validate", "--config", file); !strings.Contains(out, "ok") || strings.Contains(out, "WARNING") {
				t.Errorf("emulated %v, control plane %v: kubeadm says: %s", emulated, control, out)
			}
		}
	}
}

// TestKubeadmUsesOurAuthorities lets kubeadm sign its certificates and render
// its static pods with our authorities, configuration and patches in place.
// Twice, since an interrupted init is resumed.
func TestKubeadmUsesOurAuthorities(t *testing.T) {
	secrets, err := pki.New(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, emulated := range []bool{false, true} {
		dir := t.TempDir()
		certificates := filepath.Join(dir, "pki")
		for name, b := range secrets {
			write(t, filepath.Join(certificates, strings.TrimPrefix(name, pki.Prefix)), b)
		}
		c := controlPlane(input(emulated))
		b, err := Kubeadm(c)
		if err != nil {
			t.Fatal(err)
		}
		config := strings.Replace(string(b), "clusterName:", "certificatesDir: "+certificates+"\nclusterName:", 1)
		config = strings.Replace(config, PatchesDir, filepath.Join(dir, "patches"), 1)
		file := write(t, filepath.Join(dir, "kubeadm.yaml"), []byte(config))
		patches, err := Patches(c.Node)
		if err != nil {
			t.Fatal(err)
		}
		for name, b := range patches {
			write(t, filepath.Join(dir, "patches", name), b)
		}
		for range 2 {
			program(t, "kubeadm", "init", "phase", "certs", "all", "--config", file)
			expiry := program(t, "kubeadm", "certs", "check-expiration", "--config", file)
			for _, ca := range []string{"ca ", "etcd-ca ", "front-proxy-ca "} {
				if !strings.Contains(expiry, "\n"+ca) {
					t.Errorf("check-expiration does not know %s:\n%s", ca, expiry)
				}
			}
			if strings.Contains(expiry, "<invalid>") {
				t.Errorf("a certificate is not valid:\n%s", expiry)
			}
		}
		for name, b := range secrets {
			got, err := os.ReadFile(filepath.Join(certificates, strings.TrimPrefix(name, pki.Prefix)))
			if err != nil || string(got) != string(b) {
				t.Errorf("kubeadm changed %s (error %v)", name, err)
			}
		}
		rendered := filepath.Join(dir, "rendered")
		write(t, filepath.Join(rendered, "made"), nil)
		t.Setenv("KUBEADM_INIT_DRYRUN_DIR", rendered)
		program(t, "kubeadm", "init", "phase", "control-plane", "all", "--config", file, "--dry-run")
		program(t, "kubeadm", "init", "phase", "etcd", "local", "--config", file, "--dry-run")
		for name, want := range map[string]map[bool][]string{
			"kube-apiserver":          {false: {"- --bind-address=10.77.0.11"}, true: {"- --bind-address=10.77.0.11", "failureThreshold: 360", "name: GOGC"}},
			"kube-controller-manager": {false: {"- --allocate-node-cidrs=true", "- --cluster-cidr=10.244.0.0/16"}, true: {"- --leader-elect=true", "- --leader-elect-lease-duration=45s", "*,bootstrapsigner"}},
			"kube-scheduler":          {false: {"- --leader-elect=true"}, true: {"- --leader-elect=true"}},
			"etcd":                    {false: {"image: rackseed.local/etcd:3.7.0-0"}, true: {"- --election-timeout=10000"}},
		} {
			b, err := os.ReadFile(filepath.Join(rendered, name+".yaml"))
			if err != nil {
				t.Fatal(err)
			}
			for _, line := range want[emulated] {
				if !strings.Contains(string(b), line) {
					t.Errorf("emulated %v: %s has no %q:\n%s", emulated, name, line, b)
				}
			}
			if !emulated && strings.Contains(string(b), "GOGC") {
				t.Errorf("%s of a real machine has settings for emulated ones:\n%s", name, b)
			}
		}
	}
}

// TestKubeadmNamesTheNodesEndpoint has the real kubeadm write whom everybody goes
// by: the node's endpoint, and on a control plane its own API server. cluster-info
// is a copy of admin.conf's, and what a worker's kubelet goes by is a copy of that.
func TestKubeadmNamesTheNodesEndpoint(t *testing.T) {
	secrets, err := pki.New(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certificates := filepath.Join(dir, "pki")
	for name, b := range secrets {
		write(t, filepath.Join(certificates, strings.TrimPrefix(name, pki.Prefix)), b)
	}
	c := controlPlane(input(false))
	b, err := Kubeadm(c)
	if err != nil {
		t.Fatal(err)
	}
	patches, err := Patches(c.Node)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range patches {
		write(t, filepath.Join(dir, "patches", name), b)
	}
	config := strings.Replace(string(b), "clusterName:", "certificatesDir: "+certificates+"\nclusterName:", 1)
	config = strings.Replace(config, PatchesDir, filepath.Join(dir, "patches"), 1)
	file := write(t, filepath.Join(dir, "kubeadm.yaml"), []byte(config))
	program(t, "kubeadm", "init", "phase", "certs", "all", "--config", file)
	program(t, "kubeadm", "init", "phase", "kubeconfig", "all", "--config", file, "--kubeconfig-dir", dir)
	node, local := "server: https://"+NodeEndpoint+"\n", "server: https://10.77.0.11:6443\n"
	for name, want := range map[string]string{
		"admin.conf": node, "super-admin.conf": node,
		"kubelet.conf": local, "controller-manager.conf": local, "scheduler.conf": local,
	} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !strings.Contains(string(b), want) {
			t.Errorf("%s (error %v) does not say %q:\n%s", name, err, want, b)
		}
	}
	proxy := program(t, "kubeadm", "init", "phase", "addon", "kube-proxy", "--config", file,
		"--kubeconfig", filepath.Join(dir, "admin.conf"), "--print-manifest")
	if !strings.Contains(proxy, node) || !strings.Contains(proxy, "hostNetwork: true") {
		t.Errorf("kube-proxy is told:\n%s", proxy)
	}
	// Clients know the API server by the address that they connect with.
	block, err := os.ReadFile(filepath.Join(certificates, "apiserver.crt"))
	if err != nil {
		t.Fatal(err)
	}
	der, _ := pem.Decode(block)
	certificate, err := x509.ParseCertificate(der.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"127.0.0.1", "10.77.0.11", "10.77.0.1"} {
		if err := certificate.VerifyHostname(name); err != nil {
			t.Error(err)
		}
	}
}
