//go:build host

package agent

import (
	"context"
	"encoding/json"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rackseed/rackseed/kube/config"
	"github.com/rackseed/rackseed/kube/pki"
	"github.com/rackseed/rackseed/kube/podnet"
	"github.com/rackseed/rackseed/services/wire"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
)

// control is a real control plane on loopback: etcd, kube-apiserver and the
// controller manager's node IPAM, with our authorities.
type control struct {
	t       *testing.T
	dir     string
	secrets map[string][]byte
	server  string
	api     func() (stop func())
}

func binary(t *testing.T, variable string) string {
	t.Helper()
	b := os.Getenv(variable)
	if b == "" {
		t.Fatalf("%s is not set: it names a program that build/modules makes", variable)
	}
	return b
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// spawn starts a program whose log is shown when the test fails.
func (c *control) spawn(name, program string, args ...string) (stop func()) {
	c.t.Helper()
	log, err := os.CreateTemp(c.dir, name+"-*.log")
	if err != nil {
		c.t.Fatal(err)
	}
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		if err := cmd.Process.Kill(); err != nil {
			c.t.Errorf("%s had ended by itself: %v", name, err)
		}
		<-ended
		if c.t.Failed() {
			b, err := os.ReadFile(log.Name())
			c.t.Logf("%s (error %v):\n%s", name, err, b[max(0, len(b)-4000):])
		}
	}
	c.t.Cleanup(stop)
	return stop
}

func (c *control) file(name string, b []byte) string {
	c.t.Helper()
	path := filepath.Join(c.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		c.t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		c.t.Fatal(err)
	}
	return path
}

func (c *control) kubeconfig(user string, groups ...string) []byte {
	c.t.Helper()
	b, err := pki.Kubeconfig(c.secrets["pki/ca.crt"], c.secrets["pki/ca.key"], time.Now(),
		pki.Client{Cluster: "lab", Server: c.server, User: user, Groups: groups, Lifetime: time.Hour})
	if err != nil {
		c.t.Fatal(err)
	}
	return b
}

func (c *control) client(user string, groups ...string) *rest.RESTClient {
	c.t.Helper()
	client, err := coreClient(c.file("client-"+strings.ReplaceAll(user, ":", "-"), c.kubeconfig(user, groups...)))
	if err != nil {
		c.t.Fatal(err)
	}
	return client
}

func newControl(t *testing.T) *control {
	t.Helper()
	kubernetes, etcd := binary(t, "RACKSEED_KUBERNETES"), binary(t, "RACKSEED_ETCD")
	c := &control{t: t, dir: t.TempDir()}
	var err error
	if c.secrets, err = pki.New(time.Now()); err != nil {
		t.Fatal(err)
	}
	for name, b := range c.secrets {
		c.file(name, b)
	}
	certificates := filepath.Join(c.dir, "pki")
	kubeadm, err := config.Kubeadm(config.ControlPlane{
		Cluster: "lab", Name: "node-1", Address: netip.MustParseAddr("10.77.0.11"), Service: netip.MustParseAddr("10.77.0.1"),
		PodSubnet: config.DefaultPodSubnet, ServiceSubnet: config.DefaultServiceSubnet,
	})
	if err != nil {
		t.Fatal(err)
	}
	kubeadm = []byte(strings.Replace(string(kubeadm), "clusterName:", "certificatesDir: "+certificates+"\nclusterName:", 1))
	if out, err := exec.CommandContext(t.Context(), kubernetes, "kubeadm", "init", "phase", "certs", "all",
		"--config", c.file("kubeadm.yaml", kubeadm)).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	client, peer, secure := "http://127.0.0.1:"+freePort(t), "http://127.0.0.1:"+freePort(t), freePort(t)
	c.server = "https://127.0.0.1:" + secure
	c.spawn("etcd", etcd, "--data-dir", filepath.Join(c.dir, "etcd"), "--listen-client-urls", client,
		"--advertise-client-urls", client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
		"--initial-cluster", "default="+peer, "--unsafe-no-fsync", "--log-level", "error")
	in := func(name string) string { return filepath.Join(certificates, name) }
	c.api = func() func() {
		return c.spawn("kube-apiserver", kubernetes, "kube-apiserver", "--etcd-servers", client,
			"--bind-address=127.0.0.1", "--secure-port", secure, "--endpoint-reconciler-type=none",
			"--service-cluster-ip-range=10.96.0.0/16", "--client-ca-file", in("ca.crt"),
			"--tls-cert-file", in("apiserver.crt"), "--tls-private-key-file", in("apiserver.key"),
			"--service-account-key-file", in("sa.pub"), "--service-account-signing-key-file", in("sa.key"),
			"--service-account-issuer=https://kubernetes.default.svc", "--authorization-mode=Node,RBAC",
			"--enable-admission-plugins=NodeRestriction")
	}
	return c
}

func (c *control) startManager() {
	c.t.Helper()
	c.spawn("kube-controller-manager", binary(c.t, "RACKSEED_KUBERNETES"), "kube-controller-manager",
		"--kubeconfig", c.file("manager.conf", c.kubeconfig("system:kube-controller-manager")),
		"--use-service-account-credentials", "--service-account-private-key-file", filepath.Join(c.dir, "pki/sa.key"),
		"--leader-elect=false", "--secure-port=0", "--allocate-node-cidrs", "--cluster-cidr=10.244.0.0/16",
		"--service-cluster-ip-range=10.96.0.0/16", "--controllers=node-ipam-controller")
}

