package dhcp

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

func TestFrame(t *testing.T) {
	source, _ := net.ParseMAC("52:54:00:00:00:01")
	destination, _ := net.ParseMAC("52:54:00:00:00:02")
	from, to := netip.MustParseAddrPort("10.77.0.3:67"), netip.MustParseAddrPort("10.77.0.100:68")
	// The last one makes the checksum come out as 0, which is sent as ffff.
	for _, payload := range [][]byte{{}, {1}, []byte("DHCP"), bytes.Repeat([]byte{0xff}, 301), {0xeb, 0x38}} {
		f := frame(source, destination, from, to, payload)
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
		pseudo := append(bytes.Clone(f[26:34]), 0, 17, byte(len(udp)>>8), byte(len(udp)))
		if s := onesComplement(append(pseudo, udp...)); s != 0xffff || udp[6] == 0 && udp[7] == 0 {
			t.Errorf("UDP checksum % x: the sum is %#x, want 0xffff", udp[6:8], s)
		}
	}
}
