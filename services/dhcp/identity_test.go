package dhcp

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/statetest"
)

// option97 is a UUID as firmware sends it: in SMBIOS order, or as it is written.
func option97(uuid string, network bool) dhcpv4.Option {
	var b []byte
	if _, err := fmt.Sscanf(strings.ReplaceAll(uuid, "-", ""), "%x", &b); err != nil {
		panic(err)
	}
	if !network {
		slices.Reverse(b[0:4])
		slices.Reverse(b[4:6])
		slices.Reverse(b[6:8])
	}
	return dhcpv4.OptGeneric(optionClientUUID, append([]byte{0}, b...))
}

// tester is a test, or one run of a property's.
type tester interface {
	Helper()
	Context() context.Context
	Fatal(...any)
	Fatalf(string, ...any)
}

// site is a state with a real machine's rules, and a link of its site.
type site struct {
	*statetest.State
	t      tester
	link   Link
	closed bool // another DHCP server shows
}

func newSite(t *testing.T, listed ...machine.ListedMachine) *site {
	s := statetest.Open(t)
	file := statetest.Site()
	file.Machines = listed
	s.Begin(nil, file)
	link := testLink()
	link.Others, link.Listed = false, listed
	return &site{State: s, t: t, link: link}
}

// discovers lets a network card's firmware ask; it is told of what it is
// offered.
func (s *site) discovers(mac machine.MAC, options ...dhcpv4.Option) string {
	s.t.Helper()
	d := s.asks(packet4{kind: discover, mac: string(mac), options: options})
	if d.Reply == nil {
		s.t.Fatalf("%s: %s", mac, d.Reason)
	}
	return toAddr(d.Reply.YourIPAddr).String()
}

// asks decides about a netbooting client's packet, and commits what follows.
func (s *site) asks(p packet4) Decision {
	s.t.Helper()
	now := time.Now()
	p.options = append(pxe(7), p.options...)
	d := Decide(p.build(s.t), s.link, moment{s.View(), newOffers(), now, !s.closed, false}, now)
	for _, c := range d.Commands {
		if see, ok := c.(state.MachineSee); ok {
			see.ID = machine.NewID()
			c = see
		}
		if _, err := s.Propose(s.t.Context(), "dhcp", c); err != nil {
			s.t.Fatalf("%s: %s: %v", d.Reason, c.Kind(), err)
		}
	}
	return d
}

