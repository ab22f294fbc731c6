package machine

import (
	"net"
	"slices"
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

func TestMayHave(t *testing.T) {
	const a, b, c = MAC("52:54:00:00:00:0a"), MAC("52:54:00:00:00:0b"), MAC("52:54:00:00:00:0c")
	seen := &Inventory{BootMAC: a, NICs: []NIC{{MAC: b}, {MAC: a}, {Name: "ib0"}}}
	if got := seen.Addresses(); !slices.Equal(got, []MAC{a, b}) {
		t.Errorf("its addresses are %q", got)
	}
	for name, x := range map[string]struct {
		inventory *Inventory
		macs      []MAC
		want      bool
	}{
		"nobody looked":         {nil, []MAC{c}, true},
		"nothing was found":     {&Inventory{NICs: []NIC{{Name: "ib0"}}}, []MAC{c}, true},
		"it netbooted from it":  {seen, []MAC{a}, true},
		"another of its":        {seen, []MAC{c, b}, true},
		"none of its":           {seen, []MAC{c}, false},
		"it came without any":   {seen, nil, false},
		"one without interface": {&Inventory{BootMAC: a}, []MAC{b}, false},
	} {
		if got := x.inventory.MayHave(x.macs...); got != x.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
