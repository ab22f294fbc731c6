//go:build host

package join

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/kube/config"
	"github.com/rackseed/rackseed/kube/core"
	"github.com/rackseed/rackseed/kube/endpoint"
	"github.com/rackseed/rackseed/kube/internal/control"
	"github.com/rackseed/rackseed/kube/pki"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/wire"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

const rbacPath = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"

// started is a cluster as kubeadm init leaves it, as far as those see who join:
// the API server, the controllers of joining, and what kubeadm's last phases
// make.
func started(t *testing.T) *control.Plane {
	p := control.New(t)
	p.StartAPI()
	master := p.Client("root", "system:masters")
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
		return master.Post().AbsPath(rbacPath).Body(binding).Do(ctx).Error()
	})
	init, err := config.Kubeadm(config.ControlPlane{
		Node:    config.Node{Name: "node-1", Address: netip.MustParseAddr("10.77.0.11")},
		Cluster: "lab", Service: netip.MustParseAddr("10.77.0.1"),
		PodSubnet: config.DefaultPodSubnet, ServiceSubnet: config.DefaultServiceSubnet,
	})
	if err != nil {
		t.Fatal(err)
	}
	// As on a node that joins: cluster-info leads kubeadm to the node's own
	// endpoint, which knows the service address alone.
	e := endpoint.New(endpoint.Config{
		Listen: "127.0.0.1:" + control.FreePort(t), Service: netip.MustParseAddrPort(p.Address),
		File: p.File("api-servers.json", []byte("{}")), CA: p.PKI("none.crt"), Log: slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	admin := strings.Replace(string(p.Kubeconfig("root", "system:masters")), p.Server, e.URL(), 1)
	file, adminConf := p.File("init.yaml", init), p.File("admin.conf", []byte(admin))
	// The namespaces are the API server's own, and come a moment later.
	byEndpoint := p.ClientAt(e.URL(), "root", "system:masters")
	for _, name := range []string{"kube-system", "kube-public"} {
		control.Eventually(t, "namespace "+name, func(ctx context.Context) error {
			return byEndpoint.Get().Resource("namespaces").Name(name).Do(ctx).Error()
		})
	}
	for _, phase := range []string{"upload-config kubeadm", "upload-config kubelet", "bootstrap-token"} {
		args := append([]string{"init", "phase"}, strings.Fields(phase)...)
		if _, err := control.Kubeadm(t, append(args, "--config", file, "--kubeconfig", adminConf)...); err != nil {
			t.Fatal(err)
		}
	}
	// The token that kubeadm insists on is of a minute, and not for today.
	var tokens corev1.SecretList
	if err := master.Get().Namespace(namespace).Resource("secrets").Do(t.Context()).Into(&tokens); err != nil {
		t.Fatal(err)
	}
	if len(tokens.Items) != 1 {
		t.Errorf("kubeadm init made %d tokens", len(tokens.Items))
	}
	for _, s := range tokens.Items {
		expires, err := time.Parse(time.RFC3339, string(s.Data["expiration"]))
		if err != nil || time.Until(expires) > time.Minute {
			t.Errorf("kubeadm's own token expires %v, %v", expires, err)
		}
	}
	p.StartManager("bootstrap-signer-controller", "token-cleaner-controller",
		"certificatesigningrequest-signing-controller", "certificatesigningrequest-approving-controller")
	return p
}

// lab is a started cluster with the boot service's view of it.
type lab struct {
	*control.Plane
	t       *testing.T
	view    plain
	cluster *Cluster
}

func newLab(t *testing.T) *lab {
	l := &lab{Plane: started(t), t: t, view: rack()}
	l.view.secrets = l.Secrets
	l.view.site.ServiceAddress = netip.MustParseAddr("10.77.0.1")
	l.cluster = &Cluster{Now: time.Now, servers: func(View) []string { return []string{"127.0.0.1:1", l.Address} }}
	return l
}

// secret is what the worker m-3 joins by at an epoch.
func (l *lab) secret(epoch uint64) wire.JoinSecret {
	l.t.Helper()
	l.view.joins["m-3"] = &machine.Intent{ID: "j-3", Epoch: epoch, Status: machine.IntentClaimed}
	s, err := l.cluster.secret(l.t.Context(), l.view, l.view.machines[2], *l.view.joins["m-3"])
	if err != nil {
		l.t.Fatal(err)
	}
	if s.Endpoint != "10.77.0.1:6443" || s.Intent != "j-3" || s.Epoch != epoch {
		l.t.Errorf("%+v", s)
	}
	s.Endpoint = l.Address // there is no service address here
	return s
}

// discover has the real kubeadm find the cluster and read its configuration by
// what a node joins by: all of kubeadm join that changes nothing.
func (l *lab) discover(s wire.JoinSecret) error {
	l.t.Helper()
	template, err := config.JoinTemplate(config.Node{Name: "node-3", Address: netip.MustParseAddr("10.77.0.13")}, false)
	if err != nil {
		l.t.Fatal(err)
	}
	b, err := config.Join(template, s)
	if err != nil {
		l.t.Fatal(err)
	}
	// This host is no node: nothing of it is checked.
	b = []byte(strings.Replace(string(b), "- SystemVerification", "- all", 1) + "timeouts:\n  discovery: 5s\n")
	_, err = control.Kubeadm(l.t, "join", "phase", "preflight", "--config", l.File("join.yaml", b))
	return err
}

// bearer is a client that has nothing but a token.
func (l *lab) bearer(token string) *rest.RESTClient {
	l.t.Helper()
	client, err := core.New(&rest.Config{Host: l.Server, BearerToken: token, TLSClientConfig: rest.TLSClientConfig{CAData: l.Secrets["pki/ca.crt"]}}, "test")
	if err != nil {
		l.t.Fatal(err)
	}
	return client
}

// refused waits until the API server knows nobody by a token any more; it hears
// of it a moment later.
func (l *lab) refused(s wire.JoinSecret) {
	l.t.Helper()
	control.Eventually(l.t, "the token is refused", func(ctx context.Context) error {
		err := l.bearer(s.Token).Get().Resource("nodes").Name("node-1").Do(ctx).Error()
		if apierrors.IsUnauthorized(err) {
			return nil
		}
		return fmt.Errorf("it was let in: %w", err)
	})
}

// unsigned waits until the cluster no longer shows itself to who has a token: the
// controller manager hears of it a moment later.
func (l *lab) unsigned(s wire.JoinSecret) {
	l.t.Helper()
	master := l.Client("root", "system:masters")
	id, _, _ := strings.Cut(s.Token, ".")
	control.Eventually(l.t, "the token's signature is gone", func(ctx context.Context) error {
		var info corev1.ConfigMap
		if err := master.Get().Namespace("kube-public").Resource("configmaps").Name("cluster-info").Do(ctx).Into(&info); err != nil {
			return err
		}
		if _, signed := info.Data["jws-kubeconfig-"+id]; signed {
			return errors.New("it is there")
		}
		return nil
	})
}

// bootstrap does what a kubelet does by a token: it asks for a certificate of
// its own, and gets it.
func (l *lab) bootstrap(s wire.JoinSecret, node string) *rest.RESTClient {
	l.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		l.t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "system:node:" + node, Organization: []string{"system:nodes"}},
	}, key)
	if err != nil {
		l.t.Fatal(err)
	}
	request, err := json.Marshal(map[string]any{
		"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": map[string]any{"name": node},
		"spec": map[string]any{
			"request":    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}),
			"signerName": "kubernetes.io/kube-apiserver-client-kubelet", "usages": []string{"digital signature", "client auth"},
		},
	})
	if err != nil {
		l.t.Fatal(err)
	}
	client := l.bearer(s.Token)
	const path = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
	if err := client.Post().AbsPath(path).Body(request).Do(l.t.Context()).Error(); err != nil {
		l.t.Fatal(err)
	}
	var reply struct {
		Status struct {
			Certificate []byte `json:"certificate"`
		} `json:"status"`
	}
	control.Eventually(l.t, "the certificate", func(ctx context.Context) error {
		b, err := client.Get().AbsPath(path, node).Do(ctx).Raw()
		if err == nil {
			err = json.Unmarshal(b, &reply)
		}
		if err == nil && len(reply.Status.Certificate) == 0 {
			err = errors.New("not yet")
		}
		return err
	})
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		l.t.Fatal(err)
	}
	kubelet, err := core.New(&rest.Config{Host: l.Server, TLSClientConfig: rest.TLSClientConfig{
		CAData: l.Secrets["pki/ca.crt"], CertData: reply.Status.Certificate,
		KeyData: pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}),
	}}, "test")
	if err != nil {
		l.t.Fatal(err)
	}
	return kubelet
}

