package frame

import (
	"bytes"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/net/ipv4"
)

// onesComplement is RFC 1071's sum by the book, beside the fast one.
func onesComplement(b []byte) uint16 {
	if len(b)%2 == 1 {
		b = append(bytes.Clone(b), 0)
	}
	s := 0
	for i := 0; i < len(b); i += 2 {
		s += int(b[i])<<8 | int(b[i+1])
		if s > 0xffff {
			s -= 0xffff
		}
	}
	return uint16(s)
}

func TestUDP(t *testing.T) {
	source, _ := net.ParseMAC("52:54:00:00:00:01")
	destination, _ := net.ParseMAC("52:54:00:00:00:02")
	from, to := netip.MustParseAddrPort("10.77.0.3:67"), netip.MustParseAddrPort("10.77.0.100:68")
	// The last one makes the checksum come out as 0, which is sent as ffff.
	for _, payload := range [][]byte{{}, {1}, []byte("DHCP"), bytes.Repeat([]byte{0xff}, 301), {0xeb, 0x38}} {
		f := UDP(source, destination, from, to, payload)
		if !bytes.Equal(f[:6], destination) || !bytes.Equal(f[6:12], source) || !bytes.Equal(f[12:14], []byte{8, 0}) {
			t.Errorf("Ethernet header % x", f[:14])
		}
		h, err := ipv4.ParseHeader(f[14:])
		if err != nil {
			t.Fatal(err)
		}
		if h.Len != 20 || h.TotalLen != len(f)-14 || h.Protocol != 17 || !h.Src.Equal(net.IPv4(10, 77, 0, 3)) || !h.Dst.Equal(net.IPv4(10, 77, 0, 100)) {
			t.Errorf("IP header %v", h)
		}
		if s := onesComplement(f[14:34]); s != 0xffff {
			t.Errorf("IP checksum: the sum is %#x, want 0xffff", s)
		}
		udp := f[34:]
		if !bytes.Equal(udp[:6], []byte{0, 67, 0, 68, byte(len(udp) >> 8), byte(len(udp))}) || !bytes.Equal(udp[8:], payload) {
			t.Errorf("UDP % x", udp)
		}
		p, err := ParseUDP(append(bytes.Clone(f), 0, 0, 0)) // with Ethernet's padding
		if err != nil || p.Source.String() != source.String() || p.From != from || p.To != to || !bytes.Equal(p.Payload, payload) {
			t.Errorf("read as %+v, %v", p, err)
		}
		pseudo := append(bytes.Clone(f[26:34]), 0, 17, byte(len(udp)>>8), byte(len(udp)))
		if s := onesComplement(append(pseudo, udp...)); s != 0xffff || udp[6] == 0 && udp[7] == 0 {
			t.Errorf("UDP checksum % x: the sum is %#x, want 0xffff", udp[6:8], s)
		}
	}
}

func TestParseUDPRefuses(t *testing.T) {
	from, to := netip.MustParseAddrPort("10.77.0.3:67"), netip.MustParseAddrPort("10.77.0.100:68")
	whole := UDP(make(net.HardwareAddr, 6), make(net.HardwareAddr, 6), from, to, []byte("DHCP"))
	for name, change := range map[string]func(b []byte) []byte{
		"cut off":              func(b []byte) []byte { return b[:len(b)-1] },
		"too short":            func(b []byte) []byte { return b[:41] },
		"empty":                func([]byte) []byte { return nil },
		"IPv6":                 func(b []byte) []byte { b[12] = 0x86; b[13] = 0xdd; return b },
		"version":              func(b []byte) []byte { b[14] = 6<<4 | 5; return b },
		"header too small":     func(b []byte) []byte { b[14] = 4<<4 | 4; return b },
		"header over the end":  func(b []byte) []byte { b[14] = 4<<4 | 15; return b },
		"TCP":                  func(b []byte) []byte { b[23] = 6; return b },
		"first fragment":       func(b []byte) []byte { b[20] = 0x20; return b },
		"later fragment":       func(b []byte) []byte { b[21] = 1; return b },
		"UDP length":           func(b []byte) []byte { b[38] = 1; return b },
		"UDP length too small": func(b []byte) []byte { b[38], b[39] = 0, 7; return b },
	} {
		if p, err := ParseUDP(change(bytes.Clone(whole))); err == nil {
			t.Errorf("%s: read as %+v", name, p)
		}
	}
}

func FuzzParseUDP(f *testing.F) {
	from, to := netip.MustParseAddrPort("10.77.0.3:67"), netip.MustParseAddrPort("255.255.255.255:68")
	f.Add(UDP(make(net.HardwareAddr, 6), make(net.HardwareAddr, 6), from, to, []byte("DHCP")))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParseUDP(b)
		if err == nil && len(p.Payload) > len(b)-etherHeader-ipHeader-udpHeader {
			t.Errorf("%d bytes in a frame of %d", len(p.Payload), len(b))
		}
	})
}
