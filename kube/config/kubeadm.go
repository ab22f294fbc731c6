// Package config makes what Kubernetes is configured by on a node: kubeadm's
// documents, its patches, and the settings that emulated machines need.
//
// The documents are kubeadm.k8s.io/v1beta4, kubelet.config.k8s.io/v1beta1 and
// kubeproxy.config.k8s.io/v1alpha1
// (https://kubernetes.io/docs/reference/config-api/). kubeadm's own types live
// in k8s.io/kubernetes, which is not a library; the fields that we set are
// written here, and the real kubeadm validates the result in a test.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"

	"github.com/rackseed/rackseed/services/machine"
	"sigs.k8s.io/yaml"
)

// What the node image holds, and where programs find it.
const (
	KubernetesVersion = "v1.37.2"
	// ImageRepository prefixes the container images in the node image.
	ImageRepository = "rackseed.local"
	// APIPort of every API server and of the service address.
	APIPort = 6443
	// NodeEndpoint is where each node has its own forwarder to API servers
	// (kube/endpoint). It is what kubeadm calls the control plane's endpoint, and
	// so what it writes into admin.conf, cluster-info, from which the kubelets of
	// workers have it, and kube-proxy's configuration. Its port is not APIPort:
	// kubeadm's preflight checks want that one free everywhere.
	NodeEndpoint = "127.0.0.1:6444"

	// KubeadmPath is what kubeadm init takes, JoinPath what kubeadm join's
	// configuration is made from: all of it but the secret.
	KubeadmPath  = "/etc/rackseed/kubeadm.yaml"
	JoinPath     = "/etc/rackseed/kubeadm-join.yaml"
	PatchesDir   = "/etc/rackseed/patches"
	criSocket    = "unix:///run/containerd/containerd.sock"
	volumePlugin = "/var/lib/kubelet/volumeplugins"
)

// Default subnets, where the site file names none.
var (
	DefaultPodSubnet     = netip.MustParsePrefix("10.244.0.0/16")
	DefaultServiceSubnet = netip.MustParsePrefix("10.96.0.0/16")
)

// Node is what kubeadm must know of any node.
type Node struct {
	Name     string     // node name
	Address  netip.Addr // the node's own
	Labels   map[string]string
	Taints   []string // key=value:effect; none: it runs pods
	Emulated bool
}

// ControlPlane is what the first control plane's kubeadm configuration is made
// from.
type ControlPlane struct {
	Node
	Cluster       string
	Service       netip.Addr // the service address
	PodSubnet     netip.Prefix
	ServiceSubnet netip.Prefix
	ExtraSANs     []string
}

// Subnets gives the site's pod and service subnets, or the defaults.
func Subnets(c machine.SiteCluster) (pods, services netip.Prefix) {
	pods, services = c.PodSubnet, c.ServiceSubnet
	if !pods.IsValid() {
		pods = DefaultPodSubnet
	}
	if !services.IsValid() {
		services = DefaultServiceSubnet
	}
	return pods, services
}

// Kubeadm renders InitConfiguration, ClusterConfiguration,
// KubeletConfiguration and KubeProxyConfiguration as one YAML stream. The same
// input gives the same bytes.
func Kubeadm(c ControlPlane) ([]byte, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	registration, err := c.registration()
	if err != nil {
		return nil, err
	}
	init := initConfiguration{
		typeMeta: typeMeta{"kubeadm.k8s.io/v1beta4", "InitConfiguration"},
		// kubeadm makes one in any case, without this for a day. Nobody joins
		// by it: each join has its own.
		BootstrapTokens:  []bootstrapToken{{TTL: "1m0s", Description: "made by kubeadm init, used by nobody"}},
		LocalAPIEndpoint: endpoint{c.Address.String(), APIPort},
		NodeRegistration: registration,
		Patches:          patches{PatchesDir},
	}
	cluster := clusterConfiguration{
		typeMeta:             typeMeta{"kubeadm.k8s.io/v1beta4", "ClusterConfiguration"},
		ClusterName:          c.Cluster,
		KubernetesVersion:    KubernetesVersion,
		ImageRepository:      ImageRepository,
		EncryptionAlgorithm:  "ECDSA-P256",
		ControlPlaneEndpoint: NodeEndpoint,
		Networking: networking{
			PodSubnet:     c.PodSubnet.String(),
			ServiceSubnet: c.ServiceSubnet.String(),
			DNSDomain:     "cluster.local",
		},
		APIServer: apiServer{CertSANs: append([]string{
			c.Service.String(), c.Address.String(), "127.0.0.1", "localhost"}, c.ExtraSANs...)},
	}
	kubelet := kubeletConfiguration{
		typeMeta:           typeMeta{"kubelet.config.k8s.io/v1beta1", "KubeletConfiguration"},
		CgroupDriver:       "systemd",
		ResolvConf:         "/etc/resolv.conf",
		VolumePluginDir:    volumePlugin,
		RotateCertificates: true,
	}
	proxy := proxyConfiguration{
		typeMeta:    typeMeta{"kubeproxy.config.k8s.io/v1alpha1", "KubeProxyConfiguration"},
		Mode:        "nftables",
		ClusterCIDR: c.PodSubnet.String(),
	}
	if c.Emulated {
		init.Timeouts = emulatedTimeouts()
		relax(&cluster, &kubelet, &proxy)
	}
	return stream(init, cluster, kubelet, proxy)
}