func mergeLabels(ctx context.Context, client rest.Interface, node string, labels map[string]string) error {
	b, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": labels}})
	if err != nil {
		return err
	}
	return client.Patch(types.MergePatchType).Resource("nodes").Name(node).Body(b).Do(ctx).Error()
}

// TestCluster is with one cluster, since that takes seconds to start.
func TestCluster(t *testing.T) {
	l := newLab(t)
	for _, test := range []struct {
		name string
		run  func(t *testing.T, l *lab)
	}{{"join", testJoin}, {"expired token", testExpiredToken}, {"abandoned machine", testAbandonedMachine}} {
		t.Run(test.name, func(t *testing.T) {
			l.t = t
			test.run(t, l)
		})
	}
}

// testJoin goes by the real programs through what a node joins by, from its
// making until it is taken back.
func testJoin(t *testing.T, l *lab) {
	first := l.secret(1)
	control.Eventually(t, "kubeadm finds the cluster", func(context.Context) error { return l.discover(first) })
	foreign := first
	foreign.CACertHashes = []string{"sha256:" + strings.Repeat("00", 32)}
	if err := l.discover(foreign); err == nil || !strings.Contains(err.Error(), "cluster CA found in cluster-info ConfigMap is invalid") {
		t.Errorf("with another authority's hash: %v", err)
	}

	// The next attempt's token takes the place of the first one's; another
	// machine's stays.
	if _, err := l.cluster.secret(t.Context(), l.view, l.view.machines[3], *l.view.joins["m-4"]); err != nil {
		t.Fatal(err)
	}
	second := l.secret(2)
	l.unsigned(first)
	if err := l.discover(first); err == nil || !strings.Contains(err.Error(), "JWS signature") {
		t.Errorf("by the token of an earlier attempt: %v", err)
	}
	l.refused(first)
	kubelet := l.bootstrap(second, "node-3")
	if err := kubelet.Post().Resource("nodes").Body(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-3"}}).Do(t.Context()).Error(); err != nil {
		t.Fatalf("the node by its own certificate: %v", err)
	}
	// A node may not say itself what it is for.
	role := map[string]string{"node-role.kubernetes.io/worker": ""}
	if err := mergeLabels(t.Context(), kubelet, "node-3", role); !apierrors.IsForbidden(err) {
		t.Errorf("a node gave itself %v: %v", role, err)
	}

	// It has joined: the boot service labels it and takes its tokens back.
	l.view.joins["m-3"].Status = machine.IntentDone
	chores := due(l.view, map[machine.ID]string{})
	unsettled, err := l.cluster.settle(t.Context(), l.view, chores)
	if err != nil || len(unsettled) != 0 {
		t.Fatalf("%v, %v", unsettled, err)
	}
	var node corev1.Node
	if err := kubelet.Get().Resource("nodes").Name("node-3").Do(t.Context()).Into(&node); err != nil {
		t.Fatal(err)
	}
	if _, ok := node.Labels["node-role.kubernetes.io/worker"]; !ok {
		t.Errorf("labels %v", node.Labels)
	}
	l.refused(second)
	if err := l.discover(second); err == nil {
		t.Error("kubeadm found the cluster by a token that was taken back")
	}
	master := l.Client("root", "system:masters")
	var tokens corev1.SecretList
	if err := master.Get().Namespace(namespace).Resource("secrets").Param("labelSelector", labelMachine).Do(t.Context()).Into(&tokens); err != nil {
		t.Fatal(err)
	}
	if len(tokens.Items) != 1 || tokens.Items[0].Labels[labelMachine] != "m-4" {
		t.Errorf("%d tokens are left: %v", len(tokens.Items), tokens.Items)
	}
	// A node that is not there yet is tried again.
	l.view.machines[2].Name = "node-9"
	if unsettled, err := l.cluster.settle(t.Context(), l.view, chores[len(chores)-1:]); err != nil {
		t.Errorf("%v, %v", unsettled, err)
	}
}

