package agent

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/rackseed/rackseed/kube/podnet"
	"github.com/rackseed/rackseed/services/wire"
	corev1 "k8s.io/api/core/v1"
)

// facts are what the node's own disk says about its way into the cluster.
type facts struct {
	Done     bool // the done-mark is there: kubeadm ended well
	Reported bool // and the boot service knows
	Begun    bool // kubeadm left something behind
	Config   bool // Ignition wrote what kubeadm init takes
	// JoinConfig: Ignition wrote what kubeadm join is told but for the secret.
	JoinConfig bool
}

// step is what the agent does next.
type step string

const (
	stepAsk    step = "ask"    // the boot service, what to do
	stepInit   step = "init"   // kubeadm init on an untouched node
	stepResume step = "resume" // kubeadm init over what an interrupted one left
	stepJoin   step = "join"   // kubeadm join, over whatever an interrupted one left
	stepTell   step = "tell"   // the boot service that the node has joined
	stepWatch  step = "watch"  // the node is in the cluster
)

// next decides what the agent does, from the node's disk and the boot service's
// order (nil before it was asked). reason is for people, where the agent waits.
//
// An interrupted kubeadm init is resumed and never reset: all its phases are
// idempotent, keep certificates that are there and apply their objects again,
// while a reset would delete etcd's data, in which a cluster may already live.
func next(f facts, order *wire.NodeOrder) (s step, reason string) {
	switch {
	case f.Done && f.Reported:
		return stepWatch, ""
	case f.Done:
		return stepTell, ""
	case order == nil:
		return stepAsk, ""
	case order.Kind == wire.NodeWait:
		return stepAsk, order.Reason
	case order.Kind == wire.NodeJoin && !f.JoinConfig:
		return stepAsk, "what it joins by is missing: this machine was installed by an older boot service; install it again"
	case order.Kind == wire.NodeJoin:
		return stepJoin, ""
	case order.Kind != wire.NodeInit:
		return stepAsk, fmt.Sprintf("this node image does not know the order %q: install it with the boot service's own image", order.Kind)
	case !f.Config:
		return stepAsk, "kubeadm's configuration is missing: only a machine installed with a control-plane profile can begin the cluster; install it again"
	case f.Begun:
		return stepResume, ""
	default:
		return stepInit, ""
	}
}

// initArgs are kubeadm init's arguments for a step. The join command is not
// shown, since it holds a token that nobody uses. Preflight checks would refuse
// what the interrupted init left.
func initArgs(s step, config string) []string {
	skip := "show-join-command"
	if s == stepResume {
		skip = "preflight," + skip
	}
	return []string{"init", "--config", config, "--skip-token-print", "--skip-phases", skip}
}

// joinArgs are kubeadm join's arguments.
func joinArgs(config string, skip []string) []string {
	args := []string{"join", "--config", config}
	if len(skip) > 0 {
		args = append(args, "--skip-phases", strings.Join(skip, ","))
	}
	return args
}

// readiness is what Kubernetes says of this node, for this boot.
type readiness struct {
	Known bool
	Ready bool
	Text  string
}

// readinessOf reads a Node. Its status stays as it was while the machine is
// down, so that it counts only once the kubelet has posted the boot ID of this
// boot.
func readinessOf(n *corev1.Node, bootID string) readiness {
	if n == nil {
		return readiness{Known: true, Text: "Kubernetes has no node of this name"}
	}
	if n.Status.NodeInfo.BootID != bootID {
		return readiness{}
	}
	for _, c := range n.Status.Conditions {
		if c.Type != corev1.NodeReady {
			continue
		}
		if c.Status == corev1.ConditionTrue {
			return readiness{Known: true, Ready: true, Text: "kubelet " + n.Status.NodeInfo.KubeletVersion}
		}
		return readiness{Known: true, Text: strings.TrimSpace(fmt.Sprintf("Kubernetes says not ready: %s: %s", c.Reason, c.Message))}
	}
	return readiness{}
}

// transition says what to report when readiness is now and last was the last
// event of this boot that was reported. A node that was not ready in this boot
// yet is still starting: that it is not ready is no news.
func transition(last wire.NodeEvent, now readiness) (wire.NodeEvent, bool) {
	switch {
	case now.Known && now.Ready && last != wire.NodeReady:
		return wire.NodeReady, true
	case now.Known && !now.Ready && last == wire.NodeReady:
		return wire.NodeUnready, true
	}
	return "", false
}

// podnetNode reads of a Node what the pod network needs. What cannot be read is
// left out.
func podnetNode(n *corev1.Node) podnet.Node {
	p := podnet.Node{Name: n.Name}
	if cidr, err := netip.ParsePrefix(n.Spec.PodCIDR); err == nil && cidr.Addr().Is4() {
		p.PodCIDR = cidr
	}
	for _, a := range n.Status.Addresses {
		if a.Type != corev1.NodeInternalIP {
			continue
		}
		if ip, err := netip.ParseAddr(a.Address); err == nil && ip.Is4() {
			p.Address = ip
			break
		}
	}
	return p
}

// networkUp reads systemd-networkd's state file (/run/systemd/netif/state,
// networkctl(1)): some link has an address that routes.
func networkUp(state string) bool {
	for line := range strings.Lines(state) {
		if v, found := strings.CutPrefix(strings.TrimSpace(line), "ADDRESS_STATE="); found {
			return v == "routable"
		}
	}
	return false
}
