package rack

import (
	"bytes"
	"testing"
)

// frame is a UDP packet to a port.
func frame(port byte, payload []byte) []byte {
	f := make([]byte, 42)
	f[12], f[14], f[23], f[37], f[40] = 8, 0x45, 17, port, 0xab
	return append(f, payload...)
}

func dhcp(kind byte, more ...byte) []byte {
	m := append(make([]byte, 240), 53, 1, kind)
	return frame(67, append(append(m, more...), 255))
}

func TestPlainROM(t *testing.T) {
	ipxe := []byte{77, 4, 'i', 'P', 'X', 'E', 0, 60, 2, 'P', 'X', 175, 3, 1, 1, 1}
	plain := []byte{0, 0, 0, 0, 0, 0, 0, 60, 2, 'P', 'X', 0, 0, 0, 0, 0}
	edit := PlainROM()
	for i, c := range []struct {
		send, want []byte
	}{
		{dhcp(1, ipxe...), dhcp(1, plain...)},
		{dhcp(3, ipxe...), dhcp(3, plain...)},
		{frame(69, []byte("\x00\x01autoexec.ipxe\x00")), nil},
		{frame(99, []byte{0, 4, 0, 0}), nil},
		{dhcp(1, ipxe...), dhcp(1, plain...)}, // another file was not it
		{frame(69, []byte("\x00\x01undionly.kpxe\x00octet\x00")), nil},
		{dhcp(1, ipxe...), dhcp(1, plain...)}, // it was asked for, and refused
		{frame(69, []byte("\x00\x01undionly.kpxe\x00octet\x00")), nil},
		{frame(99, []byte{0, 4, 0, 0}), nil},
		{dhcp(1, ipxe...), dhcp(1, ipxe...)}, // undionly.kpxe speaks
		{dhcp(3, ipxe...), dhcp(3, ipxe...)},
		{dhcp(1, ipxe...), dhcp(1, plain...)}, // the machine was restarted
		{dhcp(1, 77, 200, 1), dhcp(1, 77, 200, 1)},
		{[]byte("short"), nil},
	} {
		want := c.want
		if want == nil {
			want = bytes.Clone(c.send)
		}
		edit(c.send)
		if len(want) > 42 && want[37] == 67 && !bytes.Equal(want[42:], ipxe) {
			want[40], c.send[40] = 0, 0 // the checksum, where it was taken away
		}
		if !bytes.Equal(c.send, want) {
			t.Errorf("frame %d: %q, want %q", i, c.send, want)
		}
	}
}
