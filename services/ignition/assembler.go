package ignition

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/wire"
)

// View is what of the state an Ignition is made from; state.View has it.
type View interface {
	Site() (machine.Site, bool)
	Profile(machine.ID) (machine.Profile, bool)
	Secret(name string) ([]byte, bool)
}

// nodeSecrets is the name's beginning of every machine's node key seed.
const nodeSecrets = "node/"

// FromView gathers a machine's Input. url is the machines' HTTP server; empty:
// the service address. The profile is the one of the machine's approval.
func FromView(v View, m machine.Machine, url string) (Input, error) {
	site, ok := v.Site()
	if !ok {
		return Input{}, fmt.Errorf("machine %s: Ignition: there is no site file yet", m.ID)
	}
	profile, ok := v.Profile(m.ID)
	if !ok {
		return Input{}, fmt.Errorf("machine %s: Ignition: it was never approved", m.ID)
	}
	seed, ok := v.Secret(nodeSecrets + string(m.ID))
	if !ok {
		return Input{}, fmt.Errorf("machine %s: Ignition: its node key is not in the state: approve it again", m.ID)
	}
	if url == "" {
		url = wire.ServiceURL(site.ServiceAddress)
	}
	return Input{
		Site: site, Machine: m, Profile: profile, NodeSeed: seed, ServiceURL: url,
		Secrets: func(name string) ([]byte, bool) {
			// A contributor never sees a machine's own key, least of all
			// another's.
			if strings.HasPrefix(name, nodeSecrets) {
				return nil, false
			}
			return v.Secret(name)
		},
	}, nil
}

// specimen is a machine to try a profile on. Its addresses are those kept for
// documentation (RFC 5737).
func specimen(p machine.Profile) Input {
	return Input{
		Site: machine.Site{
			ServiceAddress: netip.MustParseAddr("192.0.2.1"),
			Links:          []machine.SiteLink{{Address: netip.MustParsePrefix("192.0.2.2/24")}},
			SSHKeys:        []string{"ssh-ed25519 AAAA specimen"},
		},
		Machine: machine.Machine{
			ID: "m-00000000", Name: "specimen", Address: netip.MustParseAddr("192.0.2.10"),
			MACs: []machine.MAC{"02:00:00:00:00:01"},
		},
		Profile:    p,
		NodeSeed:   make([]byte, 32),
		ServiceURL: "http://192.0.2.1",
		Secrets:    func(string) ([]byte, bool) { return nil, false },
	}
}
