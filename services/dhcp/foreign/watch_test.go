package foreign

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/rackseed/rackseed/services/machine"
)

var (
	start   = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	service = netip.MustParseAddr("10.77.0.3")
	router  = netip.MustParseAddr("192.168.1.1")
	card    = net.HardwareAddr{0x52, 0x54, 0, 0, 0, 1}
	self    = Self{Interface: "eth0", Service: service, Cluster: "c-1", Site: "rack1"}
)

const (
	cardMAC   = machine.MAC("52:54:00:00:00:01")
	routerMAC = machine.MAC("52:54:00:00:00:99")
	clientMAC = machine.MAC("52:54:00:00:00:0a")
)

func offer(server netip.Addr) Sighting {
	return Sighting{Server: server, Hardware: routerMAC, Kind: dhcpv4.MessageTypeOffer, Offered: netip.MustParseAddr("192.168.1.77"), Client: clientMAC}
}

// second moves a watch through a second, and hears what is heard in it.
type second struct {
	up   bool
	hear []Sighting
}

// history drives a watch a second at a time from start, and tells what changes
// as "4 serving", each probe as "5 probe", each event as "7 dhcp.foreign".
func history(w *watch, seconds int, at map[int]second) string {
	var out []string
	up, last := true, w.phase
	for s := range seconds + 1 {
		now := start.Add(time.Duration(s) * time.Second)
		if change, ok := at[s]; ok {
			up = change.up
			for _, h := range change.hear {
				for _, n := range w.hear(h, now) {
					out = append(out, fmt.Sprint(s, " ", n.What))
				}
			}
		}
		w.carrier(up, now)
		probe, told := w.tick(now)
		for _, n := range told {
			out = append(out, fmt.Sprint(s, " ", n.What))
		}
		if probe {
			out = append(out, fmt.Sprint(s, " probe"))
		}
		if w.phase != last {
			last = w.phase
			out = append(out, fmt.Sprint(s, " ", [...]string{"down", "listening", "serving", "yielding"}[last]))
		}
	}
	return strings.Join(out, ", ")
}

// phases leaves the probes out.
func phases(history string) string {
	var out []string
	for _, word := range strings.Split(history, ", ") {
		if !strings.HasSuffix(word, " probe") {
			out = append(out, word)
		}
	}
	return strings.Join(out, ", ")
}

