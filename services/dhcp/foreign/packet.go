package foreign

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"

	"github.com/rackseed/rackseed/services/internal/frame"
	"github.com/rackseed/rackseed/services/machine"
)

const (
	serverPort = 67
	clientPort = 68

	// maxText bounds what a stranger's text adds to an event.
	maxText = 64
)

// Rackseeds know each other by these: a probe by its client identifier (option
// 61, type 0: not a hardware address, RFC 2132 section 9.14), the answer by its
// class (option 60). What follows is the cluster's ID; option 56 has the site's
// name.
const (
	probePrefix  = "\x00rackseed-probe:"
	answerPrefix = "rackseed-server:"
)

var (
	everyone = net.HardwareAddr{255, 255, 255, 255, 255, 255}
	nobody   = netip.AddrPortFrom(netip.IPv4Unspecified(), clientPort)
	servers  = netip.AddrPortFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), serverPort)
)

// probeMAC is the client that a probe asks for: made up, so that no server
// keeps an address for the appliance itself; always the same for a network
// card, so that a server keeps one at most. Bit 1 of the first octet marks it
// as locally administered (IEEE 802).
func probeMAC(hw net.HardwareAddr) net.HardwareAddr {
	sum := sha256.Sum256(append([]byte("rackseed-probe"), hw...))
	mac := net.HardwareAddr(sum[:6])
	mac[0] = mac[0]&^1 | 2
	return mac
}

// probe is a frame with a DHCPDISCOVER, which asks who serves new clients.
func probe(self Self, hw net.HardwareAddr) ([]byte, error) {
	p, err := dhcpv4.New(
		dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover), dhcpv4.WithHwAddr(probeMAC(hw)),
		// The answer to a made-up address would not reach this network card.
		dhcpv4.WithBroadcast(true),
		dhcpv4.WithOption(dhcpv4.OptClientIdentifier([]byte(probePrefix+self.Cluster))),
		dhcpv4.WithOption(dhcpv4.OptMessage(self.Site)),
		dhcpv4.WithRequestedOptions(dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionHostName, dhcpv4.OptionDomainName),
	)
	if err != nil {
		return nil, fmt.Errorf("DHCP probe on %s: %w", self.Interface, err)
	}
	// Servers that stand in for others answer who was left waiting.
	p.NumSeconds = 10
	return frame.UDP(hw, everyone, nobody, servers, p.ToBytes()), nil
}

// Probe says whether a request is another replica's or appliance's probe, and
// whose.
func Probe(req *dhcpv4.DHCPv4) (cluster, site string, is bool) {
	cluster, is = strings.CutPrefix(string(req.Options.Get(dhcpv4.OptionClientIdentifier)), probePrefix)
	if !is {
		return "", "", false
	}
	return text([]byte(cluster)), text(req.Options.Get(dhcpv4.OptionMessage)), true
}

// Answer makes reply, an OFFER without an address, the answer to a probe.
func (s Self) Answer(reply *dhcpv4.DHCPv4) {
	reply.UpdateOption(dhcpv4.OptClassIdentifier(answerPrefix + s.Cluster))
	reply.UpdateOption(dhcpv4.OptMessage(s.Site))
}

// read finds the sign of a DHCP server in a frame. asked is the client that
// this replica's probes ask for. A panic of the library is an error: anybody
// on the link can send anything.
func read(b []byte, asked net.HardwareAddr) (s Sighting, err error) {
	defer func() {
		if p := recover(); p != nil {
			s, err = Sighting{}, fmt.Errorf("frame of %d bytes: %v", len(b), p)
		}
	}()
	f, err := frame.ParseUDP(b)
	if err != nil {
		return Sighting{}, err
	}
	if f.From.Port() != serverPort || f.To.Port() != clientPort {
		return Sighting{}, fmt.Errorf("a packet from %s to %s is no DHCP server's to a client", f.From, f.To)
	}
	p, err := dhcpv4.FromBytes(f.Payload)
	if err != nil {
		return Sighting{}, err
	}
	if p.OpCode != dhcpv4.OpcodeBootReply || p.HWType != iana.HWTypeEthernet {
		return Sighting{}, fmt.Errorf("a packet from %s is no reply to an Ethernet client", f.From)
	}
	s = Sighting{
		Server: f.From.Addr(), Hardware: machine.MAC(f.Source.String()), Kind: p.MessageType(),
		Client: machine.MAC(p.ClientHWAddr.String()), Answer: bytes.Equal(p.ClientHWAddr, asked),
		Name: text([]byte(p.ServerHostName)), Vendor: text(p.Options.Get(dhcpv4.OptionClassIdentifier)),
	}
	if a := address(p.ServerIdentifier()); a.IsValid() {
		s.Server = a
	}
	s.Offered, s.Domain = address(p.YourIPAddr), text(p.Options.Get(dhcpv4.OptionDomainName))
	if cluster, is := strings.CutPrefix(s.Vendor, answerPrefix); is && s.Answer {
		s.Vendor, s.Cluster, s.Site = "", cluster, text(p.Options.Get(dhcpv4.OptionMessage))
		if s.Cluster == "" {
			s.Cluster = "unknown"
		}
	}
	if s.Vendor == "PXEClient" || s.Vendor == "HTTPClient" { // what a netboot server must say
		s.Vendor = ""
	}
	return s, nil
}

// address is an IPv4 address of a packet; invalid for none and for 0.0.0.0.
func address(ip net.IP) netip.Addr {
	a, ok := netip.AddrFromSlice(ip.To4())
	if !ok || a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}

// text is a stranger's text as people may see it: printable ASCII, not too much.
func text(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{0})
	keep := func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}
	return strings.TrimSpace(strings.Map(keep, string(b[:min(len(b), maxText)])))
}
