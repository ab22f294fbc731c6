package link

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A VLAN interface is made once, carries the address, and goes.
func TestVLAN(t *testing.T) {
	namespace(t)
	for range 2 {
		err := AddVLAN("machine", "machine.20", 20)
		if errors.Is(err, unix.EOPNOTSUPP) {
			t.Skip("this machine's kernel has no 802.1Q (CONFIG_VLAN_8021Q); TestSetupByForm in vm-test/scenario makes a VLAN interface with the appliance's")
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	l, err := netlink.LinkByName("machine.20")
	if err != nil {
		t.Fatal(err)
	}
	if v, ok := l.(*netlink.Vlan); !ok || v.VlanId != 20 || v.VlanProtocol != netlink.VLAN_PROTOCOL_8021Q {
		t.Errorf("made %+v", l)
	}
	if err := AddVLAN("machine", "machine.20", 21); err == nil || !strings.Contains(err.Error(), "another interface has this name") {
		t.Errorf("another VLAN of that name: %v", err)
	}
	if err := AddVLAN("machine", "machine.4095", 4095); err == nil || !strings.Contains(err.Error(), "VLAN 4095 of machine") {
		t.Errorf("a VLAN that cannot be: %v", err)
	}
	if err := SetAddress("machine.20", netip.MustParsePrefix("198.51.100.2/24"), time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := Clear("machine.20"); err != nil {
		t.Error(err)
	}
	if left, err := netlink.AddrList(l, netlink.FAMILY_V4); err != nil || len(left) != 0 {
		t.Errorf("addresses left: %v, %v", left, err)
	}
	for range 2 {
		if err := Remove("machine.20"); err != nil {
			t.Error(err)
		}
	}
	if _, err := netlink.LinkByName("machine.20"); err == nil {
		t.Error("it is still there")
	}
}
