package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/rackseed/rackseed/kube/core"
	"github.com/rackseed/rackseed/kube/etcd"
	"github.com/rackseed/rackseed/kube/pki"
	"github.com/rackseed/rackseed/services/wire"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/clientcmd"
)

// passTime is how long a certificate is good that the agent signs for itself by
// a control plane's authorities.
const passTime = 10 * time.Minute

// members makes etcd's list of members and the node's data agree before a
// control plane joins: kubeadm goes on with what it added itself, and is stuck
// for ever on anything else.
func (a *agent) members(ctx context.Context, secret wire.JoinSecret) error {
	client, err := a.findEtcd(ctx, secret)
	if err != nil {
		return err
	}
	list, err := client.Members(ctx)
	if err != nil {
		return err
	}
	found, err := filepath.Glob(a.host.path(etcdData + "/*"))
	if err != nil {
		return err
	}
	plan := etcd.Before(list, etcd.PeerURL(a.config.Address.Addr()), len(found) > 0)
	if !plan.Keep {
		// The manifest is of an earlier attempt; kubeadm writes it anew.
		if err := os.RemoveAll(a.host.path(etcdManifest)); err != nil {
			return err
		}
	}
	if plan.Wipe {
		if err := a.stopEtcd(ctx); err != nil {
			return err
		}
	}
	for _, m := range plan.Remove {
		a.output.Print(fmt.Sprintf("rackseed: etcd member %s never came up, or lost its data: it is removed", m))
		if err := client.Remove(ctx, m); err != nil {
			return err
		}
	}
	if !plan.Wipe {
		return nil
	}
	a.output.Print("rackseed: " + etcdData + " is of no member of the cluster's etcd: it is emptied")
	for _, file := range found {
		if err := os.RemoveAll(file); err != nil {
			return err
		}
	}
	return nil
}

// stopEtcd stops the node's etcd, which an earlier attempt of this boot may
// have left running. The kubelet would start it again.
func (a *agent) stopEtcd(ctx context.Context) error {
	if err := a.systemctl(ctx, "stop"); err != nil {
		return err
	}
	containers, err := a.ctr(ctx, "containers", "list", "--quiet", `labels."io.kubernetes.container.name"==etcd`)
	if err != nil {
		return err
	}
	tasks, err := a.ctr(ctx, "tasks", "list", "--quiet")
	if err != nil {
		return err
	}
	for _, id := range containers {
		if !slices.Contains(tasks, id) {
			continue
		}
		if _, err := a.ctr(ctx, "tasks", "delete", "--force", id); err != nil {
			return err
		}
	}
	return nil
}

// ctr runs a containerd command on Kubernetes' containers and returns its lines.
func (a *agent) ctr(ctx context.Context, args ...string) (lines []string, err error) {
	err = a.commands.Run(ctx, func(l string) {
		if l = strings.TrimSpace(l); l != "" {
			lines = append(lines, l)
		}
	}, "ctr", append([]string{"--namespace", "k8s.io"}, args...)...)
	if err != nil {
		return nil, fmt.Errorf("containerd: ctr %s: %w: %s", strings.Join(args, " "), err, strings.Join(lines, "; "))
	}
	return lines, nil
}

// membership is etcd's list of members.
type membership interface {
	Members(context.Context) ([]etcd.Member, error)
	Remove(context.Context, etcd.Member) error
}

// etcdOfCluster finds the members of etcd by the cluster's control planes.
func (a *agent) etcdOfCluster(ctx context.Context, secret wire.JoinSecret) (membership, error) {
	pair := func(name string) (cert, key []byte, err error) {
		if cert, err = os.ReadFile(a.host.path(kubernetes + "/pki/" + name + ".crt")); err != nil {
			return nil, nil, err
		}
		key, err = os.ReadFile(a.host.path(kubernetes + "/pki/" + name + ".key"))
		return cert, key, err
	}
	who := pki.Client{Cluster: "rackseed", Server: "https://" + secret.Endpoint, User: "rackseed:" + a.config.Name, Groups: []string{pki.AdminGroup}, Lifetime: passTime}
	ca, caKey, err := pair("ca")
	if err != nil {
		return nil, err
	}
	b, err := pki.Kubeconfig(ca, caKey, time.Now(), who)
	if err != nil {
		return nil, err
	}
	endpoints, err := controlPlanes(ctx, b, a.config.Address.Addr())
	if err != nil {
		return nil, err
	}
	if ca, caKey, err = pair("etcd/ca"); err != nil {
		return nil, err
	}
	cert, key, err := pki.ClientCertificate(ca, caKey, time.Now(), who)
	if err != nil {
		return nil, fmt.Errorf("a certificate for etcd: %w", err)
	}
	pass, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, errors.New("etcd's authority on this node is no certificate: install it again")
	}
	return etcd.Client{Endpoints: endpoints, TLS: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pass}, MinVersion: tls.VersionTLS12}}, nil
}

// controlPlanes are the client URLs of etcd on the cluster's control planes but
// the node itself.
func controlPlanes(ctx context.Context, kubeconfig []byte, self netip.Addr) (urls []string, err error) {
	config, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig)
	if err != nil {
		return nil, err
	}
	config.Timeout = requestTimeout
	client, err := core.New(config, userAgent)
	if err != nil {
		return nil, err
	}
	defer client.Client.CloseIdleConnections()
	var nodes corev1.NodeList
	if err := client.Get().Resource("nodes").Param("labelSelector", controlPlaneLabel).Do(ctx).Into(&nodes); err != nil {
		return nil, fmt.Errorf("listing the control planes: %w", err)
	}
	for i := range nodes.Items {
		if n := podnetNode(&nodes.Items[i]); n.Address.IsValid() && n.Address != self {
			urls = append(urls, etcd.ClientURL(n.Address))
		}
	}
	return urls, nil
}
