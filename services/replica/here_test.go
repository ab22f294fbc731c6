package replica

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/rackseed/rackseed/services/machine"
)

// A node serves the networks in which it has an address, by its own card.
func TestHere(t *testing.T) {
	p := netip.MustParsePrefix
	site := machine.Site{ServiceAddress: netip.MustParseAddr("10.77.0.1"), Links: []machine.SiteLink{
		{MAC: "52:54:00:00:00:01", Address: p("10.77.0.2/24"), DHCP: &machine.SiteDHCP{}},
		{Interface: "eth1", VLAN: 7, Address: p("10.78.0.2/24")},
		{Interface: "eth2", Address: p("10.79.0.2/24")},
	}}
	got := here(site, map[string][]netip.Prefix{
		"lo": {p("127.0.0.1/8")}, "enp1s0": {p("10.77.0.1/24"), p("10.77.0.11/24")}, "bond0": {p("10.78.0.11/24")}, "cni0": {p("10.79.0.1/16")},
	})
	if len(got.Links) != 2 {
		t.Fatalf("links: %+v", got.Links)
	}
	if l := got.Links[0]; l.Interface != "enp1s0" || l.MAC != "" || l.Address != p("10.77.0.11/24") || l.DHCP == nil {
		t.Errorf("%+v", l)
	}
	if l := got.Links[1]; l.Interface != "bond0" || l.VLAN != 0 || l.Address != p("10.78.0.11/24") {
		t.Errorf("%+v", l)
	}
	if text := unserved(site, got); text != "" {
		t.Errorf("the third link has no dhcp: %s", text)
	}
	site.Links[2].DHCP = &machine.SiteDHCP{}
	if text := unserved(site, got); !strings.HasPrefix(text, "links[2] of the site file has dhcp in 10.79.0.0/24, where this node has no address") {
		t.Errorf("the third link is served by nobody: %q", text)
	}
	if len(site.Links) != 3 || site.Links[0].MAC == "" {
		t.Errorf("the site itself was changed: %+v", site.Links)
	}
}
