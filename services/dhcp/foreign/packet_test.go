package foreign

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/rackseed/rackseed/services/internal/frame"
	"github.com/rackseed/rackseed/services/machine"
)

// said is a frame in which a server says something to a client.
func said(t testing.TB, kind dhcpv4.MessageType, client net.HardwareAddr, mods ...dhcpv4.Modifier) []byte {
	t.Helper()
	p, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithReply(&dhcpv4.DHCPv4{OpCode: dhcpv4.OpcodeBootRequest, HWType: 1, ClientHWAddr: client}),
		dhcpv4.WithMessageType(kind), dhcpv4.WithYourIP(net.IPv4(192, 168, 1, 77))}, mods...)...)
	if err != nil {
		t.Fatal(err)
	}
	return frame.UDP(net.HardwareAddr{0x52, 0x54, 0, 0, 0, 0x99}, everyone,
		netip.MustParseAddrPort("192.168.1.2:67"), netip.MustParseAddrPort("255.255.255.255:68"), p.ToBytes())
}

var client = net.HardwareAddr{0x52, 0x54, 0, 0, 0, 0x0a}

func TestRead(t *testing.T) {
	identified := dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(192, 168, 1, 1)))
	base := offer(router)
	with := func(change func(*Sighting)) Sighting { s := base; change(&s); return s }
	for _, test := range []struct {
		name  string
		frame []byte
		want  Sighting
	}{
		{"an offer", said(t, dhcpv4.MessageTypeOffer, client, identified), base},
		{"without an identifier", said(t, dhcpv4.MessageTypeOffer, client), with(func(s *Sighting) { s.Server = netip.MustParseAddr("192.168.1.2") })},
		{"a refusal", said(t, dhcpv4.MessageTypeNak, client, identified, dhcpv4.WithYourIP(net.IPv4zero)),
			with(func(s *Sighting) { s.Kind, s.Offered = dhcpv4.MessageTypeNak, netip.Addr{} })},
		{"the answer to a probe", said(t, dhcpv4.MessageTypeOffer, probeMAC(card), identified),
			with(func(s *Sighting) { s.Client, s.Answer = machine.MAC(probeMAC(card).String()), true })},
		{"names", said(t, dhcpv4.MessageTypeAck, client, identified, dhcpv4.WithOption(dhcpv4.OptDomainName("example.org")),
			dhcpv4.WithOption(dhcpv4.OptClassIdentifier("ACME \x1b[31m"+strings.Repeat("x", 100))), func(p *dhcpv4.DHCPv4) { p.ServerHostName = "gw" }),
			with(func(s *Sighting) {
				s.Kind, s.Name, s.Domain, s.Vendor = dhcpv4.MessageTypeAck, "gw", "example.org", "ACME ?[31m"+strings.Repeat("x", 54)
			})},
		{"a netboot server's class is no vendor", said(t, dhcpv4.MessageTypeOffer, client, identified, dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient"))), base},
		{"another Rackseed", said(t, dhcpv4.MessageTypeOffer, probeMAC(card), identified,
			func(p *dhcpv4.DHCPv4) { Self{Cluster: "c-2", Site: "rack2"}.Answer(p) }),
			with(func(s *Sighting) {
				s.Client, s.Answer, s.Cluster, s.Site = machine.MAC(probeMAC(card).String()), true, "c-2", "rack2"
			})},
		{"one that was asked by somebody else says nothing of a cluster", said(t, dhcpv4.MessageTypeOffer, client, identified,
			func(p *dhcpv4.DHCPv4) { Self{Cluster: "c-2", Site: "rack2"}.Answer(p) }),
			with(func(s *Sighting) { s.Vendor = "rackseed-server:c-2" })},
	} {
		got, err := read(test.frame, probeMAC(card))
		if err != nil || got != test.want {
			t.Errorf("%s:\ngot  %+v, %v\nwant %+v", test.name, got, err, test.want)
		}
	}
	request, err := probe(self, card)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"nothing": nil, "a probe": request, "a reply cut off": said(t, dhcpv4.MessageTypeOffer, client)[:100]} {
		if s, err := read(b, probeMAC(card)); err == nil {
			t.Errorf("%s: read as %+v", name, s)
		}
	}
}

func TestProbe(t *testing.T) {
	b, err := probe(self, card)
	if err != nil {
		t.Fatal(err)
	}
	f, err := frame.ParseUDP(b)
	if err != nil || f.Source.String() != card.String() || f.From.String() != "0.0.0.0:68" || f.To.String() != "255.255.255.255:67" {
		t.Fatalf("frame %+v, %v", f, err)
	}
	p, err := dhcpv4.FromBytes(f.Payload)
	if err != nil {
		t.Fatal(err)
	}
	mac := probeMAC(card)
	if p.MessageType() != dhcpv4.MessageTypeDiscover || !p.IsBroadcast() || p.ClientHWAddr.String() != mac.String() || mac.String() == card.String() || mac[0]&3 != 2 {
		t.Errorf("probe %s", p.Summary())
	}
	if probeMAC(card).String() != mac.String() || probeMAC(client).String() == mac.String() {
		t.Error("the made-up client is not the network card's own, always the same")
	}
	cluster, site, is := Probe(p)
	if !is || cluster != "c-1" || site != "rack1" {
		t.Errorf("recognised as %q of %q: %v", cluster, site, is)
	}
	p.UpdateOption(dhcpv4.OptClientIdentifier(append([]byte{1}, card...)))
	if _, _, is := Probe(p); is {
		t.Error("any client is taken for a probe")
	}
}

// FuzzRead: any frame ends in a sighting or an error, and strangers' texts are
// fit to be shown.
func FuzzRead(f *testing.F) {
	f.Add(said(f, dhcpv4.MessageTypeOffer, client, dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(192, 168, 1, 1)))))
	f.Add(said(f, dhcpv4.MessageTypeOffer, probeMAC(card), func(p *dhcpv4.DHCPv4) { Self{Cluster: "c-2", Site: "rack2"}.Answer(p) }))
	request, err := probe(self, card)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(request)
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := read(b, probeMAC(card))
		if err != nil {
			return
		}
		for _, text := range []string{s.Name, s.Domain, s.Vendor, s.Cluster, s.Site, s.who(), s.what()} {
			if len(text) > 600 || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Fatalf("a text of a stranger: %q", text)
			}
		}
		if !s.Server.IsValid() {
			t.Fatalf("no server: %+v", s)
		}
	})
}
