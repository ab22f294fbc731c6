package dhcp

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"pgregory.net/rapid"

	"github.com/rackseed/rackseed/services/machine"
)

// Whatever clients send, in whatever order: nobody is offered or given an
// address that is not of the pool or fixed for them, that another one holds,
// or that was declined. The world commits without rules of its own, so this
// is Decide's doing alone.
func TestNeverTwice(t *testing.T) {
	link := testLink()
	addresses := []string{"", "10.77.0.0", "10.77.0.2", "10.77.0.3", "10.77.0.11", "10.77.0.12", "10.77.0.50", "10.77.0.100",
		"10.77.0.101", "10.77.0.102", "10.77.0.103", "10.77.0.110", "10.77.0.255", "192.168.1.5"}
	own := map[netip.Addr]machine.MAC{ip("10.77.0.11"): "52:54:00:00:00:07", ip("10.77.0.12"): "52:54:00:00:00:0c",
		ip("10.77.0.50"): "52:54:00:00:00:09", ip("10.77.0.103"): "52:54:00:00:00:08"}
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld()
		w.machines = []machine.Machine{{ID: "m-c", MACs: []machine.MAC{"52:54:00:00:00:0c"}, Address: ip("10.77.0.12")}}
		pick := rapid.SampledFrom(addresses)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			w.now = w.now.Add(time.Duration(rapid.IntRange(0, 1500).Draw(t, "seconds")) * time.Second)
			p := packet4{
				kind:      rapid.SampledFrom([]dhcpv4.MessageType{discover, request, decline, release, inform}).Draw(t, "kind"),
				mac:       fmt.Sprintf("52:54:00:00:00:%02x", rapid.IntRange(5, 14).Draw(t, "mac")),
				requested: pick.Draw(t, "requested"), own: pick.Draw(t, "own"),
				server: rapid.SampledFrom([]string{"", "10.77.0.3", "10.77.0.3", "10.77.0.9"}).Draw(t, "server"),
			}
			d := Decide(p.build(t), link, w, w.now)
			if d.Reply != nil {
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
		}
	})
}

// FuzzPacket: any bytes from the link end in a decision, and an answer is a
// packet that goes to a client of this link.
func FuzzPacket(f *testing.F) {
	for _, p := range []packet4{
		{kind: discover, mac: macA, options: pxe(7)},
		{kind: request, mac: macA, requested: "10.77.0.100", server: "10.77.0.3", options: pxe(0)},
		{kind: request, mac: macA, own: "10.77.0.101"},
		{kind: inform, mac: macB, own: "10.77.0.60", relay: "10.77.0.9"},
		{kind: release, mac: macB, own: "10.77.0.101"},
	} {
		f.Add(p.build(f).ToBytes())
	}
	link := testLink()
	w := newWorld().lease(macA, "10.77.0.100", time.Hour).lease(macB, "10.77.0.101", time.Hour)
	f.Fuzz(func(t *testing.T, b []byte) {
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
		if a := toAddr(r.YourIPAddr); a.IsValid() && link.special(a) {
			t.Fatalf("%s is given away", a)
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
