package link

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// AddVLAN makes the interface name for the tagged network id (IEEE 802.1Q, 1
// to 4094) on a link, and brings both up. One that is there already, of the
// same network, is taken as it is; another one of that name is an error.
func AddVLAN(parent, name string, id int) error {
	if err := Up(parent); err != nil {
		return err
	}
	fail := func(err error) error { return fmt.Errorf("network link %s: VLAN %d of %s: %w", name, id, parent, err) }
	below, err := netlink.LinkByName(parent)
	if err != nil {
		return fail(err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex = name, below.Attrs().Index
	err = netlink.LinkAdd(&netlink.Vlan{LinkAttrs: attrs, VlanId: id, VlanProtocol: netlink.VLAN_PROTOCOL_8021Q})
	if errors.Is(err, unix.EEXIST) {
		there, e := netlink.LinkByName(name)
		if e != nil {
			return fail(errors.Join(err, e))
		}
		if v, ok := there.(*netlink.Vlan); !ok || v.VlanId != id || v.ParentIndex != below.Attrs().Index {
			return fail(errors.New("another interface has this name"))
		}
		err = nil
	}
	if err != nil {
		return fail(err)
	}
	return Up(name)
}

// Remove removes an interface that was made, as AddVLAN does; one that is not
// there is removed already.
func Remove(name string) error {
	l, err := netlink.LinkByName(name)
	var none netlink.LinkNotFoundError
	if errors.As(err, &none) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(l)
	}
	if err != nil {
		return fmt.Errorf("network link %s: removing it: %w", name, err)
	}
	return nil
}

// Clear takes all IPv4 addresses off a link, and so its routes.
func Clear(name string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("network link %s: %w", name, err)
	}
	addresses, err := netlink.AddrList(l, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("network link %s: its addresses: %w", name, err)
	}
	var failed []error
	for _, a := range addresses {
		if err := netlink.AddrDel(l, &netlink.Addr{IPNet: a.IPNet}); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			failed = append(failed, fmt.Errorf("network link %s: removing address %s: %w", name, a.IPNet, err))
		}
	}
	return errors.Join(failed...)
}