// eventually tries until it succeeds; the API server is starting.
func eventually(t *testing.T, what string, try func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	retry := backoff{first: 100 * time.Millisecond, most: time.Second}
	for {
		err := try(ctx)
		if err == nil {
			return
		}
		if !retry.wait(ctx) {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

func createNode(ctx context.Context, client rest.Interface, name string) error {
	return client.Post().Resource("nodes").Body(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}).Do(ctx).Error()
}

// post is what a kubelet posts as its node's status.
func post(ctx context.Context, client rest.Interface, name, address, bootID string, ready corev1.ConditionStatus) error {
	b, err := json.Marshal(map[string]any{"status": map[string]any{
		"addresses":  []any{map[string]string{"type": "InternalIP", "address": address}},
		"nodeInfo":   map[string]string{"bootID": bootID},
		"conditions": []any{map[string]string{"type": "Ready", "status": string(ready), "reason": "Test", "message": "posted by a test"}},
	}})
	if err != nil {
		return err
	}
	return client.Patch(types.MergePatchType).Resource("nodes").Name(name).SubResource("status").Body(b).Do(ctx).Error()
}

func TestAgentWithARealAPIServer(t *testing.T) {
	c := newControl(t)
	stopAPI := c.api()
	master := c.client("root", "system:masters")
	// What kubeadm init does, so that the admin kubeconfig works.
	binding, err := json.Marshal(rbacv1.ClusterRoleBinding{
		TypeMeta:   metav1.TypeMeta{APIVersion: "rbac.authorization.k8s.io/v1", Kind: "ClusterRoleBinding"},
		ObjectMeta: metav1.ObjectMeta{Name: pki.AdminGroup},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "Group", Name: pki.AdminGroup}},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
	})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "binding administrators", func(ctx context.Context) error {
		return master.Post().AbsPath("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings").Body(binding).Do(ctx).Error()
	})
	c.startManager()

	// The node: kubeadm has ended, the kubelet's kubeconfig is there, and the
	// administrator's as the console would make it.
	n := newNode(t)
	n.write(doneFile, `{"reported":true}`)
	find := func(name string) ([]byte, bool) { b, ok := c.secrets[name]; return b, ok }
	admin, err := pki.Admin(find, "lab", c.server, "ann", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	n.write(adminConf, string(admin))
	n.write(kubeletConf, string(c.kubeconfig("system:node:node-1", "system:nodes")))
	nodeConfig, err := wire.ParseNodeConfig([]byte(n.read(wire.PathNodeConfig)))
	if err != nil {
		t.Fatal(err)
	}
	nodeConfig.PodSubnet = config.DefaultPodSubnet
	b, err := json.Marshal(nodeConfig)
	if err != nil {
		t.Fatal(err)
	}
	n.write(wire.PathNodeConfig, string(b))
	a, err := newAgent(n.root, quiet())
	if err != nil {
		t.Fatal(err)
	}
	routes := make(chan []podnet.Route, 100)
	a.commands.path = filepath.Join(n.root, "bin") + ":/usr/bin:/bin"
	a.markGood = func() error { return nil }
	a.setRoutes = func(r []podnet.Route) error { routes <- r; return nil }
	a.setMasquerade = func(context.Context, podSubnet) error { return nil }
	start(t, a.run)

	// Its pod subnet is the controller manager's word.
	kubelet := c.client("system:node:node-1", "system:nodes")
	ctx := t.Context()
	if err := createNode(ctx, kubelet, "node-1"); err != nil {
		t.Fatal(err)
	}
	n.s.until("the pod subnet", func() bool {
		return slices.ContainsFunc(n.s.lines["node-boot-1"], func(l string) bool { return strings.Contains(l, "pods are in") })
	})
	var node corev1.Node
	if err := master.Get().Resource("nodes").Name("node-1").Do(ctx).Into(&node); err != nil {
		t.Fatal(err)
	}
	want, err := podnet.CNI(netip.MustParsePrefix(node.Spec.PodCIDR))
	if err != nil || n.read(podnet.CNIPath) != string(want) {
		t.Errorf("error %v, CNI configuration %s", err, n.read(podnet.CNIPath))
	}

	// Ready of an earlier boot says nothing; then ready, and not.
	for _, p := range []struct {
		boot  string
		ready corev1.ConditionStatus
		want  []wire.NodeEvent
	}{
		{"boot-0", corev1.ConditionTrue, []wire.NodeEvent{wire.NodeBooted}},
		{"boot-1", corev1.ConditionTrue, []wire.NodeEvent{wire.NodeBooted, wire.NodeReady}},
		{"boot-1", corev1.ConditionFalse, []wire.NodeEvent{wire.NodeBooted, wire.NodeReady, wire.NodeUnready}},
	} {
		if err := post(ctx, kubelet, "node-1", "10.77.0.11", p.boot, p.ready); err != nil {
			t.Fatal(err)
		}
		n.untilEvents(p.want...)
	}

	// Another node's pods get a route, which needs the role that lets nodes
	// read nodes: the agent made it by the administrator's kubeconfig.
	if err := createNode(ctx, master, "node-2"); err != nil {
		t.Fatal(err)
	}
	if err := post(ctx, master, "node-2", "10.77.0.12", "boot", corev1.ConditionTrue); err != nil {
		t.Fatal(err)
	}
	for found := false; !found; {
		select {
		case r := <-routes:
			found = len(r) == 1 && r[0].Via == netip.MustParseAddr("10.77.0.12") && config.DefaultPodSubnet.Contains(r[0].Pods.Addr())
		case <-ctx.Done():
			t.Fatal("no route to node-2")
		}
	}

	// The API server goes away and comes back.
	stopAPI()
	c.api()
	eventually(t, "the kubelet posts again", func(ctx context.Context) error {
		return post(ctx, kubelet, "node-1", "10.77.0.11", "boot-1", corev1.ConditionTrue)
	})
	n.untilEvents(wire.NodeBooted, wire.NodeReady, wire.NodeUnready, wire.NodeReady)
}
