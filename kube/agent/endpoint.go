package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"

	"github.com/rackseed/rackseed/kube/config"
	"github.com/rackseed/rackseed/kube/endpoint"
	"github.com/rackseed/rackseed/services/durable"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/wire"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/clientcmd"
)

// endpointConfig is what the node's endpoint of the Kubernetes API begins with:
// the service address, by which the node joins, and the node's own API server.
func endpointConfig(h host, c wire.NodeConfig, log *slog.Logger) endpoint.Config {
	e := endpoint.Config{
		Listen: config.NodeEndpoint, Node: c.Name, File: h.path(serversFile), CA: h.path(authority),
		Slower: machine.Site{Emulated: c.Emulated}.Slower(), Log: log,
	}
	if c.Service.IsValid() {
		e.Service = netip.AddrPortFrom(c.Service, config.APIPort)
	}
	if c.Role == machine.RoleControlPlane {
		e.Own = netip.AddrPortFrom(c.Address.Addr(), config.APIPort)
	}
	return e
}

// controlPlaneLabel is on the nodes of control planes. kubeadm puts it there; a
// node may not give it to itself.
const controlPlaneLabel = "node-role.kubernetes.io/control-plane"

// apiServers are those of the nodes that are control planes.
func apiServers(nodes []*corev1.Node) (list []netip.AddrPort) {
	for _, n := range nodes {
		if _, ok := n.Labels[controlPlaneLabel]; !ok {
			continue
		}
		if a := podnetNode(n).Address; a.IsValid() {
			list = append(list, netip.AddrPortFrom(a, config.APIPort))
		}
	}
	return list
}

// leadKubelet has the kubelet of a node that joined go by the node's endpoint. A
// worker's does already, by cluster-info; on a control plane kubeadm leads it to
// the node's own API server, and with that alone the node would be lost.
func (a *agent) leadKubelet(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-a.joined:
	}
	restart := false
	a.persist(ctx, "leading the kubelet to the node's own endpoint of the Kubernetes API", func() error {
		changed, err := a.host.setKubeletServer(a.endpoint.URL())
		if err != nil {
			return err
		}
		restart = restart || changed
		if !restart {
			return nil
		}
		return a.systemctl(ctx, "restart")
	})
}

// setKubeletServer puts another server into the kubelet's kubeconfig, which it
// reads when it starts.
func (h host) setKubeletServer(url string) (changed bool, err error) {
	b, err := os.ReadFile(h.path(kubeletConf))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // somebody takes the node apart
	}
	if err != nil {
		return false, err
	}
	b, changed, err = withServer(b, url)
	if err != nil {
		return false, fmt.Errorf("%s: %w", kubeletConf, err)
	}
	if !changed {
		return false, nil
	}
	return true, durable.WriteFile(h.path(kubeletConf), b, 0o600)
}

// withServer puts another server into a kubeconfig.
func withServer(kubeconfig []byte, url string) (b []byte, changed bool, err error) {
	c, err := clientcmd.Load(kubeconfig)
	if err != nil {
		return nil, false, err
	}
	current := c.Contexts[c.CurrentContext]
	if current == nil || c.Clusters[current.Cluster] == nil {
		return nil, false, errors.New("no current context, or none of its cluster")
	}
	cluster := c.Clusters[current.Cluster]
	if cluster.Server == url {
		return kubeconfig, false, nil
	}
	cluster.Server = url
	b, err = clientcmd.Write(*c)
	return b, true, err
}
