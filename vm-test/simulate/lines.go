package simulate

import (
	"fmt"

	"github.com/rackseed/rackseed/services/wire"
)

// version of Kubernetes that the simulated node claims to run.
const version = "v1.37.2"

// bootLines are what an installed node says before its agent knows more.
func bootLines(c wire.NodeConfig) []string {
	return []string{
		"rackseed: node " + c.Name + ", slot a, boot service " + c.URL,
		fmt.Sprintf("rackseed: network is up, address %s", c.Address),
		"rackseed: containerd answers",
		"rackseed: root slot a is marked as good",
	}
}

// kubeadmLines are what kubeadm writes when all goes well.
func kubeadmLines(c wire.NodeConfig, order wire.NodeOrderKind) []string {
	if order == wire.NodeJoin {
		return []string{
			"[preflight] Running pre-flight checks",
			`[preflight] Reading configuration from the "kubeadm-config" ConfigMap in namespace "kube-system"...`,
			`[kubelet-start] Writing kubelet configuration to file "/var/lib/kubelet/config.yaml"`,
			"[kubelet-start] Starting the kubelet",
			"[kubelet-check] Waiting for a healthy kubelet at http://127.0.0.1:10248/healthz. This can take up to 4m0s",
			"[kubelet-check] The kubelet is healthy after 1.503s",
			"[kubelet-start] Waiting for the kubelet to perform the TLS Bootstrap",
			"",
			"This node has joined the cluster:",
			"* Certificate signing request was sent to apiserver and a response was received.",
			"* The Kubelet was informed of the new secure connection details.",
		}
	}
	address := c.Address.Addr().String()
	lines := []string{
		"[init] Using Kubernetes version: " + version,
		"[preflight] Running pre-flight checks",
		`[certs] Using certificateDir folder "/etc/kubernetes/pki"`,
		"[certs] Using existing ca certificate authority",
		"[certs] Using existing apiserver certificate and key on disk",
		"[certs] Using existing apiserver-kubelet-client certificate and key on disk",
		"[certs] Using existing front-proxy-ca certificate authority",
		"[certs] Using existing etcd/ca certificate authority",
		`[certs] Using the existing "sa" key`,
		`[kubeconfig] Using kubeconfig folder "/etc/kubernetes"`,
	}
	for _, name := range []string{"admin.conf", "super-admin.conf", "kubelet.conf", "controller-manager.conf", "scheduler.conf"} {
		lines = append(lines, `[kubeconfig] Writing "`+name+`" kubeconfig file`)
	}
	lines = append(lines, `[etcd] Creating static Pod manifest for local etcd in "/etc/kubernetes/manifests"`,
		`[control-plane] Using manifest folder "/etc/kubernetes/manifests"`)
	for _, name := range []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler"} {
		lines = append(lines, `[control-plane] Creating static Pod manifest for "`+name+`"`)
	}
	return append(lines,
		`[kubelet-start] Writing kubelet environment file with flags to file "/var/lib/kubelet/kubeadm-flags.env"`,
		"[kubelet-start] Starting the kubelet",
		`[wait-control-plane] Waiting for the kubelet to boot up the control plane as static Pods from directory "/etc/kubernetes/manifests"`,
		"[kubelet-check] The kubelet is healthy after 1.002s",
		"[control-plane-check] Checking kube-apiserver at https://"+address+":6443/livez",
		"[control-plane-check] kube-controller-manager is healthy after 9.51s",
		"[control-plane-check] kube-scheduler is healthy after 11.02s",
		"[control-plane-check] kube-apiserver is healthy after 14.5s",
		`[upload-config] Storing the configuration used in ConfigMap "kubeadm-config" in the "kube-system" Namespace`,
		"[mark-control-plane] Marking the node "+c.Name+" as control-plane",
		"[addons] Applied essential addon: CoreDNS",
		"[addons] Applied essential addon: kube-proxy",
		"",
		"Your Kubernetes control-plane has initialized successfully!")
}

func readyLines(c wire.NodeConfig) []string {
	return []string{"rackseed: pod network is up", "rackseed: node " + c.Name + " is Ready"}
}
