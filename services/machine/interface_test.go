package machine

import (
	"net"
	"testing"
)

func TestInterfaceName(t *testing.T) {
	for _, c := range []struct {
		vlan       int
		card, want string
	}{
		{0, "eth0", "eth0"},
		{20, "eth0", "eth0.20"},
		{4094, "enp129s0f0np0", "129s0f0np0.4094"},
		{4094, "enp129s0f1np1", "129s0f1np1.4094"},
	} {
		if got := (SiteLink{VLAN: c.vlan}).InterfaceName(c.card); got != c.want || len(got) > maxInterface {
			t.Errorf("VLAN %d of %s: %q, want %q", c.vlan, c.card, got, c.want)
		}
	}
}

func TestInterfaceIn(t *testing.T) {
	card := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	present := []net.Interface{
		{Name: "lo"}, {Name: "eth0", HardwareAddr: card}, {Name: "eth0.20", HardwareAddr: card},
		{Name: "eth1", HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 2}},
	}
	for _, c := range []struct {
		link SiteLink
		want string
	}{
		{SiteLink{MAC: "02:00:00:00:00:01"}, "eth0"}, // though eth0.20 has that address too
		{SiteLink{Interface: "eth0"}, "eth0"},
		{SiteLink{MAC: "02:00:00:00:00:01", VLAN: 20}, "eth0.20"},
		{SiteLink{Interface: "eth0", VLAN: 20}, "eth0.20"},
		{SiteLink{MAC: "02:00:00:00:00:02", VLAN: 20}, ""}, // its VLAN interface is not made yet
		{SiteLink{MAC: "02:00:00:00:00:03"}, ""},
	} {
		if got, ok := c.link.InterfaceIn(present); got != c.want || ok != (c.want != "") {
			t.Errorf("%+v: %q, %t, want %q", c.link, got, ok, c.want)
		}
	}
}
