package site

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rackseed/rackseed/services/machine"
)

// Limits of what a site file may ask for.
const (
	maxLinks     = 256 // with those in VLANs
	maxMachines  = 10_000
	maxProfiles  = 256
	maxPool      = 1 << 16
	minLeaseTime = 10 * time.Second
	maxLeaseTime = 30 * 24 * time.Hour
	minWait      = 10 * time.Second
	maxWait      = 30 * 24 * time.Hour
)

var ifaceForm = regexp.MustCompile(`^[^\s/:]{1,15}$`) // IFNAMSIZ is 16 with the final 0

// inVLAN is a network on a link: one link carries several, each in a VLAN.
type inVLAN struct {
	link string
	vlan int
}

func (v inVLAN) String() string {
	if v.vlan == 0 {
		return v.link
	}
	return fmt.Sprintf("VLAN %d of %s", v.vlan, v.link)
}

// network is what a link is in.
type network struct {
	path   string // of the link
	link   machine.SiteLink
	prefix netip.Prefix // invalid where the link's address cannot be relied on
}

// serves says whether machines at that address can be served by DHCP.
func (n network) serves(a netip.Addr) bool {
	return n.prefix.IsValid() && n.link.DHCP != nil && isHost(n.prefix, a)
}

// pool is the link's, if it has one that can be relied on.
func (n network) pool() (from, to netip.Addr, ok bool) {
	h := n.link.DHCP
	if !n.prefix.IsValid() || h == nil || !isHost(n.prefix, h.From) || !isHost(n.prefix, h.To) || h.To.Less(h.From) {
		return netip.Addr{}, netip.Addr{}, false
	}
	return h.From, h.To, true
}

func checkLinks(d *decoder, s *machine.Site) []network {
	if len(s.Links) == 0 {
		d.problem("links", "no link", "at least one")
	}
	links := newUnique[inVLAN](d, "link")
	var nets []network
	gateway := ""
	for i, l := range s.Links {
		n := network{path: fmt.Sprintf("links[%d]", i), link: l}
		checkChoice(d, n, links)
		n.prefix = checkAddress(d, n, nets)
		nets = append(nets, n)
		if l.Gateway.IsValid() {
			if gateway != "" {
				d.problem(n.path+".gateway", "a second gateway, after "+gateway, "at most one")
			}
			gateway = n.path + ".gateway"
			if n.prefix.IsValid() && (!isHost(n.prefix, l.Gateway) || l.Gateway == l.Address.Addr()) {
				d.problem(gateway, l.Gateway.String(), "another host's address in "+n.prefix.String())
			}
		}
		if l.DHCP != nil {
			checkDHCP(d, n)
		}
	}
	return nets
}

// checkChoice checks what chooses a link.
func checkChoice(d *decoder, n network, links unique[inVLAN]) {
	l := n.link
	checkMAC(d, n.path+".mac", l.MAC)
	switch {
	case d.broken(n.path+".mac") || d.broken(n.path+".interface"):
	case l.MAC == "" && l.Interface == "":
		d.problem(n.path, "neither mac nor interface", "one of them, to choose the link")
	case l.MAC != "" && l.Interface != "":
		d.problem(n.path, "both mac and interface", "one of them")
	case l.Interface != "" && !ifaceForm.MatchString(l.Interface):
		d.problem(n.path+".interface", strconv.Quote(l.Interface), "the name of a network interface, as eth0")
	case l.MAC != "":
		links.add(n.path+".mac", inVLAN{string(l.MAC), l.VLAN})
	default:
		links.add(n.path+".interface", inVLAN{l.Interface, l.VLAN})
	}
}

// checkAddress returns the network of a link's own address, if that can be
// relied on: a pool that is wholly elsewhere leaves open which of them is meant.
func checkAddress(d *decoder, n network, before []network) netip.Prefix {
	address := n.link.Address
	if !address.IsValid() {
		return netip.Prefix{}
	}
	prefix := address.Masked()
	if address.Bits() < 8 || address.Bits() > 30 || !isHost(prefix, address.Addr()) {
		d.problem(n.path+".address", address.String(), "a host's address in a network of /8 to /30, as 10.77.0.2/24")
		return netip.Prefix{}
	}
	if h := n.link.DHCP; h != nil && h.From.IsValid() && h.To.IsValid() && !prefix.Contains(h.From) && !prefix.Contains(h.To) {
		d.problem(n.path+".dhcp", fmt.Sprintf("the pool %s to %s is not in the link's network, %s", h.From, h.To, prefix), "address, from and to in one network")
		return netip.Prefix{}
	}
	for _, other := range before {
		if other.prefix.IsValid() && other.prefix.Overlaps(prefix) {
			d.problem(n.path+".address", fmt.Sprintf("%s overlaps %s, %s", prefix, other.path, other.prefix), "each link in a network of its own")
		}
	}
	return prefix
}

// isHost says whether a host may have the address in the network.
func isHost(p netip.Prefix, a netip.Addr) bool {
	return p.Contains(a) && a != p.Masked().Addr() && a != broadcast(p)
}

// broadcast is the last address of an IPv4 network.
func broadcast(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As4()
	for bit := p.Bits(); bit < 32; bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	return netip.AddrFrom4(b)
}

