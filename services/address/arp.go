package address

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"

	"golang.org/x/net/bpf"
)

const (
	etherARP   = 0x0806
	arpLength  = 28
	arpRequest = 1
)

// arp is an ARP packet for IPv4 over Ethernet (RFC 826), as far as it matters.
type arp struct {
	operation            uint16
	senderMAC, targetMAC net.HardwareAddr
	senderIP, targetIP   netip.Addr
}

// arpHeader is what all of them begin with: Ethernet, IPv4, lengths 6 and 4.
var arpHeader = []byte{0, 1, 8, 0, 6, 4}

func (a arp) bytes() []byte {
	b := make([]byte, 0, arpLength)
	b = append(b, arpHeader...)
	b = binary.BigEndian.AppendUint16(b, a.operation)
	sender, target := a.senderIP.As4(), a.targetIP.As4()
	b = append(append(b, a.senderMAC...), sender[:]...)
	return append(append(b, a.targetMAC...), target[:]...)
}

// parseARP reads a packet that may have padding; false if it is none of ours.
func parseARP(b []byte) (arp, bool) {
	if len(b) < arpLength || !bytes.Equal(b[:6], arpHeader) {
		return arp{}, false
	}
	return arp{
		operation: binary.BigEndian.Uint16(b[6:]),
		senderMAC: bytes.Clone(b[8:14]), senderIP: netip.AddrFrom4([4]byte(b[14:18])),
		targetMAC: bytes.Clone(b[18:24]), targetIP: netip.AddrFrom4([4]byte(b[24:28])),
	}, true
}

var (
	noMAC     = make(net.HardwareAddr, 6)
	everyone  = net.HardwareAddr{255, 255, 255, 255, 255, 255}
	unknownIP = netip.IPv4Unspecified()
)

// probe asks whether anybody has the address, without claiming it (RFC 5227
// section 2.1.1).
func probe(own net.HardwareAddr, a netip.Addr) arp {
	return arp{arpRequest, own, noMAC, unknownIP, a}
}

// announcement tells everybody that the address is here now: neighbours
// replace what they remember of its former owner (RFC 5227 section 2.3).
func announcement(own net.HardwareAddr, a netip.Addr) arp {
	return arp{arpRequest, own, noMAC, a, a}
}

// about lets the ARP packets pass that have the address as sender's or target's.
func about(a netip.Addr) []bpf.Instruction {
	b := a.As4()
	n := binary.BigEndian.Uint32(b[:])
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: 14, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: n, SkipTrue: 2},
		bpf.LoadAbsolute{Off: 24, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: n, SkipTrue: 1},
		bpf.RetConstant{Val: 65535},
		bpf.RetConstant{Val: 0},
	}
}

// claims says whether the packet shows that another host has the address, or
// is about to take it: its sender uses it, or probes for it too.
func (p arp) claims(own net.HardwareAddr, a netip.Addr) bool {
	if bytes.Equal(p.senderMAC, own) {
		return false
	}
	return p.senderIP == a || p.operation == arpRequest && p.senderIP == unknownIP && p.targetIP == a
}
