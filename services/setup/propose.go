package setup

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

const (
	// candidates is how many addresses are looked at to find a free one.
	candidates = 8
	// poolSize is how many addresses a proposed pool has at most.
	poolSize = 100
)

// Facts are what is known of the network that a link is on.
type Facts struct {
	Offers []Offer // of DHCP servers there
	Quiet  bool    // it was asked, and no DHCP server answers
	// Elsewhere are the networks that the machine's other links were seen to be
	// in: a proposal stays out of them.
	Elsewhere []netip.Prefix
	// Owners are who answered for an address.
	Owners map[netip.Addr]string
}

// taken says whether an address is somebody's, as far as is known.
func (f Facts) taken(a netip.Addr) bool {
	if f.Owners[a] != "" {
		return true
	}
	return slices.ContainsFunc(f.Offers, func(o Offer) bool {
		return a == o.Server || a == o.Address || a == o.Router || slices.Contains(o.DNS, a)
	})
}

// OwnAddresses are addresses that may be proposed for the appliance, the best
// first; whether they are free is to be asked. Where a DHCP server offers
// addresses they are in its network, at the upper end, which pools rarely
// reach; else in a network of our own.
func (f Facts) OwnAddresses() []netip.Prefix {
	var list []netip.Prefix
	add := func(p netip.Prefix, n uint32) {
		if a := at(p, n); isHost(p, a) && len(list) < candidates && !f.taken(a) {
			list = append(list, netip.PrefixFrom(a, p.Bits()))
		}
	}
	for _, o := range f.Offers {
		if o.Network.IsValid() {
			for back := uint32(2); back <= hosts(o.Network) && len(list) < candidates; back++ {
				add(o.Network, hosts(o.Network)+1-back)
			}
			return list
		}
	}
	for second := byte(77); second < 177; second++ {
		own := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, second, 0, 0}), 24)
		if slices.ContainsFunc(f.Elsewhere, own.Overlaps) {
			continue
		}
		for n := uint32(2); len(list) < candidates; n += 2 { // the odd ones are for the service address
			add(own, n)
		}
		break
	}
	return list
}

// ServiceAddresses are addresses that may be proposed as service address beside
// the appliance's own one: the next ones above it, then those below.
func (f Facts) ServiceAddresses(own netip.Prefix, gateway netip.Addr) []netip.Addr {
	var list []netip.Addr
	add := func(a netip.Addr) {
		if a.IsValid() && isHost(own.Masked(), a) && a != gateway && !f.taken(a) {
			list = append(list, a)
		}
	}
	for up, n := own.Addr().Next(), 0; n < candidates; n, up = n+1, up.Next() {
		add(up)
	}
	for down, n := own.Addr().Prev(), 0; n < candidates; n, down = n+1, down.Prev() {
		add(down)
	}
	return list[:min(len(list), candidates)]
}

// PoolRegion is where in a network a pool is proposed: what has to be asked
// about before Pool is. In a /24 that is .100 to .199.
func PoolRegion(network netip.Prefix) []netip.Addr {
	first, last := uint32(1), hosts(network)
	if last >= 254 {
		first, last = 100, 199
	}
	if last > poolSize {
		first = max(first, last-poolSize+1)
	}
	list := make([]netip.Addr, 0, poolSize)
	for n := first; n <= last; n++ {
		list = append(list, at(network, n))
	}
	return list
}

// Pool proposes the longest run of free addresses in the pool's region, without
// those that are not for it; both ends are invalid if there is none.
func (f Facts) Pool(network netip.Prefix, not ...netip.Addr) (from, to netip.Addr) {
	best, run := 0, []netip.Addr(nil)
	for _, a := range PoolRegion(network) {
		if slices.Contains(not, a) || f.taken(a) {
			run = nil
			continue
		}
		if run = append(run, a); len(run) > best {
			best, from, to = len(run), run[0], a
		}
	}
	return from, to
}

// Gateway proposes the router that a DHCP server names, or none.
func (f Facts) Gateway(own netip.Prefix) netip.Addr {
	for _, o := range f.Offers {
		if o.Router.IsValid() && own.Masked().Contains(o.Router) && o.Router != own.Addr() {
			return o.Router
		}
	}
	return netip.Addr{}
}

// DNS proposes the name servers that a DHCP server names.
func (f Facts) DNS() []netip.Addr {
	for _, o := range f.Offers {
		if len(o.DNS) > 0 {
			return o.DNS
		}
	}
	return nil
}

// hosts is how many addresses of a network hosts can have.
func hosts(p netip.Prefix) uint32 {
	if p.Bits() > 30 {
		return 0
	}
	return 1<<(32-p.Bits()) - 2
}

// at is the n-th address of a network.
func at(p netip.Prefix, n uint32) netip.Addr {
	b := p.Masked().Addr().As4()
	var sum [4]byte
	binary.BigEndian.PutUint32(sum[:], binary.BigEndian.Uint32(b[:])+n)
	return netip.AddrFrom4(sum)
}

// isHost says whether a host may have the address in the network.
func isHost(p netip.Prefix, a netip.Addr) bool {
	return p.Contains(a) && a != at(p, 0) && a != at(p, hosts(p)+1)
}

// DefaultName is proposed as the site's name.
const DefaultName = "rack1"

// Ask lists the addresses that somebody may have and that Fill would propose:
// their owners are to be known before.
func (f Facts) Ask(d Draft) []netip.Addr {
	own, err := netip.ParsePrefix(d.Address)
	var list []netip.Addr
	if err != nil {
		all := f.OwnAddresses()
		for _, p := range all {
			list = append(list, p.Addr())
		}
		if len(all) == 0 {
			return nil
		}
		own = all[0]
	}
	if !own.Addr().Is4() {
		return list
	}
	gateway, _ := netip.ParseAddr(d.Gateway) // none: the zero Addr is no host's
	if d.Service == "" {
		list = append(list, f.ServiceAddresses(own, gateway)...)
	}
	if d.From == "" && d.To == "" {
		list = append(list, PoolRegion(own)...)
	}
	return list
}

// Fill answers what a draft has no answer for. The draft names the link. DHCP is
// proposed where it is known that nobody answers; what the draft says stays.
func (f Facts) Fill(d Draft) Draft {
	if d.Address == "" {
		if own := f.OwnAddresses(); len(own) > 0 {
			d.Address = own[0].String()
		}
	}
	own, err := netip.ParsePrefix(d.Address)
	if err != nil || !own.Addr().Is4() {
		return d // the person's slip is told by the rules
	}
	if gateway := f.Gateway(own); d.Gateway == "" && gateway.IsValid() {
		d.Gateway = gateway.String()
	}
	gateway, _ := netip.ParseAddr(d.Gateway) // none: the zero Addr is no host's
	if service := f.ServiceAddresses(own, gateway); d.Service == "" && len(service) > 0 {
		d.Service = service[0].String()
	}
	if f.Quiet {
		d.DHCP = true
	}
	if d.DHCP && d.From == "" && d.To == "" {
		service, _ := netip.ParseAddr(d.Service)
		if from, to := f.Pool(own, own.Addr(), gateway, service); from.IsValid() {
			d.From, d.To = from.String(), to.String()
		}
	}
	if d.DHCP && len(d.DNS) == 0 {
		for _, a := range f.DNS() {
			d.DNS = append(d.DNS, a.String())
		}
	}
	if d.Name == "" {
		d.Name = DefaultName
	}
	return d
}