// registration is how a node makes itself known to the cluster, by init and by
// join alike.
func (n Node) registration() (nodeRegistration, error) {
	switch {
	case n.Name == "":
		return nodeRegistration{}, errors.New("a node without a name: it gets one at approval")
	case !n.Address.IsValid():
		return nodeRegistration{}, fmt.Errorf("node %s has no static address: give it one at approval or in the site file", n.Name)
	}
	taints, err := parseTaints(n.Taints)
	if err != nil {
		return nodeRegistration{}, err
	}
	own, _, err := splitLabels(n.Labels)
	if err != nil {
		return nodeRegistration{}, err
	}
	r := nodeRegistration{
		Name:            n.Name,
		CRISocket:       criSocket,
		ImagePullPolicy: "Never",
		Taints:          taints,
		KubeletExtraArgs: []argument{
			{"node-ip", n.Address.String()},
		},
		// It asks whether the running kernel was configured for
		// containers, and looks for the configuration in places that the
		// node image does not have. The kernel comes with the image.
		IgnorePreflightErrors: []string{"SystemVerification"},
	}
	if len(own) > 0 {
		r.KubeletExtraArgs = append(r.KubeletExtraArgs, argument{"node-labels", joinLabels(own)})
	}
	if n.Emulated {
		r.IgnorePreflightErrors = append(r.IgnorePreflightErrors, "NumCPU", "Mem")
	}
	return r, nil
}

func (c ControlPlane) check() error {
	switch {
	case !c.Service.IsValid():
		return fmt.Errorf("control plane %s: the site has no service address", c.Name)
	// Each node gets a /24 of it (kube-controller-manager's
	// --node-cidr-mask-size), of which there may be 2^16.
	case !c.PodSubnet.IsValid() || !c.PodSubnet.Addr().Is4() || c.PodSubnet.Bits() < 8 || c.PodSubnet.Bits() > 24:
		return fmt.Errorf("pod subnet %s: an IPv4 subnet from /8 to /24 is expected, each node gets a /24 of it", c.PodSubnet)
	// kube-apiserver's own limits: 20 bits at most, and room for its own and
	// the DNS service's address.
	case !c.ServiceSubnet.IsValid() || !c.ServiceSubnet.Addr().Is4() || c.ServiceSubnet.Bits() < 12 || c.ServiceSubnet.Bits() > 24:
		return fmt.Errorf("service subnet %s: an IPv4 subnet from /12 to /24 is expected", c.ServiceSubnet)
	case c.PodSubnet.Overlaps(c.ServiceSubnet):
		return fmt.Errorf("pod subnet %s and service subnet %s overlap", c.PodSubnet, c.ServiceSubnet)
	}
	for what, a := range map[string]netip.Addr{"node": c.Address, "service": c.Service} {
		if c.PodSubnet.Contains(a) || c.ServiceSubnet.Contains(a) {
			return fmt.Errorf("the %s address %s is inside the pod subnet %s or the service subnet %s: choose other subnets in the site file", what, a, c.PodSubnet, c.ServiceSubnet)
		}
	}
	return nil
}

// stream joins documents into one YAML stream, fields sorted by name.
func stream(documents ...any) ([]byte, error) {
	parts := make([][]byte, 0, len(documents))
	for _, d := range documents {
		b, err := yaml.Marshal(d)
		if err != nil {
			return nil, err
		}
		parts = append(parts, b)
	}
	return bytes.Join(parts, []byte("---\n")), nil
}
