//go:build host

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/kube/config"
	"github.com/rackseed/rackseed/kube/endpoint"
	"github.com/rackseed/rackseed/kube/internal/control"
	"github.com/rackseed/rackseed/kube/pki"
	"github.com/rackseed/rackseed/kube/podnet"
	"github.com/rackseed/rackseed/services/wire"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
)

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
	c := control.New(t)
	stopAPI := c.StartAPI()
	master := c.Client("root", "system:masters")
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
	control.Eventually(t, "binding administrators", func(ctx context.Context) error {
		return master.Post().AbsPath("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings").Body(binding).Do(ctx).Error()
	})
	c.StartManager("node-ipam-controller")

	// The node: kubeadm has ended, the kubelet's kubeconfig is there, and the
	// administrator's as the console would make it.
	n := newNode(t)
	n.write(doneFile, `{"reported":true}`)
	find := func(name string) ([]byte, bool) { b, ok := c.Secrets[name]; return b, ok }
	admin, err := pki.Admin(find, "lab", c.Server, "ann", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	n.write(adminConf, string(admin))
	n.write(kubeletConf, string(c.Kubeconfig("system:node:node-1", "system:nodes")))
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
	// Where the service address is, is the API server.
	a.endpoint = endpoint.New(endpoint.Config{
		Listen: "127.0.0.1:" + control.FreePort(t), Service: netip.MustParseAddrPort(c.Address),
		File: a.host.path(serversFile), CA: c.PKI("ca.crt"), Log: quiet(),
	})
	n.program("systemctl", `echo "$@" > "$ROOT/systemctl"`)
	a.commands.env = []string{"ROOT=" + n.root}
	start(t, a.run)
	control.Eventually(t, "the kubelet is led to the node's endpoint", func(context.Context) error {
		_, err := os.Stat(filepath.Join(n.root, "systemctl"))
		return err
	})
	if got := n.read(kubeletConf); !strings.Contains(got, "server: "+a.endpoint.URL()+"\n") {
		t.Errorf("kubelet.conf: %s", got)
	}

	// Its pod subnet is the controller manager's word.
	kubelet := c.Client("system:node:node-1", "system:nodes")
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
	if err := post(ctx, master, "node-2", "127.0.0.12", "boot", corev1.ConditionTrue); err != nil {
		t.Fatal(err)
	}
	for found := false; !found; {
		select {
		case r := <-routes:
			found = len(r) == 1 && r[0].Via == netip.MustParseAddr("127.0.0.12") && config.DefaultPodSubnet.Contains(r[0].Pods.Addr())
		case <-ctx.Done():
			t.Fatal("no route to node-2")
		}
	}

	// One that is a control plane is a further API server, for ever. By itself the
	// node could not say so.
	label := []byte(`{"metadata":{"labels":{"` + controlPlaneLabel + `":""}}}`)
	if err := kubelet.Patch(types.MergePatchType).Resource("nodes").Name("node-1").Body(label).Do(ctx).Error(); !apierrors.IsForbidden(err) {
		t.Errorf("a node made itself a control plane: %v", err)
	}
	if err := master.Patch(types.MergePatchType).Resource("nodes").Name("node-2").Body(label).Do(ctx).Error(); err != nil {
		t.Fatal(err)
	}
	control.Eventually(t, "the list of API servers is on the disk", func(context.Context) error {
		b, err := os.ReadFile(a.host.path(serversFile))
		if err == nil && string(b) != `{"servers":["127.0.0.12:6443"]}`+"\n" {
			err = errors.New(string(b))
		}
		return err
	})

	// The API server goes away and comes back.
	stopAPI()
	c.StartAPI()
	control.Eventually(t, "the kubelet posts again", func(ctx context.Context) error {
		return post(ctx, kubelet, "node-1", "10.77.0.11", "boot-1", corev1.ConditionTrue)
	})
	n.untilEvents(wire.NodeBooted, wire.NodeReady, wire.NodeUnready, wire.NodeReady)
}
