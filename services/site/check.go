package site

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/rackseed/rackseed/services/machine"
)

// Limits of what a site file may ask for.
const (
	maxPool      = 1 << 16
	minLeaseTime = 10 * time.Second
	maxLeaseTime = 30 * 24 * time.Hour
)

var (
	ifaceForm = regexp.MustCompile(`^[^\s/:]{1,15}$`) // IFNAMSIZ is 16 with the final 0
	uuidForm  = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
	taintForm = regexp.MustCompile(`^[A-Za-z0-9][-A-Za-z0-9_./]*(=[-A-Za-z0-9_.]*)?:(NoSchedule|PreferNoSchedule|NoExecute)$`)
)

// check finds what is wrong between the values, and brings those that have
// several notations (UUIDs, digests) into one.
func check(d *decoder, s *machine.Site) {
	if s.Version != 1 {
		d.problem("version", strconv.Itoa(s.Version), "1")
	}
	if s.Name == "" || len(s.Name) > 63 {
		d.problem("name", strconv.Quote(s.Name), "a name of 1 to 63 letters")
	}
	checkLinks(d, s)
	checkService(d, s)
	checkPeople(d, s)
	checkProfiles(d, s)
	checkMachines(d, s)
	checkCluster(d, s)
}

// unique finds values that are given twice.
type unique[K comparable] struct {
	d    *decoder
	what string
	seen map[K]string
}

func newUnique[K comparable](d *decoder, what string) unique[K] {
	return unique[K]{d, what, map[K]string{}}
}

// add notes that path has the value k; the zero value is none.
func (u unique[K]) add(path string, k K) {
	var none K
	if k == none {
		return
	}
	if first, twice := u.seen[k]; twice {
		u.d.problem(path, fmt.Sprintf("%v is already at %s", k, first), "each "+u.what+" once")
		return
	}
	u.seen[k] = path
}

func checkLinks(d *decoder, s *machine.Site) {
	if len(s.Links) == 0 {
		d.problem("links", "no link", "at least one")
	}
	macs, names := newUnique[inVLAN](d, "link"), newUnique[inVLAN](d, "link")
	gateway := ""
	for i, l := range s.Links {
		path := fmt.Sprintf("links[%d]", i)
		if l.VLAN < 0 || l.VLAN > maxVLAN {
			d.problem(path+".vlan", strconv.Itoa(l.VLAN), fmt.Sprintf("a VLAN ID of 1 to %d, or 0 for the untagged network", maxVLAN))
		}
		switch {
		case l.MAC == "" && l.Interface == "" && !d.bad[path+".mac"]:
			d.problem(path, "neither mac nor interface", "one of them, to choose the link")
		case l.MAC != "" && l.Interface != "":
			d.problem(path, "both mac and interface", "one of them")
		case l.Interface != "" && !ifaceForm.MatchString(l.Interface):
			d.problem(path+".interface", strconv.Quote(l.Interface), "the name of a network interface, as eth0")
		}
		if l.MAC != "" {
			macs.add(path+".mac", inVLAN{string(l.MAC), l.VLAN})
		}
		if l.Interface != "" {
			names.add(path+".interface", inVLAN{l.Interface, l.VLAN})
		}
		if !l.Address.IsValid() {
			continue
		}
		prefix := l.Address.Masked()
		if l.Address.Bits() < 8 || l.Address.Bits() > 30 || !isHost(prefix, l.Address.Addr()) {
			d.problem(path+".address", l.Address.String(), "a host's address in a network of /8 to /30, as 10.77.0.2/24")
			continue
		}
		for j, other := range s.Links[:i] {
			if other.Address.IsValid() && other.Address.Masked().Overlaps(prefix) {
				d.problem(path+".address", fmt.Sprintf("%s overlaps links[%d], %s", prefix, j, other.Address.Masked()), "each link in a network of its own")
			}
		}
		if l.Gateway.IsValid() {
			if gateway != "" {
				d.problem(path+".gateway", "a second gateway, after "+gateway, "at most one")
			}
			gateway = path + ".gateway"
			if !isHost(prefix, l.Gateway) || l.Gateway == l.Address.Addr() {
				d.problem(gateway, l.Gateway.String(), "another host's address in "+prefix.String())
			}
		}
		if l.DHCP != nil {
			checkDHCP(d, path, l)
		}
	}
}

// maxVLAN is the highest VLAN ID; 4095 is reserved (IEEE 802.1Q).
const maxVLAN = 4094

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

func inPool(h *machine.SiteDHCP, a netip.Addr) bool {
	return h != nil && h.From.IsValid() && h.To.IsValid() && a.IsValid() && h.From.Compare(a) <= 0 && a.Compare(h.To) <= 0
}