// machines are the machines' UUIDs, each with its number of addresses.
func (s *site) machines() string {
	var out []string
	for _, m := range s.View().Machines() {
		out = append(out, fmt.Sprintf("%.8s*%d", m.UUID, len(m.MACs)))
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// Who is who, from what firmware sends until an inventory says for sure. Each
// row's packets come before, its later ones after the machine's installer has
// reported: card 1 to 4, and the UUID that its board has.
func TestIdentity(t *testing.T) {
	const (
		board   = "4c4c4544-0042-3510-8052-b4c04f4d3132"
		turned  = "44454c4c-4200-1035-8052-b4c04f4d3132" // the same octets in the other order
		another = "4c4c4544-0042-3510-8052-b4c04f4d3133"
		junk    = "12345678-1234-5678-90ab-cddeefaabbcc"
	)
	type packet struct {
		card int
		uuid dhcpv4.Option
	}
	none := dhcpv4.OptGeneric(dhcpv4.GenericOptionCode(250), []byte{1})
	four := func(o dhcpv4.Option) (out []packet) {
		for card := range 4 {
			out = append(out, packet{card + 1, o})
		}
		return out
	}
	for _, test := range []struct {
		name   string
		before []packet
		seen   string // after them
		uuid   string // in the inventory, with four cards
		sure   string // after it
		after  []packet
		in     string // in the end
	}{
		{"a UUID in SMBIOS order", four(option97(board, false)), "4c4c4544*4", board, "4c4c4544*4", four(option97(board, false)), "4c4c4544*4"},
		{"firmware that sends it in network order: the inventory decides", four(option97(board, true)), "44454c4c*4", board, "4c4c4544*4",
			four(option97(board, true)), "4c4c4544*4"},
		{"firmware in one order, the next program in the other", []packet{{1, option97(board, true)}, {1, option97(board, false)}}, "44454c4c*1", board, "4c4c4544*4",
			[]packet{{1, option97(board, true)}, {1, option97(board, false)}}, "4c4c4544*4"},
		{"four cards at once, no UUID: the inventory makes them one", four(none), "*1 *1 *1 *1", board, "4c4c4544*4", four(none), "4c4c4544*4"},
		{"four cards, a junk UUID", four(option97(junk, false)), "*1 *1 *1 *1", "", "*4", four(option97(junk, false)), "*4"},
		{"a junk UUID in network order", four(option97(junk, true)), "*1 *1 *1 *1", "", "*4", four(option97(junk, true)), "*4"},
		{"no UUID at all", four(none), "*1 *1 *1 *1", "", "*4", four(none), "*4"},
		{"two boards with one UUID: an address that was found in one must come with it", four(option97(board, false)), "4c4c4544*4", board, "4c4c4544*4",
			[]packet{{5, option97(board, false)}}, "*1 4c4c4544*4"},
		{"another board", four(option97(board, false)), "4c4c4544*4", board, "4c4c4544*4", []packet{{5, option97(another, false)}}, "4c4c4544*1 4c4c4544*4"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newSite(t)
			for _, p := range test.before {
				s.discovers(statetest.MAC(p.card), p.uuid)
			}
			if got := s.machines(); got != test.seen {
				t.Errorf("before the inventory: %s, want %s", got, test.seen)
			}
			s.Waiting(1, func(i *machine.Inventory) {
				i.UUID, i.NICs = test.uuid, nil
				for card := range 4 {
					i.NICs = append(i.NICs, machine.NIC{Name: fmt.Sprintf("eth%d", card), MAC: statetest.MAC(card + 1)})
				}
			})
			if got := s.machines(); got != test.sure {
				t.Errorf("with the inventory: %s, want %s", got, test.sure)
			}
			for _, p := range test.after {
				s.discovers(statetest.MAC(p.card), p.uuid)
			}
			if got := s.machines(); got != test.in {
				t.Errorf("in the end: %s, want %s", got, test.in)
			}
		})
	}

	// A machine that is listed by its UUID is found, whichever order its
	// firmware sends it in, before anybody has seen it.
	for _, network := range []bool{false, true} {
		s := newSite(t, machine.ListedMachine{UUID: strings.ToUpper(board), Address: ip("10.77.0.12")})
		if got := s.discovers(statetest.MAC(1), option97(board, network)); got != "10.77.0.12" {
			t.Errorf("listed, network order %v: offered %s", network, got)
		}
		if m, _ := s.View().MachineByMAC(statetest.MAC(1)); m.UUID != board {
			t.Errorf("listed, network order %v: noted as %s", network, m.UUID)
		}
	}
}

// A UUID is taken only from a machine that it was found in: what another board
// with the same one is offered it can have, and is no approved machine's.
func TestTwoBoardsWithOneUUID(t *testing.T) {
	const board = "4c4c4544-0042-3510-8052-b4c04f4d3132"
	for _, listed := range [][]machine.ListedMachine{nil, {{UUID: board, Name: "node-1", Address: ip("10.77.0.60")}}} {
		s := newSite(t, listed...)
		s.discovers(statetest.MAC(1), option97(board, false))
		a := s.Waiting(1, func(i *machine.Inventory) { i.UUID = board })
		m, _ := s.View().Machine(a)
		if m.UUID == "" {
			m, _ = s.View().MachineByUUID(board)
		}
		s.Image()
		s.Must(state.MachineApprove{
			Machine: m.ID, Session: m.Session.ID, Intent: "i-1", Name: "node-1", Profile: machine.Profile{Name: "worker", Role: machine.RoleWorker},
			Address: ip("10.77.0.60"), Image: "sha256:" + strings.Repeat("ab", 32), NodeKey: make([]byte, 32), Bootstrap: "b-1",
		})
		if got := s.discovers(statetest.MAC(1), option97(board, false)); got != "10.77.0.60" {
			t.Errorf("the approved one is offered %s", got)
		}

		other := packet4{mac: string(statetest.MAC(5)), server: s.link.Service.String(), options: []dhcpv4.Option{option97(board, false)}}
		offer := packet4{kind: discover, mac: other.mac, options: other.options}
		s.closed = true
		if d := s.asks(offer); d.Reply != nil {
			t.Errorf("beside a foreign server: %s", d.Reason)
		}
		s.closed = false
		d := s.asks(offer)
		if d.Reply == nil || d.Reply.HostName() != "" {
			t.Fatalf("%s, as %q", d.Reason, d.Reply.HostName())
		}
		other.kind, other.requested = request, d.Offer.String()
		if d = s.asks(other); d.Reply == nil || d.Reply.MessageType() != dhcpv4.MessageTypeAck {
			t.Errorf("it asks for what it was offered: %s", d.Reason)
		}
		if d = s.asks(other); len(d.Commands) != 1 {
			t.Errorf("it asks once more: %d commands", len(d.Commands))
		}
	}
}
