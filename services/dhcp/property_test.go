package dhcp

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"pgregory.net/rapid"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/statetest"
)

// Whatever clients send, in whatever order: nobody is offered or given an
// address that is not of the pool or fixed for them, that another one holds,
// or that was declined. Who holds an address keeps it, also where another
// server shows; nobody is answered who is not served. The world commits without
// rules of its own, so this is Decide's doing alone.
func TestNeverTwice(t *testing.T) {
	link := testLink()
	addresses := []string{"", "10.77.0.0", "10.77.0.2", "10.77.0.3", "10.77.0.11", "10.77.0.12", "10.77.0.50", "10.77.0.100",
		"10.77.0.101", "10.77.0.102", "10.77.0.103", "10.77.0.110", "10.77.0.255", "192.168.1.5"}
	own := map[netip.Addr]machine.MAC{ip("10.77.0.11"): "52:54:00:00:00:07", ip("10.77.0.12"): "52:54:00:00:00:0c",
		ip("10.77.0.50"): "52:54:00:00:00:09", ip("10.77.0.103"): "52:54:00:00:00:08"}
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld()
		w.machines = []machine.Machine{{ID: "m-c", MACs: []machine.MAC{"52:54:00:00:00:0c"}, Address: ip("10.77.0.12")}}
		link.Others = rapid.Bool().Draw(t, "others")
		pick := rapid.SampledFrom(addresses)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			w.now = w.now.Add(time.Duration(rapid.IntRange(0, 1500).Draw(t, "seconds")) * time.Second)
			p := packet4{
				kind:      rapid.SampledFrom([]dhcpv4.MessageType{discover, request, decline, release, inform}).Draw(t, "kind"),
				mac:       fmt.Sprintf("52:54:00:00:00:%02x", rapid.IntRange(5, 14).Draw(t, "mac")),
				requested: pick.Draw(t, "requested"), own: pick.Draw(t, "own"),
				server: rapid.SampledFrom([]string{"", "10.77.0.3", "10.77.0.3", "10.77.0.9"}).Draw(t, "server"),
			}
			if rapid.Bool().Draw(t, "netboots") {
				p.options = pxe(7)
			}
			w.closed = rapid.IntRange(0, 4).Draw(t, "another server") == 0
			d := Decide(p.build(t), link, w, w.now)
			if d.Reply != nil {
				machines := own[ip("10.77.0.11")] == machine.MAC(p.mac) || own[ip("10.77.0.12")] == machine.MAC(p.mac)
				reserved := own[ip("10.77.0.50")] == machine.MAC(p.mac) || own[ip("10.77.0.103")] == machine.MAC(p.mac)
				if !link.Others && p.options == nil && !machines && !reserved {
					t.Fatalf("%s is served: %s", p.mac, d.Reason)
				}
				if l, ok := w.LeaseByMAC(machine.MAC(p.mac)); w.closed && (!ok || !l.Expires.After(w.now)) {
					t.Fatalf("%s is served beside another server: %s", p.mac, d.Reason)
				}
				if a := toAddr(d.Reply.YourIPAddr); a.IsValid() {
					mac := machine.MAC(p.mac)
					if owner, fixed := own[a]; fixed && owner != mac {
						t.Fatalf("%s gets %s, which is fixed for %s", mac, a, owner)
					} else if !fixed && !link.inPool(a) || link.special(a) {
						t.Fatalf("%s gets %s, which is outside", mac, a)
					}
					if l, ok := w.leases[a]; ok && l.Expires.After(w.now) && (l.Declined || l.MAC != mac) {
						t.Fatalf("%s gets %s, which is %+v", mac, a, l)
					}
					if to, ok := w.offers[a]; ok && to != mac {
						t.Fatalf("%s gets %s, which is offered to %s", mac, a, to)
					}
				}
			}
			for _, c := range d.Commands {
				w.apply(c)
			}
			if d.Withdraw {
				for a, to := range w.offers {
					if to == machine.MAC(p.mac) {
						delete(w.offers, a)
					}
				}
			}
			if d.Offer.IsValid() {
				w.offers[d.Offer] = machine.MAC(p.mac)
			}
			live := map[machine.MAC]netip.Addr{}
			for a, l := range w.leases {
				if l.Declined || !l.Expires.After(w.now) {
					continue
				}
				if other, twice := live[l.MAC]; twice {
					t.Fatalf("%s holds %s and %s", l.MAC, a, other)
				}
				live[l.MAC] = a
			}
			for mac, a := range live {
				if keeps := slices.ContainsFunc(slices.Collect(maps.Values(own)), func(m machine.MAC) bool { return m == mac }); keeps {
					continue // it goes to its own address
				}
				for _, again := range []packet4{{kind: discover}, {kind: request, requested: a.String()}, {kind: request, own: a.String()}} {
					again.mac, again.options = string(mac), pxe(7)
					if d := Decide(again.build(t), link, w, w.now); d.Reply == nil || toAddr(d.Reply.YourIPAddr) != a {
						t.Fatalf("%s holds %s, and is told with a %s: %s", mac, a, again.kind, d.Reason)
					}
				}
			}
		}
	})
}