func checkDHCP(d *decoder, link string, l machine.SiteLink) {
	path, h, prefix := link+".dhcp", l.DHCP, l.Address.Masked()
	host := func(path string, a netip.Addr) {
		if a.IsValid() && !isHost(prefix, a) {
			d.problem(path, a.String(), "a host's address in "+prefix.String())
		}
	}
	host(path+".from", h.From)
	host(path+".to", h.To)
	host(path+".router", h.Router)
	if h.From.IsValid() && h.To.IsValid() {
		switch {
		case h.To.Less(h.From):
			d.problem(path+".to", h.To.String(), "an address not before from, "+h.From.String())
		case size(h.From, h.To) > maxPool:
			d.problem(path+".to", fmt.Sprintf("a pool of %d addresses", size(h.From, h.To)), fmt.Sprintf("at most %d", maxPool))
		}
	}
	if inPool(h, l.Address.Addr()) {
		d.problem(path, "the pool holds the link's own address, "+l.Address.Addr().String(), "a pool without it")
	}
	if inPool(h, h.Router) {
		d.problem(path+".router", h.Router.String()+" is in the pool", "an address outside it")
	}
	if inPool(h, l.Gateway) {
		d.problem(link+".gateway", l.Gateway.String()+" is in the pool", "an address outside it")
	}
	if t := time.Duration(h.LeaseTime); t != 0 && (t < minLeaseTime || t > maxLeaseTime) {
		d.problem(path+".leaseTime", t.String(), fmt.Sprintf("%s to %s", minLeaseTime, maxLeaseTime))
	}
	macs, addresses := newUnique[machine.MAC](d, "hardware address"), newUnique[netip.Addr](d, "address")
	for i, r := range h.Reservations {
		at := fmt.Sprintf("%s.reservations[%d]", path, i)
		macs.add(at+".mac", r.MAC)
		addresses.add(at+".address", r.Address)
		host(at+".address", r.Address)
		if r.Address.IsValid() && (r.Address == l.Address.Addr() || r.Address == h.Router || r.Address == l.Gateway) {
			d.problem(at+".address", r.Address.String()+" is taken by the appliance or the router", "a free address")
		}
	}
}

func size(from, to netip.Addr) uint64 { return uint64(number(to)) - uint64(number(from)) + 1 }

