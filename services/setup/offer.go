package setup

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"

	"github.com/rackseed/rackseed/services/internal/frame"
	"github.com/rackseed/rackseed/services/machine"
)

// Offer is what one DHCP server answered to a client that asked for an address
// and did not take it.
type Offer struct {
	Server  netip.Addr   `json:"server" doc:"The server's address, as it names itself."`
	MAC     machine.MAC  `json:"mac" doc:"The hardware address that the answer came from: the server's, or a relay's."`
	Address netip.Addr   `json:"address,omitzero" doc:"The address that it offers; absent: it offers none, and answers netboot only (ProxyDHCP)."`
	Network netip.Prefix `json:"network,omitzero" doc:"The network that it says the link is in."`
	Router  netip.Addr   `json:"router,omitzero" doc:"The router that it names."`
	DNS     []netip.Addr `json:"dns,omitempty" doc:"The name servers that it names."`
	// Rackseed says that it is another Rackseed appliance, Site of which site.
	Rackseed bool   `json:"rackseed,omitempty" doc:"Whether it is another Rackseed appliance."`
	Site     string `json:"site,omitempty" doc:"The name of that appliance's site."`
}

// String describes the offer for people.
func (o Offer) String() string {
	text := fmt.Sprintf("DHCP server %s (%s)", o.Server, o.MAC)
	if o.Rackseed {
		return fmt.Sprintf("another Rackseed appliance, %s (%s), of site %q", o.Server, o.MAC, o.Site)
	}
	if !o.Address.IsValid() {
		return text + " offers no address, only netboot (ProxyDHCP)"
	}
	text += " offers " + o.Address.String()
	if o.Network.IsValid() {
		text += fmt.Sprintf("/%d", o.Network.Bits())
	}
	if o.Router.IsValid() {
		text += ", router " + o.Router.String()
	}
	if len(o.DNS) > 0 {
		names := make([]string, len(o.DNS))
		for i, a := range o.DNS {
			names[i] = a.String()
		}
		text += ", DNS " + strings.Join(names, ", ")
	}
	return text
}

const (
	serverPort = 67
	clientPort = 68
	// maxOffers bounds how many servers are kept of one link: anybody there can
	// pretend to be many.
	maxOffers = 8
)

// Rackseeds know each other's probes by the client identifier, answer without
// an address and with this class, and note no machine (services/dhcp/foreign).
const (
	probeIdentifier = "\x00rackseed-probe:"
	answerClass     = "rackseed-server:"
)

var (
	broadcast = net.HardwareAddr{255, 255, 255, 255, 255, 255}
	nobody    = netip.AddrPortFrom(netip.IPv4Unspecified(), clientPort)
	servers   = netip.AddrPortFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), serverPort)
)

// asking is one look at what answers on a link. It asks as the network card
// itself does: switches that watch DHCP drop what asks for another one.
type asking struct {
	hw     net.HardwareAddr
	ids    []dhcpv4.TransactionID
	offers []Offer
}

// discovers are frames with two DHCPDISCOVERs: any client's, and a netbooting
// one's (RFC 4578), whom servers answer that are for netboot only. No
// DHCPREQUEST follows, so that no lease is taken (RFC 2131 section 3.1).
func (a *asking) discovers() ([][]byte, error) {
	var frames [][]byte
	for _, more := range [][]dhcpv4.Modifier{nil, {
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00007:UNDI:003016")),
		dhcpv4.WithOption(dhcpv4.OptClientArch(iana.EFI_X86_64)),
		dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionClientNetworkInterfaceIdentifier, []byte{1, 3, 16})),
	}} {
		p, err := dhcpv4.New(append([]dhcpv4.Modifier{
			dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover), dhcpv4.WithHwAddr(a.hw), dhcpv4.WithBroadcast(true),
			dhcpv4.WithOption(dhcpv4.OptClientIdentifier([]byte(probeIdentifier))),
			dhcpv4.WithRequestedOptions(dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionDomainNameServer),
		}, more...)...)
		if err != nil {
			return nil, err
		}
		p.NumSeconds = 10 // servers that stand in for others answer who was left waiting
		a.ids = append(a.ids, p.TransactionID)
		frames = append(frames, frame.UDP(a.hw, broadcast, nobody, servers, p.ToBytes()))
	}
	return frames, nil
}

// take notes a frame if it is an answer. A panic of the library is none:
// anybody on the link can send anything.
func (a *asking) take(b []byte) {
	defer func() { _ = recover() }()
	f, err := frame.ParseUDP(b)
	if err != nil || f.From.Port() != serverPort || f.To.Port() != clientPort {
		return
	}
	p, err := dhcpv4.FromBytes(f.Payload)
	if err != nil || p.OpCode != dhcpv4.OpcodeBootReply || p.MessageType() != dhcpv4.MessageTypeOffer ||
		!slices.Contains(a.ids, p.TransactionID) || !slices.Equal(p.ClientHWAddr, a.hw) {
		return
	}
	a.add(offerOf(machine.MAC(f.Source.String()), f.From.Addr(), p))
}

// add keeps one offer a server, rather the one with an address.
func (a *asking) add(o Offer) {
	for i, old := range a.offers {
		if old.Server == o.Server && old.MAC == o.MAC {
			if !old.Address.IsValid() {
				a.offers[i] = o
			}
			return
		}
	}
	if len(a.offers) < maxOffers {
		a.offers = append(a.offers, o)
	}
}

// offerOf reads what an OFFER says.
func offerOf(mac machine.MAC, from netip.Addr, p *dhcpv4.DHCPv4) Offer {
	o := Offer{Server: from, MAC: mac, Address: addressOf(p.YourIPAddr)}
	if a := addressOf(p.ServerIdentifier()); a.IsValid() {
		o.Server = a
	}
	if ones, size := p.SubnetMask().Size(); o.Address.IsValid() && size == 32 && ones >= 8 && ones <= 30 {
		o.Network = netip.PrefixFrom(o.Address, ones).Masked()
	}
	if r := p.Router(); len(r) > 0 {
		o.Router = addressOf(r[0])
	}
	if o.Rackseed = strings.HasPrefix(p.ClassIdentifier(), answerClass); o.Rackseed {
		o.Site = printable(p.Message())
	}
	for _, d := range p.DNS() {
		if a := addressOf(d); a.IsValid() && len(o.DNS) < 4 {
			o.DNS = append(o.DNS, a)
		}
	}
	return o
}

// printable is a stranger's text as people may see it: ASCII, and not too much.
func printable(s string) string {
	const most = 63 // of a site's name
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s[:min(len(s), most)])
}

// addressOf is an IPv4 address of a packet; invalid for none and for 0.0.0.0.
func addressOf(ip net.IP) netip.Addr {
	a, ok := netip.AddrFromSlice(ip.To4())
	if !ok || a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}
