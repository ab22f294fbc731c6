package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/rackseed/rackseed/services/machine"
)

// parseTaints reads key=value:effect and key:effect. It never returns nil.
func parseTaints(words []string) ([]taint, error) {
	taints := make([]taint, 0, len(words))
	for _, w := range words {
		head, effect, found := strings.Cut(w, ":")
		key, value, _ := strings.Cut(head, "=")
		if !found || !slices.Contains([]string{"NoSchedule", "PreferNoSchedule", "NoExecute"}, effect) {
			return nil, fmt.Errorf("taint %q: expected as key=value:effect with effect NoSchedule, PreferNoSchedule or NoExecute", w)
		}
		if wrong := append(validation.IsQualifiedName(key), validation.IsValidLabelValue(value)...); len(wrong) > 0 {
			return nil, fmt.Errorf("taint %q: %s", w, wrong[0])
		}
		taints = append(taints, taint{key, value, effect})
	}
	return taints, nil
}

// CheckProfile says what is wrong with what a profile gives its nodes in
// Kubernetes, before any machine is installed with it.
func CheckProfile(p machine.Profile) error {
	if _, err := parseTaints(p.Taints); err != nil {
		return err
	}
	_, _, err := splitLabels(p.Labels)
	return err
}

// RestrictedLabels are those of a profile's labels that a node may not give
// itself: whoever administrates the cluster sets them once the node is there.
// They are valid if the profile is (CheckProfile).
func RestrictedLabels(labels map[string]string) map[string]string {
	_, restricted, err := splitLabels(labels)
	if err != nil {
		return nil
	}
	return restricted
}

// splitLabels tells the labels that a node gives itself by its kubelet from
// those that it may not. A kubelet refuses to start with labels of Kubernetes'
// own that a node may not give itself
// (https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#noderestriction).
func splitLabels(labels map[string]string) (own, restricted map[string]string, err error) {
	own, restricted = map[string]string{}, map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		value := labels[key]
		if wrong := validation.IsQualifiedName(key); len(wrong) > 0 {
			return nil, nil, fmt.Errorf("label %q: %s", key, wrong[0])
		}
		if wrong := validation.IsValidLabelValue(value); len(wrong) > 0 {
			return nil, nil, fmt.Errorf("label %q with value %q: %s", key, value, wrong[0])
		}
		switch {
		case machine.IsKubeletLabel(key):
			return nil, nil, fmt.Errorf("label %q: the kubelet sets it by itself: choose another name", key)
		case nodeMayLabel(key):
			own[key] = value
		default:
			restricted[key] = value
		}
	}
	return own, restricted, nil
}

// joinLabels renders the kubelet's --node-labels, sorted.
func joinLabels(labels map[string]string) string {
	pairs := make([]string, 0, len(labels))
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		pairs = append(pairs, key+"="+labels[key])
	}
	return strings.Join(pairs, ",")
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
func Patches(c Node) (map[string][]byte, error) {
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
