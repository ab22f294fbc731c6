package rack

import (
	"encoding/binary"
	"strings"
)

// PlainROM makes QEMU's network card, whose ROM is iPXE, speak like a card's
// own PXE ROM (Intel's, for example), which knows nothing of iPXE: to DHCP it
// names neither the user class (option 77) nor iPXE's features (option 175). So
// it gets undionly.kpxe by TFTP, as most cards do. It is a vswitch.Port's Edit.
//
// undionly.kpxe itself is left alone: after the transfer of that file, one DHCP
// exchange goes by unchanged.
func PlainROM() func(frame []byte) {
	asked, loaded := false, false
	return func(frame []byte) {
		port, payload := udp(frame)
		switch {
		case port == 67 && loaded:
			loaded = dhcpType(payload) != 3 // a DHCPREQUEST ends the exchange
		case port == 67:
			for _, at := range dhcpOptions(payload) {
				if code := payload[at]; code == 77 || code == 175 {
					clear(payload[at : at+2+int(payload[at+1])]) // option 0 pads
				}
			}
			clear(frame[40:42]) // no UDP checksum (RFC 768)
		case port == 69:
			asked = strings.HasPrefix(string(payload), "\x00\x01undionly.kpxe\x00")
		case asked && len(payload) >= 2 && binary.BigEndian.Uint16(payload) == 4: // the first ACK
			asked, loaded = false, true
		}
	}
}

// udp is the destination port and the payload of a frame with UDP over IPv4
// without options; 0 for others.
func udp(frame []byte) (port uint16, payload []byte) {
	const ethernet, ip, head = 14, 20, 8
	if len(frame) < ethernet+ip+head || frame[12] != 8 || frame[13] != 0 || frame[14] != 0x45 || frame[23] != 17 {
		return 0, nil
	}
	return binary.BigEndian.Uint16(frame[36:]), frame[ethernet+ip+head:]
}

// dhcpOptions are where the options of a DHCP message begin (RFC 2131).
func dhcpOptions(message []byte) (at []int) {
	const fixed = 240 // with the magic cookie
	for i := fixed; i+1 < len(message) && message[i] != 255; {
		if message[i] == 0 {
			i++
			continue
		}
		if i+2+int(message[i+1]) > len(message) {
			break
		}
		at = append(at, i)
		i += 2 + int(message[i+1])
	}
	return at
}

// dhcpType is a message's type (option 53); 0: it has none.
func dhcpType(message []byte) byte {
	for _, at := range dhcpOptions(message) {
		if message[at] == 53 && message[at+1] == 1 {
			return message[at+2]
		}
	}
	return 0
}
