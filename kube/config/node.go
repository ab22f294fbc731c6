package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// parseTaints reads key=value:effect and key:effect. It never returns nil.
func parseTaints(words []string) ([]taint, error) {
	taints := make([]taint, 0, len(words))
	for _, w := range words {
		head, effect, found := strings.Cut(w, ":")
		key, value, _ := strings.Cut(head, "=")
		if !found || key == "" || !slices.Contains([]string{"NoSchedule", "PreferNoSchedule", "NoExecute"}, effect) {
			return nil, fmt.Errorf("taint %q: expected as key=value:effect with effect NoSchedule, PreferNoSchedule or NoExecute", w)
		}
		taints = append(taints, taint{key, value, effect})
	}
	return taints, nil
}

// joinLabels renders the kubelet's --node-labels, sorted. A kubelet refuses to
// start with labels of Kubernetes' own that a node may not give itself
// (https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#noderestriction):
// better said here than on a machine.
func joinLabels(labels map[string]string) (string, error) {
	pairs := make([]string, 0, len(labels))
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		if !nodeMayLabel(key) {
			return "", fmt.Errorf("label %q: a node may not give itself labels of kubernetes.io and k8s.io, except below node.kubernetes.io and kubelet.kubernetes.io: choose a domain of your own", key)
		}
		if key == "" || strings.ContainsAny(key+labels[key], ",= \n\t\"'\\$") {
			return "", fmt.Errorf("label %q with value %q: a character of it is not allowed in labels", key, labels[key])
		}
		pairs = append(pairs, key+"="+labels[key])
	}
	return strings.Join(pairs, ","), nil
}

func nodeMayLabel(key string) bool {
	domain, _, found := strings.Cut(key, "/")
	within := func(d string) bool { return domain == d || strings.HasSuffix(domain, "."+d) }
	switch {
	case !found || !within("kubernetes.io") && !within("k8s.io"):
		return true
	case within("node.kubernetes.io") || within("kubelet.kubernetes.io"):
		return true
	}
	return slices.Contains([]string{"topology.kubernetes.io/region", "topology.kubernetes.io/zone"}, key)
}

// Patches are the files of PatchesDir by name: kubeadm applies TARGETn+TYPE.EXT
// to the static pods of this node, in order.
func Patches(c ControlPlane) (map[string][]byte, error) {
	bind, err := bindPatch(c.Address)
	if err != nil {
		return nil, err
	}
	all := map[string][]byte{"kube-apiserver1+json.json": bind}
	if c.Emulated {
		emulated, err := emulatedPatches()
		if err != nil {
			return nil, err
		}
		maps.Copy(all, emulated)
	}
	return all, nil
}

// bindPatch makes the API server listen on the node's own address only: the
// same port of the service address, which may come to this node, is the
// forwarder's. It is a patch, since ClusterConfiguration's arguments are every
// control plane's (RFC 6902).
func bindPatch(address netip.Addr) ([]byte, error) {
	b, err := json.Marshal([]map[string]string{{
		"op": "add", "path": "/spec/containers/0/command/-", "value": "--bind-address=" + address.String(),
	}})
	return append(b, '\n'), err
}
