package agent

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/kube/config"
	"github.com/rackseed/rackseed/kube/pki"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/wire"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
)

func TestEndpointConfig(t *testing.T) {
	service := netip.MustParseAddr("10.77.0.1")
	for _, test := range []struct {
		name   string
		config wire.NodeConfig
		want   string
	}{
		{"worker", wire.NodeConfig{Role: machine.RoleWorker, Address: testAddress, Service: service}, "own invalid AddrPort, service 10.77.0.1:6443, slower 0"},
		{"control plane", wire.NodeConfig{Role: machine.RoleControlPlane, Address: testAddress, Service: service, Emulated: true}, "own 10.77.0.11:6443, service 10.77.0.1:6443, slower 5"},
		{"installed without a service address", wire.NodeConfig{Role: machine.RoleWorker, Address: testAddress}, "own invalid AddrPort, service invalid AddrPort, slower 0"},
	} {
		c := endpointConfig(host{"/"}, test.config, quiet())
		got := "own " + c.Own.String() + ", service " + c.Service.String() + ", slower " + string(rune('0'+c.Slower))
		if got != test.want || c.Listen != config.NodeEndpoint {
			t.Errorf("%s: %s at %s, want %s", test.name, got, c.Listen, test.want)
		}
	}
}

func TestAPIServers(t *testing.T) {
	node := func(address string, labels map[string]string) *corev1.Node {
		return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Labels: labels},
			Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: "x"}, {Type: corev1.NodeInternalIP, Address: address}}}}
	}
	control := map[string]string{controlPlaneLabel: ""}
	got := apiServers([]*corev1.Node{
		node("10.77.0.11", control), node("10.77.0.12", map[string]string{"node-role.kubernetes.io/worker": ""}), node("10.77.0.13", control),
		node("", control), node("nonsense", control),
	})
	want := []netip.AddrPort{netip.MustParseAddrPort("10.77.0.11:6443"), netip.MustParseAddrPort("10.77.0.13:6443")}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// kubelet writes what the kubelet of a control plane goes by after kubeadm.
func (n *node) kubelet() {
	n.t.Helper()
	secrets, err := pki.New(time.Now())
	if err != nil {
		n.t.Fatal(err)
	}
	b, err := pki.Kubeconfig(secrets["pki/ca.crt"], secrets["pki/ca.key"], time.Now(),
		pki.Client{Cluster: "lab", Server: "https://10.77.0.11:6443", User: "system:node:node-1", Groups: []string{"system:nodes"}, Lifetime: time.Hour})
	if err != nil {
		n.t.Fatal(err)
	}
	// As kubelet-finalize leaves it: the certificate is a file of the kubelet's.
	c, err := clientcmd.Load(b)
	if err != nil {
		n.t.Fatal(err)
	}
	user := c.AuthInfos["system:node:node-1"]
	user.ClientCertificateData, user.ClientKeyData = nil, nil
	user.ClientCertificate, user.ClientKey = kubeletClient, kubeletClient
	if b, err = clientcmd.Write(*c); err != nil {
		n.t.Fatal(err)
	}
	n.write(kubeletConf, string(b))
}

// TestKubeletIsLedToTheEndpoint: once; what is broken is named.
func TestKubeletIsLedToTheEndpoint(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.write(doneFile, `{"reported":true}`)
	n.kubelet()
	before := n.read(kubeletConf)
	n.program("systemctl", `echo "$@" >> "$ROOT/systemctl"`)
	stop, _, joined := n.boot()
	<-joined
	file := filepath.Join(n.root, "systemctl")
	for {
		if b, err := os.ReadFile(file); err == nil && len(b) > 0 {
			break
		}
		if !pause(t.Context(), time.Millisecond) {
			t.Fatal("the kubelet was not restarted")
		}
	}
	stop()
	want := strings.Replace(before, "https://10.77.0.11:6443", "https://127.0.0.1:0", 1)
	if got := n.read(kubeletConf); got != want {
		t.Errorf("kubelet.conf is\n%s\nwant\n%s", got, want)
	}
	if info, err := os.Stat(filepath.Join(n.root, kubeletConf)); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	changed, err := host{n.root}.setKubeletServer("https://127.0.0.1:0")
	if changed || err != nil {
		t.Errorf("again: changed %v, %v", changed, err)
	}
	if got := n.read("systemctl"); got != "restart kubelet.service\n" {
		t.Errorf("systemctl %s", got)
	}
	for _, text := range []string{"", "apiVersion: v1\nkind: Config\n", "\x00"} {
		n.write(kubeletConf, text)
		if _, err := (host{n.root}).setKubeletServer("https://127.0.0.1:0"); err == nil || !strings.Contains(err.Error(), kubeletConf) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
