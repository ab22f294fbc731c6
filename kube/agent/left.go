package agent

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/rackseed/rackseed/kube/pki"
	"github.com/rackseed/rackseed/services/machine"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"
)

// What kubeadm join (v1.37.2) writes, in order: on a control plane certificates,
// kubeconfigs and manifests, as init does; then bootstrap-kubelet.conf with the
// token, pki/ca.crt (unless it is there), the kubelet's settings; it starts the
// kubelet; adds the node's member to etcd as a learner, writes its manifest, and
// gives it a vote once it has caught up; waits until the kubelet has a
// certificate of its own and kubelet.conf, which the kubelet writes; and removes
// bootstrap-kubelet.conf. A worker has joined with that.
const (
	bootstrapConf  = kubernetes + "/bootstrap-kubelet.conf"
	authority      = kubernetes + "/pki/ca.crt"
	etcdManifest   = kubernetes + "/manifests/etcd.yaml"
	etcdData       = "/var/lib/etcd"
	kubeletDir     = "/var/lib/kubelet"
	kubeletConfig  = kubeletDir + "/config.yaml"
	kubeletContent = kubeletDir + "/instance-config.yaml"
	kubeletFlags   = kubeletDir + "/kubeadm-flags.env"
)

// left is what earlier attempts of kubeadm join left on the disk.
type left struct {
	Begun    bool   // something that kubeadm's preflight checks would mind
	Identity string // the authority (pki.CertHash) of the cluster that the kubelet has a certificate for; "": it has none
	Settings bool   // the kubelet's settings are whole
	CA       string // the authority in pki/ca.crt; "": none, or it is torn
}

// joinPlan is how kubeadm join is run over what is left.
type joinPlan struct {
	// Adopt: the kubelet has all that kubeadm join gives a worker. It only has
	// to run.
	Adopt bool
	// Clear: the kubelet's files are removed first. What is torn or of another
	// cluster, kubeadm would take for its own.
	Clear bool
	// Skip are phases of kubeadm that would refuse what is left.
	Skip []string
}

// planJoin decides it. hashes are the cluster's authorities (pki.CertHash).
func planJoin(role machine.Role, l left, hashes []string) (joinPlan, error) {
	known := l.Identity != "" && slices.Contains(hashes, l.Identity) && l.CA == l.Identity && l.Settings
	if role != machine.RoleControlPlane {
		return joinPlan{Adopt: known, Clear: !known && l.Begun}, nil
	}
	switch {
	case !slices.Contains(hashes, l.CA):
		return joinPlan{}, fmt.Errorf("%s is not the cluster's: this machine was installed with the keys of another one; forget it, and install it again", authority)
	case known:
		// The kubelet may be running, and its node be Ready: kubelet-start
		// refuses to join under the name of one that is.
		return joinPlan{Skip: []string{"preflight", "kubelet-start"}}, nil
	case l.Begun:
		return joinPlan{Clear: true, Skip: []string{"preflight"}}, nil
	}
	return joinPlan{}, nil
}

// left reads what is left on a node of that role.
func (h host) left(role machine.Role) (left, error) {
	l := left{Settings: h.wholeSettings()}
	var err error
	if l.Begun, err = h.begun(); err != nil {
		return l, err
	}
	for _, p := range kubeletFiles(role) {
		l.Begun = l.Begun || h.exists(p)
	}
	if b, err := os.ReadFile(h.path(authority)); err == nil {
		l.CA, _ = pki.CertHash(b) // torn: ""
	}
	if b, err := os.ReadFile(h.path(kubeletConf)); err == nil && h.wholeConfig(b) == nil {
		if c, err := clientcmd.Load(b); err == nil {
			l.Identity, _ = pki.CertHash(c.Clusters[c.Contexts[c.CurrentContext].Cluster].CertificateAuthorityData)
		}
	}
	return l, nil
}

// wholeSettings says whether the kubelet can start by what kubeadm wrote.
func (h host) wholeSettings() bool {
	for _, file := range []string{kubeletConfig, kubeletContent} {
		var c struct {
			Kind string `json:"kind"`
		}
		b, err := os.ReadFile(h.path(file))
		if err != nil || yaml.Unmarshal(b, &c) != nil || c.Kind != "KubeletConfiguration" {
			return false
		}
	}
	b, err := os.ReadFile(h.path(kubeletFlags))
	return err == nil && strings.HasPrefix(string(b), "KUBELET_KUBEADM_ARGS=") && strings.HasSuffix(string(b), "\n")
}

// clearKubelet removes what the kubelet has from an attempt to join: its
// settings, its identity, and on a worker the authority. It must not run.
func (h host) clearKubelet(role machine.Role) error {
	for _, file := range append(kubeletFiles(role), kubeletDir+"/pki") {
		if err := os.RemoveAll(h.path(file)); err != nil {
			return err
		}
	}
	return nil
}

// kubeletFiles are what kubeadm join gives the kubelet, and the kubelet itself
// by that. A control plane's authority is Ignition's.
func kubeletFiles(role machine.Role) []string {
	files := []string{kubeletConf, bootstrapConf, kubeletConfig, kubeletContent, kubeletFlags}
	if role != machine.RoleControlPlane {
		files = append(files, authority)
	}
	return files
}

// clearLeft makes way for kubeadm join, as planJoin says.
func (a *agent) clearLeft(ctx context.Context, p joinPlan) error {
	if p.Clear {
		a.output.Print("rackseed: an earlier attempt to join was broken off: what it gave the kubelet is made again")
		if err := a.systemctl(ctx, "stop"); err != nil {
			return err
		}
		if err := a.host.clearKubelet(a.config.Role); err != nil {
			return fmt.Errorf("removing what an interrupted kubeadm join left: %w", err)
		}
	}
	if p.Adopt || len(p.Skip) > 1 {
		return a.systemctl(ctx, "start")
	}
	return nil
}

// systemctl starts or stops the kubelet.
func (a *agent) systemctl(ctx context.Context, verb string) error {
	if err := a.commands.Run(ctx, a.output.Print, "systemctl", verb, "kubelet.service"); err != nil {
		return fmt.Errorf("%s the kubelet: %w", verb, err)
	}
	return nil
}
