package dhcp

import (
	"net"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

const (
	serverPort = 67
	clientPort = 68
)

// Target is where a reply goes.
type Target struct {
	// Frame is the Ethernet destination of a client that has no address yet
	// and so does not answer ARP; nil: by UDP as usual.
	Frame net.HardwareAddr
	To    netip.AddrPort
}

var (
	everyone      = net.HardwareAddr{255, 255, 255, 255, 255, 255}
	limitedBcast  = netip.AddrFrom4([4]byte{255, 255, 255, 255})
	broadcastPort = netip.AddrPortFrom(limitedBcast, clientPort)
)

// target says where a reply goes (RFC 2131 section 4.1): to the relay; a NAK to
// everyone on the link; to the address that the client has; to everyone if it
// asks for that; else to its hardware address, with the new address.
func target(reply *dhcpv4.DHCPv4) Target {
	if relay := toAddr(reply.GatewayIPAddr); relay.IsValid() {
		return Target{To: netip.AddrPortFrom(relay, serverPort)}
	}
	if reply.MessageType() == dhcpv4.MessageTypeNak {
		return Target{Frame: everyone, To: broadcastPort}
	}
	if own := toAddr(reply.ClientIPAddr); own.IsValid() {
		return Target{To: netip.AddrPortFrom(own, clientPort)}
	}
	if reply.IsBroadcast() {
		return Target{Frame: everyone, To: broadcastPort}
	}
	return Target{Frame: reply.ClientHWAddr, To: netip.AddrPortFrom(toAddr(reply.YourIPAddr), clientPort)}
}
