package replica

import (
	"maps"
	"net"
	"net/netip"
	"slices"

	"github.com/rackseed/rackseed/services/machine"
)

// here is a site as a replica serves it that runs on a node: a link is where the
// node has an address of its network, whatever the appliance's card was called,
// and that address is the replica's own. Links without one are not served from
// there.
func here(site machine.Site, present map[string][]netip.Prefix) machine.Site {
	var links []machine.SiteLink
	for _, l := range site.Links {
		for _, name := range slices.Sorted(maps.Keys(present)) {
			for _, a := range present[name] {
				if a.Masked() != l.Address.Masked() || a.Addr() == site.ServiceAddress {
					continue
				}
				l.MAC, l.Interface, l.VLAN, l.Address = "", name, 0, a
				links = append(links, l)
			}
		}
	}
	site.Links = links
	return site
}

// siteHere is the site as this replica serves it.
func (r *replica) siteHere(site machine.Site) (machine.Site, error) {
	if !r.onNode() {
		return site, nil
	}
	interfaces, err := net.Interfaces()
	if err != nil {
		return site, err
	}
	present := map[string][]netip.Prefix{}
	for _, i := range interfaces {
		list, err := i.Addrs()
		if err != nil {
			continue // it has just gone
		}
		for _, a := range list {
			if n, ok := a.(*net.IPNet); ok {
				if ip, ok := netip.AddrFromSlice(n.IP); ok {
					ones, _ := n.Mask.Size()
					present[i.Name] = append(present[i.Name], netip.PrefixFrom(ip.Unmap(), ones))
				}
			}
		}
	}
	return here(site, present), nil
}
