// Package podnet is the pod network: a bridge on each node, and routes between
// the nodes' pod subnets. It needs nothing that runs in a pod, so that pods
// start while the API server is away.
//
// What shall be is decided by pure functions of the nodes; kernel.go puts it
// into the kernel.
package podnet

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
)

// CNIPath is the network configuration that containerd's CRI plugin reads; the
// node is Ready only once it is there.
const CNIPath = "/etc/cni/net.d/10-rackseed.conflist"

// Node is what the pod network must know of a Kubernetes node.
type Node struct {
	Name    string
	Address netip.Addr   // its InternalIP
	PodCIDR netip.Prefix // invalid while the controller manager gave it none
}

// Route leads to another node's pods.
type Route struct {
	Pods netip.Prefix
	Via  netip.Addr
}

// CNI renders the network configuration (CNI specification 1.0.0): a bridge
// with addresses of the node's own pod subnet, and host ports.
//
// The bridge does not masquerade: by itself it would do so towards pods of
// other nodes too, whose NetworkPolicies must see the true source. Masquerade
// does it for what leaves the pod network.
func CNI(pods netip.Prefix) ([]byte, error) {
	if !pods.IsValid() {
		return nil, fmt.Errorf("pod network: the node has no pod subnet yet")
	}
	type object = map[string]any
	b, err := json.MarshalIndent(object{
		"cniVersion": "1.0.0",
		"name":       "rackseed",
		"plugins": []any{
			object{
				"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
				"ipam": object{
					"type":   "host-local",
					"ranges": [][]object{{{"subnet": pods.Masked().String()}}},
					"routes": []object{{"dst": "0.0.0.0/0"}},
				},
			},
			object{"type": "portmap", "capabilities": object{"portMappings": true}, "backend": "nftables"},
		},
	}, "", "  ")
	return append(b, '\n'), err
}

// Masquerade is the nftables script (`nft -f`) that gives pods the node's
// address towards everything that is not a pod. It replaces what an earlier
// one made, in one transaction.
func Masquerade(pods netip.Prefix) string {
	return fmt.Sprintf(`add table ip rackseed-pods
delete table ip rackseed-pods
table ip rackseed-pods {
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr %[1]s ip daddr != %[1]s ip daddr != 224.0.0.0/4 masquerade
	}
}
`, pods.Masked())
}

// Routes leads to every other node's pods, in order. A node is left out when it
// lacks an address or a pod subnet, or when its pod subnet is not within pods:
// the API's word must not take over routes to anywhere else.
func Routes(self string, pods netip.Prefix, nodes []Node) []Route {
	var routes []Route
	for _, n := range nodes {
		if n.Name == self || !n.Address.IsValid() || !n.PodCIDR.IsValid() ||
			!pods.Contains(n.PodCIDR.Addr()) || n.PodCIDR.Bits() < pods.Bits() {
			continue
		}
		routes = append(routes, Route{n.PodCIDR.Masked(), n.Address})
	}
	slices.SortFunc(routes, func(a, b Route) int { return a.Pods.Compare(b.Pods) })
	return slices.CompactFunc(routes, func(a, b Route) bool { return a.Pods == b.Pods })
}

// Diff says which routes to set and which to remove. To set one replaces
// another to the same pods.
func Diff(have, want []Route) (set, remove []Route) {
	wanted := make(map[netip.Prefix]bool, len(want))
	for _, r := range want {
		wanted[r.Pods] = true
		if !slices.Contains(have, r) {
			set = append(set, r)
		}
	}
	for _, r := range have {
		if !wanted[r.Pods] {
			remove = append(remove, r)
		}
	}
	return set, remove
}
