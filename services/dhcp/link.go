package dhcp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/rackseed/rackseed/services/dhcp/foreign"
	"github.com/rackseed/rackseed/services/machine"
)

// Link is one network link that is served, with all that is fixed about it.
type Link struct {
	Interface    string       // the kernel's name
	Cluster      string       // whose replica serves it: the cluster's ID
	Site         string       // the site's name
	Service      netip.Addr   // the service address: server identifier, TFTP and HTTP server
	Own          netip.Addr   // the appliance's own address there
	Prefix       netip.Prefix // the link's network, masked
	From, To     netip.Addr   // the pool, both ends included
	Router       netip.Addr   // for clients; invalid: none
	Gateway      netip.Addr   // the appliance's; invalid: none
	DNS          []netip.Addr
	LeaseTime    time.Duration
	Reservations []machine.Reservation
	Listed       []machine.ListedMachine // the site file's machines
	Netboot      machine.SiteNetboot     // with its defaults
	Others       bool                    // clients that neither netboot nor are machines are served too
}

// Links chooses, for the links of the site file that are to be served, the
// network interfaces that are present. It returns those that it finds, and an
// error that names the others. cluster is the cluster's ID.
func Links(site machine.Site, cluster string, present []net.Interface) ([]Link, error) {
	var links []Link
	var missing []error
	for i, l := range site.Links {
		if l.DHCP == nil {
			continue
		}
		name, ok := l.InterfaceIn(present)
		if !ok {
			missing = append(missing, fmt.Errorf("links[%d] of the site file: there is no network interface %s; it is not served until one appears", i, LinkWord(l)))
			continue
		}
		link := Link{
			Interface: name, Cluster: cluster, Site: site.Name, Service: site.ServiceAddress, Own: l.Address.Addr(), Prefix: l.Address.Masked(),
			From: l.DHCP.From, To: l.DHCP.To, Router: l.DHCP.Router, Gateway: l.Gateway, DNS: l.DHCP.DNS,
			LeaseTime: time.Duration(l.DHCP.LeaseTime), Reservations: l.DHCP.Reservations,
			Listed: site.Machines, Netboot: site.Netboot.Filled(), Others: l.DHCP.Others,
		}
		links = append(links, link)
	}
	return links, errors.Join(missing...)
}

// LinkWord is how the site file chooses a link, for people.
func LinkWord(l machine.SiteLink) string {
	word := l.Interface + string(l.MAC) // one of them
	if l.VLAN != 0 {
		word += fmt.Sprintf(" in VLAN %d", l.VLAN)
	}
	return word
}

// Self is how the link's server is known to other Rackseed appliances.
func (l Link) Self() foreign.Self {
	return foreign.Self{Interface: l.Interface, Service: l.Service, Cluster: l.Cluster, Site: l.Site}
}

// special says whether no client may ever have the address: it is outside the
// link's network, or the network's own, the broadcast, the service address,
// the appliance's or a router's.
func (l Link) special(a netip.Addr) bool {
	return !l.Prefix.Contains(a) || a == l.Prefix.Addr() || a == l.broadcast() ||
		a == l.Service || a == l.Own || a == l.Router || a == l.Gateway
}

func (l Link) inPool(a netip.Addr) bool {
	return a.Is4() && l.From.Compare(a) <= 0 && a.Compare(l.To) <= 0
}

// broadcast is the last address of the network.
func (l Link) broadcast() netip.Addr {
	return address(number(l.Prefix.Addr()) | ^mask(l.Prefix))
}

func mask(p netip.Prefix) uint32 { return ^uint32(0) << (32 - p.Bits()) }

func number(a netip.Addr) uint32 {
	b := a.As4()
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

func address(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}
