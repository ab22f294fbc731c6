package wire

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/rackseed/rackseed/services/machine"
)

// PathNodeConfig is where an installed node finds its NodeConfig; the file is
// root's alone (0600), since KeySeed is the node's identity.
const PathNodeConfig = "/etc/rackseed/node.json"

// PathAuthorizedKeys has the site's SSH keys on a node, for root (0600). sshd reads it
// besides authorized_keys, which is the operator's own.
const PathAuthorizedKeys = "/root/.ssh/authorized_keys2"

// AuthorizedKeys is that file.
func AuthorizedKeys(keys []string) []byte {
	b := []byte("# The site file's sshKeys, kept by Rackseed. Others belong into authorized_keys.\n")
	var seen []string
	for _, k := range keys {
		if k = strings.TrimSpace(k); !slices.Contains(seen, k) {
			seen = append(seen, k)
			b = append(b, k+"\n"...)
		}
	}
	return b
}

// ServiceURL is the machines' HTTP server at a service address, without a slash
// at the end.
func ServiceURL(a netip.Addr) string {
	if a.Is6() {
		return "http://[" + a.String() + "]"
	}
	return "http://" + a.String()
}

// NodeConfig is what an installed node knows about itself and the boot
// service. Ignition writes it; the node agent reads it.
type NodeConfig struct {
	URL     string       `json:"url"`     // of the machines' HTTP server, as http://10.77.0.1, without a slash at the end
	Machine machine.ID   `json:"machine"` // its name for ever
	Name    string       `json:"name"`    // host name and Kubernetes node name
	Role    machine.Role `json:"role"`
	// Address is the node's static address with its link's prefix length.
	Address netip.Prefix `json:"address"`
	// Service is the service address: people and nodes that join reach the
	// Kubernetes API at its port 6443.
	Service netip.Addr `json:"service"`
	// KeySeed is the ed25519 seed (32 bytes) of the key that signs the node's
	// requests.
	KeySeed       []byte       `json:"keySeed"`
	PodSubnet     netip.Prefix `json:"podSubnet"`
	ServiceSubnet netip.Prefix `json:"serviceSubnet"`
	Emulated      bool         `json:"emulated,omitempty"` // machine.Site.Emulated
}

// ParseNodeConfig reads a node's configuration. Fields unknown to this version
// are passed over: the file is as old as the slot it was written for.
func ParseNodeConfig(b []byte) (NodeConfig, error) {
	var c NodeConfig
	if err := json.Unmarshal(b, &c); err != nil {
		return c, fmt.Errorf("%s: %w", PathNodeConfig, err)
	}
	if c.URL == "" || c.Machine == "" || c.Name == "" || len(c.KeySeed) != 32 {
		return c, fmt.Errorf("%s: url, machine, name and a keySeed of 32 bytes must be there: reinstall the node", PathNodeConfig)
	}
	return c, nil
}
