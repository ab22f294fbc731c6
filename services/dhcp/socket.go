package dhcp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"github.com/rackseed/rackseed/services/internal/frame"
)

// socket is one link's pair: a UDP socket that receives, and answers those who
// have an address; a packet socket that answers those who have none.
type socket struct {
	link  Link
	hw    net.HardwareAddr
	index int
	in    *net.UDPConn
	udp   *ipv4.PacketConn // the same one
	raw   *packet.Conn
}

// receiveBuffer holds what a room full of machines sends when the power comes
// back, until it is read: bytes, of which the kernel counts a packet's overhead
// too.
const receiveBuffer = 4 << 20

// sendTime bounds a send: a link whose queue is full must not hold a worker.
const sendTime = time.Second

// openSocket binds port 67 to the link's device, so that nothing arrives from
// another link. The port is not shared: a second server is an error, not a
// thief of packets.
func openSocket(ctx context.Context, link Link) (conn, error) {
	ifi, err := net.InterfaceByName(link.Interface)
	if err != nil {
		return nil, fmt.Errorf("DHCP on %s: %w", link.Interface, err)
	}
	if len(ifi.HardwareAddr) != 6 {
		return nil, fmt.Errorf("DHCP on %s: it is not an Ethernet link; name another one in the site file", link.Interface)
	}
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var bind error
		if err := c.Control(func(fd uintptr) {
			bind = errors.Join(
				unix.SetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE, link.Interface),
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
			)
			// Over the system's limit only root of the whole host may go.
			if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
				bind = errors.Join(bind, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer))
			}
		}); err != nil {
			return err
		}
		return bind
	}}
	udp, err := config.ListenPacket(ctx, "udp4", fmt.Sprintf("0.0.0.0:%d", serverPort))
	if err != nil {
		return nil, fmt.Errorf("DHCP on %s: %w; is another DHCP server running here?", link.Interface, err)
	}
	// Protocol 0: the socket sends, and receives nothing.
	raw, err := packet.Listen(ifi, packet.Raw, 0, nil)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("DHCP on %s: packet socket: %w", link.Interface, err), udp.Close())
	}
	return &socket{link, ifi.HardwareAddr, ifi.Index, udp.(*net.UDPConn), ipv4.NewPacketConn(udp), raw}, nil
}

// Read waits for the next packet.
func (s *socket) Read(b []byte) (n int, waited time.Duration, err error) {
	var oob [128]byte
	n, size, _, _, err := s.in.ReadMsgUDP(b, oob[:])
	if err != nil {
		return 0, 0, err
	}
	return n, waitedFor(oob[:size], time.Now()), nil
}

// waitedFor is how long ago the kernel took a packet in, by its control messages
// (SCM_TIMESTAMPNS, socket(7)); 0: they do not say, or the clock was set back.
func waitedFor(oob []byte, now time.Time) time.Duration {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) >= 16 {
			at := time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
			return max(0, now.Sub(at))
		}
	}
	return 0
}

// Send sends a reply, always from the service address.
func (s *socket) Send(t Target, payload []byte) error {
	deadline := time.Now().Add(sendTime)
	if t.Frame != nil {
		if err := s.raw.SetWriteDeadline(deadline); err != nil {
			return err
		}
		from := netip.AddrPortFrom(s.link.Service, serverPort)
		_, err := s.raw.WriteTo(frame.UDP(s.hw, t.Frame, from, t.To, payload), &packet.Addr{HardwareAddr: t.Frame})
		return err
	}
	if err := s.udp.SetWriteDeadline(deadline); err != nil {
		return err
	}
	_, err := s.udp.WriteTo(payload, &ipv4.ControlMessage{Src: toIP(s.link.Service), IfIndex: s.index}, net.UDPAddrFromAddrPort(t.To))
	return err
}

func (s *socket) Close() error { return errors.Join(s.udp.Close(), s.raw.Close()) }