func number(a netip.Addr) uint32 {
	b := a.As4()
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

func checkService(d *decoder, s *machine.Site) {
	a := s.ServiceAddress
	if !a.IsValid() || len(s.Links) == 0 {
		return
	}
	homes, whole := 0, true
	for i, l := range s.Links {
		if !l.Address.IsValid() {
			whole = false
			continue
		}
		prefix := l.Address.Masked()
		if !prefix.Contains(a) {
			continue
		}
		homes++
		taken := func(what string) {
			d.problem("serviceAddress", fmt.Sprintf("%s is %s of links[%d]", a, what, i), "a free address that nothing else uses")
		}
		switch {
		case a == l.Address.Addr():
			taken("the own address")
		case !isHost(prefix, a):
			taken("the network or broadcast address")
		case inPool(l.DHCP, a):
			taken("in the pool")
		case a == l.Gateway || l.DHCP != nil && a == l.DHCP.Router:
			taken("the gateway")
		}
		if l.DHCP == nil {
			continue
		}
		for _, r := range l.DHCP.Reservations {
			if r.Address == a {
				taken("a reservation")
			}
		}
	}
	if homes == 0 && whole {
		d.problem("serviceAddress", a.String()+" is in no link's network", "a free address in the network of one link")
	}
}

func checkPeople(d *decoder, s *machine.Site) {
	for i, key := range s.SSHKeys {
		if _, _, options, rest, err := ssh.ParseAuthorizedKey([]byte(key)); err != nil || len(rest) > 0 || len(options) > 0 {
			d.problem(fmt.Sprintf("sshKeys[%d]", i), "not a public key", "one line as in a .pub file, as ssh-ed25519 AAAA… name")
		}
	}
	names := newUnique[string](d, "operator")
	for i := range s.Operators {
		o, path := &s.Operators[i], fmt.Sprintf("operators[%d]", i)
		names.add(path+".name", o.Name)
		if o.Name == "" {
			d.problem(path+".name", "no name", "the operator's name")
		}
		o.TokenSHA256 = strings.ToLower(o.TokenSHA256)
		if raw, err := hex.DecodeString(o.TokenSHA256); err != nil || len(raw) != 32 {
			// The text is not repeated: a token may stand there by mistake.
			d.problem(path+".tokenSHA256", "not a SHA-256 in hex", "64 hex digits, as printf %s TOKEN | sha256sum prints")
		}
	}
}

func checkProfiles(d *decoder, s *machine.Site) {
	names := newUnique[string](d, "profile")
	for i, p := range s.Profiles {
		path := fmt.Sprintf("profiles[%d]", i)
		names.add(path+".name", p.Name)
		if !machine.IsHostName(p.Name) {
			d.problem(path+".name", strconv.Quote(p.Name), "lower-case letters, digits and hyphens, at most 63")
		}
		for j, t := range p.Taints {
			if !taintForm.MatchString(t) {
				d.problem(fmt.Sprintf("%s.taints[%d]", path, j), strconv.Quote(t), "key=value:effect, the effect NoSchedule, PreferNoSchedule or NoExecute")
			}
		}
		for j, a := range p.KernelArguments {
			if a == "" || strings.ContainsAny(a, "\n\r\"'$`\\") {
				d.problem(fmt.Sprintf("%s.kernelArguments[%d]", path, j), strconv.Quote(a), "an argument without quotes, dollar signs and line breaks")
			}
		}
	}
}

func checkMachines(d *decoder, s *machine.Site) {
	profiles := []string{"control-plane", "worker"} // those that complete makes
	if len(s.Profiles) > 0 {
		profiles = nil
		for _, p := range s.Profiles {
			profiles = append(profiles, p.Name)
		}
	}
	macs, uuids := newUnique[machine.MAC](d, "hardware address"), newUnique[string](d, "UUID")
	names, addresses := newUnique[string](d, "name"), newUnique[netip.Addr](d, "address")
	for i := range s.Machines {
		m, path := &s.Machines[i], fmt.Sprintf("machines[%d]", i)
		m.UUID = strings.ToLower(m.UUID)
		if m.MAC == "" && m.UUID == "" && !d.bad[path+".mac"] {
			d.problem(path, "neither mac nor uuid", "one of them, to know the machine by")
		}
		if m.UUID != "" && !uuidForm.MatchString(m.UUID) {
			d.problem(path+".uuid", strconv.Quote(m.UUID), "a UUID, as 4c4c4544-0042-3510-8052-b4c04f4d3132")
		}
		if m.Name != "" && !machine.IsHostName(m.Name) {
			d.problem(path+".name", strconv.Quote(m.Name), "a host name: lower-case letters, digits and hyphens, at most 63")
		}
		if m.Profile != "" && !slices.Contains(profiles, m.Profile) {
			d.problem(path+".profile", "no profile "+strconv.Quote(m.Profile), "one of "+strings.Join(profiles, ", "))
		}
		macs.add(path+".mac", m.MAC)
		uuids.add(path+".uuid", m.UUID)
		names.add(path+".name", m.Name)
		addresses.add(path+".address", m.Address)
		if m.Address.IsValid() {
			checkStatic(d, path+".address", s, m)
		}
	}
}

// checkStatic checks a machine's static address against the links.
func checkStatic(d *decoder, path string, s *machine.Site, m *machine.ListedMachine) {
	a := m.Address
	if a == s.ServiceAddress {
		d.problem(path, a.String()+" is the service address", "an address of the machine's own")
		return
	}
	for i, l := range s.Links {
		if l.DHCP == nil || !l.Address.IsValid() || !isHost(l.Address.Masked(), a) {
			continue
		}
		switch {
		case inPool(l.DHCP, a):
			d.problem(path, fmt.Sprintf("%s is in the pool of links[%d]", a, i), "an address outside it")
		case a == l.Address.Addr() || a == l.Gateway || a == l.DHCP.Router:
			d.problem(path, fmt.Sprintf("%s is taken by the appliance or the router of links[%d]", a, i), "a free address")
		}
		for j, r := range l.DHCP.Reservations {
			if r.Address == a && r.MAC != m.MAC {
				d.problem(path, fmt.Sprintf("%s is reserved for %s by links[%d].dhcp.reservations[%d]", a, r.MAC, i, j), "a free address")
			}
		}
		return
	}
	d.problem(path, a.String()+" is in the network of no link with dhcp", "an address in one of them, so that the machine finds the boot service")
}

func checkCluster(d *decoder, s *machine.Site) {
	subnets := []struct {
		path   string
		prefix netip.Prefix
	}{
		{"cluster.podSubnet", orElse(s.Cluster.PodSubnet, defaultPodSubnet)},
		{"cluster.serviceSubnet", orElse(s.Cluster.ServiceSubnet, defaultServiceSubnet)},
	}
	for i, n := range subnets {
		if n.prefix != n.prefix.Masked() {
			d.problem(n.path, n.prefix.String(), "the network's own address, "+n.prefix.Masked().String())
		}
		if n.prefix.Bits() > 24 {
			d.problem(n.path, n.prefix.String(), "a network of /24 or larger")
		}
		for j, l := range s.Links {
			if l.Address.IsValid() && l.Address.Masked().Overlaps(n.prefix) {
				d.problem(n.path, fmt.Sprintf("%s overlaps links[%d], %s", n.prefix, j, l.Address.Masked()), "a network that nothing else uses")
			}
		}
		if i > 0 && n.prefix.Overlaps(subnets[0].prefix) {
			d.problem(n.path, fmt.Sprintf("%s overlaps the pods' %s", n.prefix, subnets[0].prefix), "a network that nothing else uses")
		}
	}
	for i, name := range s.Cluster.ExtraSANs {
		if name == "" || strings.ContainsAny(name, " \t\n/") {
			d.problem(fmt.Sprintf("cluster.extraSANs[%d]", i), strconv.Quote(name), "a host name or an address")
		}
	}
}

func orElse(p, standard netip.Prefix) netip.Prefix {
	if p.IsValid() {
		return p
	}
	return standard
}