// Whoever is offered an address has it when it asks for it: the state, with all
// its rules about who is who and whose an address is, binds what Decide offers.
// Boards share UUIDs, cards move from one to the other, and addresses are listed
// and reserved across them.
func TestOffersAreBound(t *testing.T) {
	s := newSite(t)
	s.Image()
	s.link.Prefix, s.link.From, s.link.To = netip.MustParsePrefix("10.77.0.0/16"), ip("10.77.128.0"), ip("10.77.255.254")
	first := 0 // each run has cards, boards and addresses of its own
	commit := func(c state.Command) bool {
		_, err := s.Propose(t.Context(), "test", c)
		var refusal *state.Refusal
		if err != nil && !errors.As(err, &refusal) {
			t.Fatal(err)
		}
		return err == nil
	}
	rapid.Check(t, func(rt *rapid.T) {
		first, s.t = first+8, rt
		cards, boards := rapid.IntRange(first, first+4), rapid.IntRange(first, first+2)
		uuid := func(n int) string { return fmt.Sprintf("4c4c4544-0042-3510-8052-%012x", n) }
		fixed := func() netip.Addr { return address(number(ip("10.77.4.0")) + uint32(boards.Draw(rt, "address"))) }
		s.link.Listed, s.link.Reservations = nil, nil
		for range rapid.IntRange(0, 2).Draw(rt, "listed") {
			l := machine.ListedMachine{Address: fixed()}
			if rapid.Bool().Draw(rt, "by UUID") {
				l.UUID = uuid(boards.Draw(rt, "board"))
			} else {
				l.MAC = statetest.MAC(cards.Draw(rt, "card"))
			}
			s.link.Listed = append(s.link.Listed, l)
		}
		if rapid.Bool().Draw(rt, "reserved") {
			s.link.Reservations = []machine.Reservation{{MAC: statetest.MAC(cards.Draw(rt, "card")), Address: fixed()}}
		}
		for step := range rapid.IntRange(1, 20).Draw(rt, "steps") {
			key := sha256.Sum256(fmt.Append(nil, first, step))
			mac, board := statetest.MAC(cards.Draw(rt, "card")), uuid(boards.Draw(rt, "board"))
			switch rapid.IntRange(0, 4).Draw(rt, "what") {
			case 0: // an installer reports
				i := statetest.Inventory(first)
				i.UUID, i.BootMAC, i.NICs = board, mac, nil
				for _, n := range rapid.SliceOfNDistinct(cards, 1, 3, rapid.ID).Draw(rt, "cards") {
					i.NICs = append(i.NICs, machine.NIC{Name: fmt.Sprintf("eth%d", n-first), MAC: statetest.MAC(n)})
				}
				commit(state.SessionOpen{
					NewID: machine.NewID(), Inventory: i,
					Session: machine.Session{ID: fmt.Sprintf("s-%d-%d", first, step), SignKey: key[:], SealKey: key[:], Opened: time.Now().UTC()},
				})
			case 1: // somebody approves it
				if m, ok := s.View().MachineByMAC(mac); ok && m.Session != nil {
					commit(state.MachineApprove{
						Machine: m.ID, Session: m.Session.ID, Intent: fmt.Sprintf("i-%d-%d", first, step), Name: fmt.Sprintf("n-%d-%d", first, step),
						Profile: machine.Profile{Name: "worker", Role: machine.RoleWorker}, Address: fixed(), Image: "sha256:" + strings.Repeat("ab", 32),
						NodeKey: key[:], Bootstrap: fmt.Sprintf("b-%d-%d", first, step),
					})
				}
			default: // firmware boots from the network
				p := packet4{kind: discover, mac: string(mac)}
				if rapid.IntRange(0, 3).Draw(rt, "UUID") > 0 {
					p.options = []dhcpv4.Option{option97(board, rapid.Bool().Draw(rt, "network order"))}
				}
				a := s.discovers(mac, p.options...)
				p.kind, p.server, p.requested = request, s.link.Service.String(), a
				// What is committed must be, or the test ends.
				if d := s.asks(p); d.Reply == nil || toAddr(d.Reply.YourIPAddr).String() != a {
					rt.Fatalf("%s is offered %s, and told: %s", mac, a, d.Reason)
				}
			}
		}
	})
}

