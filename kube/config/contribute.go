package config

import (
	"cmp"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"

	"github.com/rackseed/rackseed/kube/pki"
	"github.com/rackseed/rackseed/services/ignition"
	"github.com/rackseed/rackseed/services/machine"
)

// Contributor adds Kubernetes' files to a machine's Ignition.
type Contributor struct{}

var _ ignition.Contributor = Contributor{}

// Contribute gives every node what it joins by, a control plane also what the
// first one begins the cluster by and the cluster's authorities, and every
// emulated node its relaxed settings. A worker gets no secret.
func (Contributor) Contribute(in ignition.Input) ([]ignition.File, error) {
	var files []ignition.File
	if in.Site.Emulated {
		files = append(files,
			ignition.File{Path: ContainerdEmulatedPath, Mode: 0o644, Contents: []byte(containerdEmulated)},
			ignition.File{Path: KubeletDefaultsPath, Mode: 0o644, Contents: []byte(kubeletEmulated)})
	}
	control := controlPlane(in)
	further := in.Profile.Role == machine.RoleControlPlane
	join, err := JoinTemplate(control.Node, further)
	if err != nil {
		return nil, fmt.Errorf("kubeadm join configuration: %w", err)
	}
	files = append(files, ignition.File{Path: JoinPath, Mode: 0o600, Contents: join})
	if !further {
		return files, nil
	}
	kubeadm, err := Kubeadm(control)
	if err != nil {
		return nil, fmt.Errorf("kubeadm configuration: %w", err)
	}
	files = append(files, ignition.File{Path: KubeadmPath, Mode: 0o600, Contents: kubeadm})
	patches, err := Patches(control.Node)
	if err != nil {
		return nil, fmt.Errorf("kubeadm patches: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(patches)) {
		files = append(files, ignition.File{Path: path.Join(PatchesDir, name), Mode: 0o644, Contents: patches[name]})
	}
	authorities, err := authorityFiles(in.Secrets)
	return append(files, authorities...), err
}

func authorityFiles(secrets func(string) ([]byte, bool)) ([]ignition.File, error) {
	var files []ignition.File
	for _, name := range pki.Names() {
		b, found := secrets(name)
		if !found {
			return nil, fmt.Errorf("the cluster's secret %s is missing: a control plane without it would make a cluster of its own", name)
		}
		mode := fs.FileMode(0o600)
		if ext := path.Ext(name); ext == ".crt" || ext == ".pub" {
			mode = 0o644
		}
		files = append(files, ignition.File{Path: pki.Dir + name[len(pki.Prefix):], Mode: mode, Contents: b})
	}
	return files, nil
}

func controlPlane(in ignition.Input) ControlPlane {
	pods, services := Subnets(in.Site.Cluster)
	cluster := cmp.Or(in.Site.ClusterName(), "rackseed")
	return ControlPlane{
		Node: Node{
			Name:     in.Machine.Name,
			Address:  in.Machine.Address,
			Labels:   in.Profile.Labels,
			Taints:   in.Profile.Taints,
			Emulated: in.Site.Emulated,
		},
		Cluster:       cluster,
		Service:       in.Site.ServiceAddress,
		PodSubnet:     pods,
		ServiceSubnet: services,
		ExtraSANs:     in.Site.Cluster.ExtraSANs,
	}
}
