// Package frame writes and reads UDP over IPv4 over Ethernet, for those who
// talk to hosts that have no address yet, or whose talk is overheard.
package frame

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
)

const (
	EtherIPv4   = 0x0800
	etherHeader = 14
	ipHeader    = 20
	udpHeader   = 8
	protocolUDP = 17
	timeToLive  = 64
)

// UDP wraps payload in UDP (RFC 768), IPv4 (RFC 791) and Ethernet.
func UDP(source, destination net.HardwareAddr, from, to netip.AddrPort, payload []byte) []byte {
	b := make([]byte, etherHeader+ipHeader+udpHeader+len(payload))
	copy(b, destination)
	copy(b[6:], source)
	binary.BigEndian.PutUint16(b[12:], EtherIPv4)

	ip := b[etherHeader:]
	src, dst := from.Addr().As4(), to.Addr().As4()
	ip[0] = 4<<4 | ipHeader/4
	ip[1] = 0x10 // low delay, as other servers mark it
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	binary.BigEndian.PutUint16(ip[6:], 1<<14) // don't fragment: then no identification is needed (RFC 6864)
	ip[8], ip[9] = timeToLive, protocolUDP
	copy(ip[12:], src[:])
	copy(ip[16:], dst[:])
	binary.BigEndian.PutUint16(ip[10:], ^sum(0, ip[:ipHeader]))

	udp := ip[ipHeader:]
	binary.BigEndian.PutUint16(udp, from.Port())
	binary.BigEndian.PutUint16(udp[2:], to.Port())
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	copy(udp[udpHeader:], payload)
	// The pseudo header: both addresses, protocol, length.
	pseudo := sum(sum(protocolUDP+uint16(len(udp)), src[:]), dst[:])
	check := ^sum(pseudo, udp)
	if check == 0 {
		check = 0xffff // 0 would mean that there is none
	}
	binary.BigEndian.PutUint16(udp[6:], check)
	return b
}

// Packet is a UDP packet as it was on the wire. Payload points into the frame.
type Packet struct {
	Source   net.HardwareAddr
	From, To netip.AddrPort
	Payload  []byte
}

// ParseUDP reads a frame; a fragment and what is not UDP over IPv4 are errors.
// Checksums are the network card's business and not looked at.
func ParseUDP(b []byte) (Packet, error) {
	if len(b) < etherHeader+ipHeader+udpHeader || binary.BigEndian.Uint16(b[12:]) != EtherIPv4 {
		return Packet{}, fmt.Errorf("frame of %d bytes: not IPv4", len(b))
	}
	ip := b[etherHeader:]
	header, total := int(ip[0]&15)*4, int(binary.BigEndian.Uint16(ip[2:]))
	switch {
	case ip[0]>>4 != 4 || header < ipHeader || total < header+udpHeader || total > len(ip):
		return Packet{}, fmt.Errorf("frame of %d bytes: its IPv4 header is malformed", len(b))
	case binary.BigEndian.Uint16(ip[6:])&0x3fff != 0: // more fragments, or an offset
		return Packet{}, fmt.Errorf("frame of %d bytes: a fragment", len(b))
	case ip[9] != protocolUDP:
		return Packet{}, fmt.Errorf("frame of %d bytes: IP protocol %d is not UDP", len(b), ip[9])
	}
	udp := ip[header:total]
	length := int(binary.BigEndian.Uint16(udp[4:]))
	if length < udpHeader || length > len(udp) {
		return Packet{}, fmt.Errorf("frame of %d bytes: UDP length %d does not fit", len(b), length)
	}
	port := func(at []byte, n int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(at)), binary.BigEndian.Uint16(udp[n:]))
	}
	return Packet{
		Source: net.HardwareAddr(b[6:12:12]), From: port(ip[12:16], 0), To: port(ip[16:20], 2),
		Payload: udp[udpHeader:length],
	}, nil
}

// sum is the ones' complement sum of RFC 1071, begun with start.
func sum(start uint16, b []byte) uint16 {
	s := uint32(start)
	for ; len(b) > 1; b = b[2:] {
		s += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}
