package approve

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/rackseed/rackseed/services/machine"
)

// firstHost is where automatic addresses begin in a network: the lowest ones
// are commonly routers'.
const firstHost = 10

// maxTried bounds the search for a free address in a large network. There are
// far fewer machines.
const maxTried = 1 << 16

// taken is what other machines and the site have, each with whose it is.
type taken struct {
	names     map[string]string
	addresses map[netip.Addr]string
}

// takenBy collects what nobody but machine self may get. What the list keeps
// for self is not taken for it.
func takenBy(site machine.Site, machines []machine.Machine, self machine.ID) taken {
	t := taken{map[string]string{}, map[netip.Addr]string{}}
	addr := func(a netip.Addr, whose string) {
		if a.IsValid() {
			t.addresses[a] = whose
		}
	}
	var me machine.Machine
	for _, m := range machines {
		if m.ID == self {
			me = m
			continue
		}
		if m.Name != "" {
			t.names[m.Name] = "machine " + string(m.ID) + "'s"
		}
		addr(m.Address, "machine "+string(m.ID)+"'s")
	}
	mine, listed := site.Listed(me)
	for _, l := range site.Machines {
		if listed && l.Key() == mine.Key() {
			continue
		}
		if l.Name != "" && t.names[l.Name] == "" {
			t.names[l.Name] = "kept in the site file for another machine"
		}
		addr(l.Address, "kept in the site file for another machine")
	}
	for _, l := range site.Links {
		addr(l.Address.Addr(), "the appliance's own")
		addr(l.Gateway, "a gateway's")
		if l.DHCP == nil {
			continue
		}
		addr(l.DHCP.Router, "a gateway's")
		for _, d := range l.DHCP.DNS {
			addr(d, "a name server's")
		}
		for _, r := range l.DHCP.Reservations {
			if !slices.Contains(me.MACs, r.MAC) {
				addr(r.Address, "reserved for "+string(r.MAC))
			}
		}
	}
	addr(site.ServiceAddress, "the service address")
	return t
}

// chooseAddress takes the wish or says why it cannot be had; without a wish,
// the first usable one of kept, else the lowest free one of the machine's link.
// lease is the machine's, if any: it tells on which link it is.
func (t taken) chooseAddress(site machine.Site, leased func(netip.Addr) bool, wish, lease netip.Addr, kept ...netip.Addr) (netip.Addr, error) {
	if wish.IsValid() {
		if err := t.usable(site, wish); err != nil {
			return netip.Addr{}, fmt.Errorf("address %s: %w", wish, err)
		}
		return wish, nil
	}
	for _, a := range kept {
		if a.IsValid() && t.usable(site, a) == nil {
			return a, nil
		}
	}
	link, err := servedLink(site, lease)
	if err != nil {
		return netip.Addr{}, err
	}
	prefix := link.Address.Masked()
	a := prefix.Addr()
	for range firstHost {
		a = a.Next()
	}
	for range maxTried {
		if !prefix.Contains(a) {
			break
		}
		if t.usable(site, a) == nil && !leased(a) {
			return a, nil
		}
		a = a.Next()
	}
	return netip.Addr{}, fmt.Errorf("network %s has no free address outside of the pool: make the pool smaller, or approve with an address", prefix)
}

// usable says why a cannot be a node's static address, or nil.
func (t taken) usable(site machine.Site, a netip.Addr) error {
	for _, l := range site.Links {
		prefix := l.Address.Masked()
		if !prefix.IsValid() || !prefix.Contains(a) {
			continue
		}
		switch {
		case a == prefix.Addr() && prefix.Bits() < a.BitLen()-1:
			return fmt.Errorf("it is the address of network %s itself", prefix)
		case a.Is4() && prefix.Bits() < 31 && !prefix.Contains(a.Next()):
			return fmt.Errorf("it is the broadcast address of network %s", prefix)
		case l.DHCP != nil && l.DHCP.From.Compare(a) <= 0 && a.Compare(l.DHCP.To) <= 0:
			return fmt.Errorf("it is in the DHCP pool %s to %s", l.DHCP.From, l.DHCP.To)
		case t.addresses[a] != "":
			return errors.New("it is " + t.addresses[a])
		}
		return nil
	}
	return errors.New("it is in no network of the site file's links")
}

// servedLink is the link that a machine without an address gets one on: the
// one that its lease is from, or the only one with DHCP.
func servedLink(site machine.Site, lease netip.Addr) (machine.SiteLink, error) {
	var served []machine.SiteLink
	for _, l := range site.Links {
		if l.DHCP == nil {
			continue
		}
		if lease.IsValid() && l.Address.Masked().Contains(lease) {
			return l, nil
		}
		served = append(served, l)
	}
	switch len(served) {
	case 0:
		return machine.SiteLink{}, errors.New("the site file serves no link: approve with an address")
	case 1:
		return served[0], nil
	}
	return machine.SiteLink{}, errors.New("several links are served and it has a lease on none: approve with an address")
}

// leaseOf finds the address that the machine netbooted with.
func leaseOf(v View, m machine.Machine) netip.Addr {
	macs := m.MACs
	if m.Inventory != nil && m.Inventory.BootMAC != "" {
		macs = append([]machine.MAC{m.Inventory.BootMAC}, macs...)
	}
	for _, mac := range macs {
		if l, ok := v.LeaseByMAC(mac); ok {
			return l.Address
		}
	}
	return netip.Addr{}
}

// reservedFor finds the address that the site file keeps for the machine.
func reservedFor(site machine.Site, m machine.Machine) netip.Addr {
	for _, l := range site.Links {
		if l.DHCP == nil {
			continue
		}
		for _, r := range l.DHCP.Reservations {
			if slices.Contains(m.MACs, r.MAC) {
				return r.Address
			}
		}
	}
	return netip.Addr{}
}