// FuzzDecide: any bytes from the link end in a decision. An answer is a packet
// that goes to a client of this link, and what binds is committed before it.
func FuzzDecide(f *testing.F) {
	for _, p := range []packet4{
		{kind: discover, mac: macA, options: pxe(7)},
		{kind: request, mac: macA, requested: "10.77.0.100", server: "10.77.0.3", options: pxe(0)},
		{kind: request, mac: macA, own: "10.77.0.101"},
		{kind: inform, mac: macB, own: "10.77.0.60", relay: "10.77.0.9"},
		{kind: release, mac: macB, own: "10.77.0.101"},
		{kind: discover, mac: macB, options: []dhcpv4.Option{dhcpv4.OptClientIdentifier([]byte("\x00rackseed-probe:c-2"))}},
		{kind: discover, mac: macB, options: []dhcpv4.Option{dhcpv4.OptClassIdentifier("HTTPClient:Arch:00016"),
			dhcpv4.OptGeneric(dhcpv4.OptionClientSystemArchitectureType, []byte{0, 16})}},
	} {
		f.Add(p.build(f).ToBytes(), true, false)
		f.Add(p.build(f).ToBytes(), false, true)
	}
	f.Fuzz(func(t *testing.T, b []byte, others, closed bool) {
		link := testLink()
		link.Others, link.Netboot.LeaveUEFI = others, machine.LeaveSilence
		w := newWorld().lease(macA, "10.77.0.100", time.Hour).lease(macB, "10.77.0.101", time.Hour)
		w.closed = closed
		req, err := parse(b)
		if err != nil {
			return
		}
		d := Decide(req, link, w, start)
		if d.Reply == nil {
			return
		}
		r, err := dhcpv4.FromBytes(d.Reply.ToBytes())
		if err != nil {
			t.Fatalf("the reply is malformed: %v", err)
		}
		to := target(r)
		if to.To.Addr() != limitedBcast && !link.Prefix.Contains(to.To.Addr()) {
			t.Fatalf("the reply goes to %v, out of the link's network", to)
		}
		a := toAddr(r.YourIPAddr)
		if a.IsValid() && link.special(a) {
			t.Fatalf("%s is given away", a)
		}
		bound := slices.ContainsFunc(d.Commands, func(c state.Command) bool {
			switch c := c.(type) {
			case state.LeaseBind:
				return c.Lease.Address == a && c.Lease.MAC == machine.MAC(req.ClientHWAddr.String())
			case state.Note:
				return r.MessageType() == dhcpv4.MessageTypeNak
			}
			return false
		})
		if binds := r.MessageType() == dhcpv4.MessageTypeNak || r.MessageType() == dhcpv4.MessageTypeAck && a.IsValid(); binds && !bound {
			t.Fatalf("%s of %s leaves without a commit", r.MessageType(), a)
		}
	})
}

// FuzzParse: any bytes are a packet or an error, and what is read of a client
// is fit for the log.
func FuzzParse(f *testing.F) {
	f.Add(packet4{kind: discover, mac: macA, options: append(pxe(7), dhcpv4.OptHostName("n1"), option97("4c4c4544-0042-3510-8052-b4c04f4d3132", false))}.build(f).ToBytes())
	f.Add(packet4{kind: request, mac: macB, options: []dhcpv4.Option{dhcpv4.OptUserClass("iPXE")}}.build(f).ToBytes())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		req, err := parse(b)
		if err != nil {
			return
		}
		c, err := readClient(req)
		if err != nil {
			return
		}
		if mac, err := machine.ParseMAC(string(c.mac)); err != nil || mac != c.mac {
			t.Fatalf("hardware address %q", c.mac)
		}
		if c.uuid != machine.ParseUUID(c.uuid) || c.swapped != machine.ParseUUID(c.swapped) || (c.uuid == "") != (c.swapped == "") {
			t.Fatalf("UUID %q, %q", c.uuid, c.swapped)
		}
		if len(c.id) > 510 || len(c.hostname) > 63 || strings.ContainsFunc(c.hostname+c.what(), func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Fatalf("client %+v", c)
		}
	})
}

func BenchmarkDecide(b *testing.B) {
	link := testLink()
	link.From, link.To = ip("10.77.0.16"), ip("10.77.0.254")
	w := newWorld()
	req := packet4{kind: discover, mac: macA, options: pxe(7)}.build(b)
	for b.Loop() {
		if Decide(req, link, w, start).Reply == nil {
			b.Fatal("silence")
		}
	}
}