func TestSchedule(t *testing.T) {
	got := history(&watch{self: self}, 200, nil)
	want := "0 probe, 0 listening, 1 probe, 2 probe, 4 serving, 5 probe, 10 probe, 20 probe, 35 probe, 50 probe, 60 probe, 120 probe, 180 probe"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestPhases(t *testing.T) {
	one := []Sighting{offer(router)}
	named := []Sighting{{Server: router, Client: clientMAC}}
	for _, test := range []struct {
		name    string
		seconds int
		at      map[int]second
		want    string
	}{
		{"nobody", 400, nil, "0 listening, 4 serving"},
		{"there before us", 10, map[int]second{1: {true, one}}, "0 listening, 1 dhcp.foreign, 1 yielding"},
		{"hidden by spanning tree", 60, map[int]second{51: {true, one}}, "0 listening, 4 serving, 51 dhcp.foreign, 51 yielding"},
		{"a client's word", 10, map[int]second{6: {true, named}}, "0 listening, 4 serving, 6 dhcp.foreign, 6 yielding"},
		{"gone after 5 minutes", 320, map[int]second{2: {true, one}},
			"0 listening, 2 dhcp.foreign, 2 yielding, 302 listening, 306 dhcp.foreign-gone, 306 serving"},
		{"shown again, told once", 320, map[int]second{2: {true, one}, 100: {true, one}, 200: {true, one}},
			"0 listening, 2 dhcp.foreign, 2 yielding"},
		{"told again while it lasts", 620, map[int]second{2: {true, one}, 100: {true, one}, 301: {true, one}, 302: {true, one}, 600: {true, one}, 602: {true, one}},
			"0 listening, 2 dhcp.foreign, 2 yielding, 302 dhcp.foreign, 602 dhcp.foreign"},
		{"each server is told", 10, map[int]second{5: {true, []Sighting{offer(router), offer(netip.MustParseAddr("192.168.1.2"))}}},
			"0 listening, 4 serving, 5 dhcp.foreign, 5 dhcp.foreign, 5 yielding"},
		{"asked once more, and it answers", 310, map[int]second{2: {true, one}, 303: {true, one}},
			"0 listening, 2 dhcp.foreign, 2 yielding, 302 listening, 303 dhcp.foreign, 303 yielding"},
		{"it comes back", 330, map[int]second{2: {true, one}, 320: {true, one}},
			"0 listening, 2 dhcp.foreign, 2 yielding, 302 listening, 306 dhcp.foreign-gone, 306 serving, 320 dhcp.foreign, 320 yielding"},
		{"a cable that is pulled and put in", 30, map[int]second{10: {}, 20: {up: true}}, "0 listening, 4 serving, 10 down, 20 listening, 24 serving"},
		{"pulling the cable clears nobody", 330, map[int]second{2: {true, one}, 10: {}, 20: {up: true}},
			"0 listening, 2 dhcp.foreign, 2 yielding, 10 down, 20 listening, 24 yielding, 302 listening, 306 dhcp.foreign-gone, 306 serving"},
		{"gone is told once", 350, map[int]second{2: {true, one}, 320: {}, 330: {up: true}},
			"0 listening, 2 dhcp.foreign, 2 yielding, 302 listening, 306 dhcp.foreign-gone, 306 serving, 320 down, 330 listening, 334 serving"},
		{"silence without being asked is no silence", 320, map[int]second{2: {true, one}, 3: {}, 310: {up: true}},
			"0 listening, 2 dhcp.foreign, 2 yielding, 3 down, 310 listening, 314 dhcp.foreign-gone, 314 serving"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := phases(history(&watch{self: self}, test.seconds, test.at)); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

// Of two appliances that silenced each other one goes on first.
func TestSpread(t *testing.T) {
	var sum time.Duration
	for nth := range uint32(100) {
		one, other := spreadOf(card, nth), spreadOf(net.HardwareAddr{0x52, 0x54, 0, 0, 0, 2}, nth)
		if one < 0 || one >= spread || one == other || one == spreadOf(card, nth+1) {
			t.Errorf("spread %v, %v", one, other)
		}
		sum += one
	}
	if mean := sum / 100; mean < spread/4 || mean > spread/4*3 { // the whole of it is used
		t.Errorf("mean spread %v of %v", mean, spread)
	}
	twenty := &watch{self: self, spreads: func(uint32) time.Duration { return 20 * time.Second }}
	got := phases(history(twenty, 330, map[int]second{2: {true, []Sighting{offer(router)}}}))
	if want := "0 listening, 2 dhcp.foreign, 2 yielding, 322 listening, 326 dhcp.foreign-gone, 326 serving"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// A process that was stopped probes once, not once for each time it missed.
func TestMissedProbes(t *testing.T) {
	w := &watch{self: self}
	w.carrier(true, start)
	w.tick(start)
	late := start.Add(10 * time.Minute)
	if probe, _ := w.tick(late); !probe {
		t.Error("no probe")
	}
	if probe, _ := w.tick(late.Add(time.Second)); probe {
		t.Error("it makes up for what it missed")
	}
	if next := w.next(); next != late.Add(time.Minute) {
		t.Errorf("next %v", next.Sub(start))
	}
}

// A flood of servers that do not exist is told of as far as there is room, and
// stops service all the same.
func TestFlood(t *testing.T) {
	w := &watch{self: self}
	w.carrier(true, start)
	told := 0
	for i := range 1000 {
		told += len(w.hear(offer(netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)})), start.Add(time.Duration(i)*time.Millisecond)))
	}
	if told != maxServers || len(w.seen) != maxServers || w.open() {
		t.Errorf("%d told, %d kept", told, len(w.seen))
	}
	if n := w.hear(offer(router), start.Add(tellPause+time.Second)); len(n) != 1 || len(w.seen) != maxServers {
		t.Errorf("told %v, %d kept", n, len(w.seen))
	}
}

// What a client says of a server does not hide what the server said itself.
func TestBestWord(t *testing.T) {
	w := &watch{self: self}
	w.carrier(true, start)
	w.hear(Sighting{Server: router, Client: clientMAC}, start)
	w.hear(offer(router), start)
	w.hear(Sighting{Server: router, Client: clientMAC}, start)
	if len(w.seen) != 1 || w.seen[0].last.Hardware != routerMAC {
		t.Errorf("seen %+v", w.seen)
	}
}

func TestWords(t *testing.T) {
	const dnsmasq = "the DHCP server 192.168.1.1 (hardware address 52:54:00:00:00:99"
	with := func(change func(*Sighting)) Sighting { s := offer(router); change(&s); return s }
	for _, test := range []struct {
		name     string
		s        Sighting
		text     string
		standing string
	}{
		{"an offer to a client", offer(router),
			"On eth0 " + dnsmasq + ") answers DHCP too (it gave 192.168.1.77 to 52:54:00:00:00:0a): new machines are not served there, those with an address go on. Switch that server off on this network, or take dhcp out of this link in the site file; service goes on by itself about 5 minutes after the last sign of it.",
			"eth0: " + dnsmasq + ") answers DHCP too (at 12:00:00 UTC it gave 192.168.1.77 to 52:54:00:00:00:0a): new machines are not served there. Switch that server off"},
		{"an answer to a probe, with a name", with(func(s *Sighting) { s.Answer, s.Name, s.Domain, s.Vendor = true, "gw", "example.org", "ACME" }),
			dnsmasq + `, named "gw", domain "example.org", vendor "ACME") answers DHCP too (asked, it offered 192.168.1.77)`, `vendor "ACME"`},
		{"a refusal", with(func(s *Sighting) { s.Kind = dhcpv4.MessageTypeNak }), "(it refused an address to 52:54:00:00:00:0a)", "refused"},
		{"no address", with(func(s *Sighting) { s.Offered = netip.Addr{} }), "(it answered 52:54:00:00:00:0a)", "answered"},
		{"a client's word", Sighting{Server: router, Client: clientMAC}, "On eth0 the DHCP server 192.168.1.1 answers DHCP too (client 52:54:00:00:00:0a chose it)", "chose it"},
		{"another appliance", with(func(s *Sighting) { s.Answer, s.Cluster, s.Site = true, "c-2", "rack2" }),
			`On eth0 another Rackseed appliance, of site "rack2", at 192.168.1.1 (hardware address 52:54:00:00:00:99) answers DHCP too (it serves new machines there): new machines are not served there, those with an address go on. Switch one of the two appliances off, or take dhcp out of this link in its site file; the other goes on by itself, about 5 minutes later.`,
			`another Rackseed appliance, of site "rack2"`},
		{"another appliance without a name", with(func(s *Sighting) { s.Answer, s.Cluster = true, "c-2" }), "another Rackseed appliance, at 192.168.1.1", "another Rackseed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := &watch{self: self}
			w.carrier(true, start)
			told := w.hear(test.s, start)
			if len(told) != 1 || !strings.Contains(told[0].Text, test.text) || told[0].Severity != machine.Error || told[0].Data["server"] != "192.168.1.1" {
				t.Errorf("told %+v", told)
			}
			if got := w.hindrance(); !strings.Contains(got, test.standing) {
				t.Errorf("hindrance %q", got)
			}
		})
	}
	w := &watch{self: self}
	if w.hindrance() != "" {
		t.Error("a link without a carrier is hindered")
	}
	w.carrier(true, start)
	if got := w.hindrance(); got != "eth0: listening for other DHCP servers before new machines are served" {
		t.Errorf("%q", got)
	}
	w.tick(start.Add(listenTime))
	if w.hindrance() != "" || !w.open() {
		t.Errorf("serving: %q", w.hindrance())
	}
}

func TestForeign(t *testing.T) {
	for _, test := range []struct {
		name string
		s    Sighting
		want bool
	}{
		{"another server", offer(router), true},
		{"what we send ourselves", Sighting{Server: router, Hardware: cardMAC}, false},
		{"a client's word", Sighting{Server: router}, true},
		{"a client that chose us", Sighting{Server: service}, false},
		{"a reply of the replica that led before", Sighting{Server: service, Hardware: routerMAC}, false},
		{"a replica of this cluster answers", Sighting{Server: service, Hardware: routerMAC, Answer: true, Cluster: "c-1"}, false},
		{"another appliance with the same service address", Sighting{Server: service, Hardware: routerMAC, Answer: true, Cluster: "c-2"}, true},
		{"another server with our address", Sighting{Server: service, Hardware: routerMAC, Answer: true}, true},
	} {
		if got := test.s.foreign(self, []machine.MAC{cardMAC}); got != test.want {
			t.Errorf("%s: %v", test.name, got)
		}
	}
}
