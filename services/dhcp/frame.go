package dhcp

import (
	"encoding/binary"
	"net"
	"net/netip"
)

const (
	etherIPv4   = 0x0800
	etherHeader = 14
	ipHeader    = 20
	udpHeader   = 8
	protocolUDP = 17
	timeToLive  = 64
)

// frame wraps payload in UDP (RFC 768), IPv4 (RFC 791) and Ethernet.
func frame(source, destination net.HardwareAddr, from, to netip.AddrPort, payload []byte) []byte {
	b := make([]byte, etherHeader+ipHeader+udpHeader+len(payload))
	copy(b, destination)
	copy(b[6:], source)
	binary.BigEndian.PutUint16(b[12:], etherIPv4)

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
