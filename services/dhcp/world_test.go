package dhcp

import (
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
)

var (
	start   = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	service = ip("10.77.0.3")
)

func ip(s string) netip.Addr {
	if s == "" {
		return netip.Addr{}
	}
	return netip.MustParseAddr(s)
}

func testLink() Link {
	return Link{
		Interface: "eth0", Service: service, Own: ip("10.77.0.2"), Prefix: netip.MustParsePrefix("10.77.0.0/24"),
		From: ip("10.77.0.100"), To: ip("10.77.0.103"), Router: ip("10.77.0.1"), DNS: []netip.Addr{ip("10.77.0.1")},
		LeaseTime: time.Hour, Others: true, Cluster: "c-1", Site: "lab", Netboot: machine.SiteNetboot{}.Filled(),
		Reservations: []machine.Reservation{
			{MAC: "52:54:00:00:00:09", Address: ip("10.77.0.50")},
			{MAC: "52:54:00:00:00:08", Address: ip("10.77.0.103")}, // in the pool
		},
		Listed: []machine.ListedMachine{{MAC: "52:54:00:00:00:07", Address: ip("10.77.0.11")}},
	}
}

// world is a state with no rules of its own: it does what a command says, so
// that what Decide gets wrong shows.
type world struct {
	machines []machine.Machine
	leases   map[netip.Addr]machine.Lease
	offers   map[netip.Addr]machine.MAC
	now      time.Time
	installs map[machine.ID]*machine.Intent
	window   bool // the discovery window is open
	closed   bool // another DHCP server shows
}

func (w *world) Open() bool      { return !w.closed }
func (w *world) Exhausted() bool { return false }

func (w *world) InstallIntent(id machine.ID) *machine.Intent { return w.installs[id] }

func (w *world) Circumstances(_ machine.Machine, now time.Time) machine.Circumstances {
	return machine.Circumstances{Now: now, Window: w.window}
}

func newWorld() *world {
	return &world{leases: map[netip.Addr]machine.Lease{}, offers: map[netip.Addr]machine.MAC{}, now: start}
}

func (w *world) MachineByMAC(mac machine.MAC) (machine.Machine, bool) {
	for _, m := range w.machines {
		if slices.Contains(m.MACs, mac) {
			return m, true
		}
	}
	return machine.Machine{}, false
}

func (w *world) MachineByUUID(uuid string) (machine.Machine, bool) {
	for _, m := range w.machines {
		if m.UUID == uuid {
			return m, true
		}
	}
	return machine.Machine{}, false
}

func (w *world) Machines() []machine.Machine { return w.machines }

func (w *world) Lease(a netip.Addr) (machine.Lease, bool) {
	l, ok := w.leases[a]
	return l, ok
}

func (w *world) LeaseByMAC(mac machine.MAC) (machine.Lease, bool) {
	for _, l := range w.leases {
		if l.MAC == mac && !l.Declined {
			return l, true
		}
	}
	return machine.Lease{}, false
}

func (w *world) Offered(a netip.Addr) (machine.MAC, bool) {
	mac, ok := w.offers[a]
	return mac, ok
}

func (w *world) OfferTo(mac machine.MAC) (netip.Addr, bool) {
	for a, to := range w.offers {
		if to == mac {
			return a, true
		}
	}
	return netip.Addr{}, false
}

func (w *world) apply(c state.Command) {
	switch x := c.(type) {
	case state.LeaseBind:
		if old, ok := w.LeaseByMAC(x.Lease.MAC); ok {
			delete(w.leases, old.Address)
		}
		w.leases[x.Lease.Address] = x.Lease
	case state.LeaseRelease:
		delete(w.leases, x.Address)
	case state.LeaseDecline:
		l := w.leases[x.Address]
		l.Declined, l.Expires = true, x.Until
		w.leases[x.Address] = l
	}
}

func (w *world) lease(mac machine.MAC, a string, expires time.Duration) *world {
	w.leases[ip(a)] = machine.Lease{Address: ip(a), MAC: mac, Expires: w.now.Add(expires)}
	return w
}

// packet4 describes a client's request. Empty addresses are left out.
type packet4 struct {
	kind                   dhcpv4.MessageType
	mac                    string
	requested, server, own string
	relay                  string
	options                []dhcpv4.Option
}

func (p packet4) build(t interface{ Fatal(...any) }) *dhcpv4.DHCPv4 {
	hw, err := net.ParseMAC(p.mac)
	if err != nil {
		t.Fatal(err)
	}
	mods := []dhcpv4.Modifier{dhcpv4.WithMessageType(p.kind), dhcpv4.WithHwAddr(hw)}
	if p.requested != "" {
		mods = append(mods, dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.ParseIP(p.requested))))
	}
	if p.server != "" {
		mods = append(mods, dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.ParseIP(p.server))))
	}
	if p.own != "" {
		mods = append(mods, dhcpv4.WithClientIP(net.ParseIP(p.own)))
	}
	if p.relay != "" {
		mods = append(mods, dhcpv4.WithGatewayIP(net.ParseIP(p.relay)))
	}
	for _, o := range p.options {
		mods = append(mods, dhcpv4.WithOption(o))
	}
	req, err := dhcpv4.New(mods...)
	if err != nil {
		t.Fatal(err)
	}
	// As it looks after the wire.
	req, err = dhcpv4.FromBytes(req.ToBytes())
	if err != nil {
		t.Fatal(err)
	}
	return req
}

const (
	macA = "52:54:00:00:00:0a"
	macB = "52:54:00:00:00:0b"
)

func pxe(arch byte) []dhcpv4.Option {
	return []dhcpv4.Option{
		dhcpv4.OptClassIdentifier("PXEClient:Arch:00007:UNDI:003016"),
		dhcpv4.OptGeneric(dhcpv4.OptionClientSystemArchitectureType, []byte{0, arch}),
	}
}