func checkDHCP(d *decoder, n network) {
	path, h := n.path+".dhcp", n.link.DHCP
	host := func(path string, a netip.Addr) {
		if n.prefix.IsValid() && a.IsValid() && !isHost(n.prefix, a) {
			d.problem(path, a.String(), "a host's address in "+n.prefix.String())
		}
	}
	host(path+".from", h.From)
	host(path+".to", h.To)
	host(path+".router", h.Router)
	if h.From.IsValid() && h.To.IsValid() && !d.broken(path+".from") {
		switch {
		case h.To.Less(h.From):
			d.problem(path+".to", h.To.String(), "an address not before from, "+h.From.String())
		case size(h.From, h.To) > maxPool:
			d.problem(path+".to", fmt.Sprintf("a pool of %d addresses", size(h.From, h.To)), fmt.Sprintf("at most %d", maxPool))
		}
	}
	checkTime(d, path+".leaseTime", h.LeaseTime, minLeaseTime, maxLeaseTime)
	macs, addresses := newUnique[machine.MAC](d, "hardware address"), newUnique[netip.Addr](d, "address")
	for i, r := range h.Reservations {
		at := fmt.Sprintf("%s.reservations[%d]", path, i)
		checkMAC(d, at+".mac", r.MAC)
		macs.add(at+".mac", r.MAC)
		addresses.add(at+".address", r.Address)
		host(at+".address", r.Address)
		if r.Address.IsValid() && (r.Address == n.link.Address.Addr() || r.Address == h.Router || r.Address == n.link.Gateway) {
			d.problem(at+".address", r.Address.String()+" is taken by the appliance or the router", "a free address")
		}
	}
}

// checkTime checks a time that may be left out.
func checkTime(d *decoder, path string, value machine.Duration, least, most time.Duration) {
	_, given := d.at[path]
	if t := time.Duration(value); given && (t < least || t > most) {
		d.problem(path, t.String(), fmt.Sprintf("%s to %s", least, most))
	}
}

func size(from, to netip.Addr) uint64 { return uint64(number(to)) - uint64(number(from)) + 1 }

func number(a netip.Addr) uint32 {
	b := a.As4()
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

func checkService(d *decoder, s *machine.Site, nets []network) {
	a := s.ServiceAddress
	if !a.IsValid() {
		return
	}
	home := false
	for _, n := range nets {
		if !n.prefix.IsValid() || !n.prefix.Contains(a) {
			continue
		}
		home = true
		taken := func(what string) {
			d.problem("serviceAddress", fmt.Sprintf("%s is %s of %s", a, what, n.path), "a free address that nothing else uses")
		}
		switch {
		case a == n.link.Address.Addr():
			taken("the own address")
		case !isHost(n.prefix, a):
			taken("the network or broadcast address")
		case a == n.link.Gateway || n.link.DHCP != nil && a == n.link.DHCP.Router:
			taken("the gateway")
		case n.link.DHCP != nil && slices.ContainsFunc(n.link.DHCP.Reservations, func(r machine.Reservation) bool { return r.Address == a }):
			taken("a reservation")
		}
	}
	if !home && !d.broken("links") {
		d.problem("serviceAddress", a.String()+" is in no link's network", "a free address in the network of one link")
	}
}

// occupant is an address that a pool must not hold.
type occupant struct {
	address              netip.Addr
	who                  string
	path, text, expected string // the problem if it is the only one
}

// checkPools finds what a pool must not hold. One such address is that one's
// problem; of several the pool is.
func checkPools(d *decoder, s *machine.Site, nets []network) {
	for _, n := range nets {
		from, to, ok := n.pool()
		if !ok || d.broken(n.path+".dhcp") {
			continue
		}
		l := n.link
		in := " is in the pool"
		all := []occupant{
			{l.Address.Addr(), "the link's own address", n.path + ".dhcp", "the pool holds the link's own address, " + l.Address.Addr().String(), "a pool without it"},
			{s.ServiceAddress, "the service address", "serviceAddress", s.ServiceAddress.String() + in + " of " + n.path, "a free address that nothing else uses"},
			{l.Gateway, "the gateway", n.path + ".gateway", l.Gateway.String() + in, "an address outside it"},
			{l.DHCP.Router, "the router", n.path + ".dhcp.router", l.DHCP.Router.String() + in, "an address outside it"},
		}
		for i, m := range s.Machines {
			path := fmt.Sprintf("machines[%d]", i)
			all = append(all, occupant{m.Address, path, path + ".address", m.Address.String() + in + " of " + n.path, "an address outside it"})
		}
		var inside []occupant
		seen := map[netip.Addr]bool{}
		for _, o := range all {
			if o.address.IsValid() && from.Compare(o.address) <= 0 && o.address.Compare(to) <= 0 && !seen[o.address] {
				seen[o.address] = true
				inside = append(inside, o)
			}
		}
		switch len(inside) {
		case 0:
		case 1:
			d.problem(inside[0].path, inside[0].text, inside[0].expected)
		default:
			const named = 3
			var words []string
			for _, o := range inside[:min(named, len(inside))] {
				words = append(words, fmt.Sprintf("%s (%s)", o.address, o.who))
			}
			text := "the pool holds " + strings.Join(words, ", ")
			if more := len(inside) - named; more > 0 {
				text += fmt.Sprintf(" and %d more", more)
			}
			d.problem(n.path+".dhcp", text, "a pool without them")
		}
	}
}