// testExpiredToken: it is of no use, and Kubernetes itself removes it.
func testExpiredToken(t *testing.T, l *lab) {
	s := l.secret(3)
	old := newToken()
	err := l.cluster.visit(t.Context(), l.view, func(ctx context.Context, client rest.Interface) error {
		return create(ctx, client, old.object(l.view.machines[2], *l.view.joins["m-3"], time.Now().Add(-time.Second)))
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Token = old.String()
	l.refused(s)
	if err := l.discover(s); err == nil {
		t.Error("kubeadm found the cluster by an expired token")
	}
	master := l.Client("root", "system:masters")
	id, _, _ := strings.Cut(s.Token, ".")
	control.Eventually(t, "its Secret is removed", func(ctx context.Context) error {
		err := master.Get().Namespace(namespace).Resource("secrets").Name(namePrefix + id).Do(ctx).Error()
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("it is there: %v", err)
	})
}

// testAbandonedMachine: one that comes back with the keys of a cluster that was
// abandoned trusts nobody of the new one, and nobody of the new one trusts it.
func testAbandonedMachine(t *testing.T, l *lab) {
	old, err := pki.New(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, who := range []pki.Client{
		{User: "system:node:node-1", Groups: []string{"system:nodes"}},
		{User: "kubernetes-admin", Groups: []string{pki.AdminGroup}},
		{User: "kubernetes-super-admin", Groups: []string{"system:masters"}},
	} {
		who.Cluster, who.Server, who.Lifetime = "lab", l.Server, time.Hour
		b, err := pki.Kubeconfig(old["pki/ca.crt"], old["pki/ca.key"], time.Now(), who)
		if err != nil {
			t.Fatal(err)
		}
		c, err := clientcmd.RESTConfigFromKubeConfig(b)
		if err != nil {
			t.Fatal(err)
		}
		ask := func(c *rest.Config) error {
			client, err := core.New(c, "test")
			if err != nil {
				t.Fatal(err)
			}
			return client.Get().Resource("nodes").Do(t.Context()).Error()
		}
		var unknown x509.UnknownAuthorityError
		if err := ask(rest.CopyConfig(c)); !errors.As(err, &unknown) {
			t.Errorf("%s of the abandoned cluster believes the new one: %v", who.User, err)
		}
		c.CAData = l.Secrets["pki/ca.crt"]
		if err := ask(c); !apierrors.IsUnauthorized(err) {
			t.Errorf("%s of the abandoned cluster is let in: %v", who.User, err)
		}
	}
}
