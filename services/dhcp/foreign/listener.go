package foreign

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/rackseed/rackseed/services/internal/carrier"
	"github.com/rackseed/rackseed/services/internal/frame"
)

// sendTime bounds a send.
const sendTime = time.Second

// listener is a link's packet socket.
type listener struct {
	ifi  *net.Interface
	conn *packet.Conn
}

// Listen opens a packet socket that hears what DHCP servers send, as far as it
// reaches this network card: to everybody, or to this host.
func Listen(name string) (Wire, error) {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("listening for DHCP servers on %s: %w", name, err)
	}
	if len(ifi.HardwareAddr) != 6 {
		return nil, fmt.Errorf("listening for DHCP servers on %s: it is not an Ethernet link; name another one in the site file", name)
	}
	filter, err := bpf.Assemble(fromServers)
	if err != nil {
		return nil, fmt.Errorf("listening for DHCP servers on %s: %w", name, err)
	}
	conn, err := packet.Listen(ifi, packet.Raw, frame.EtherIPv4, &packet.Config{Filter: filter})
	if err != nil {
		return nil, fmt.Errorf("listening for DHCP servers on %s: packet socket: %w", name, err)
	}
	return &listener{ifi, conn}, nil
}

// fromServers lets UDP from port 67 to port 68 pass. What is for other hosts
// does not: a frame of a VLAN that this host has no interface in is marked so.
var fromServers = []bpf.Instruction{
	bpf.LoadExtension{Num: bpf.ExtType},
	bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: unix.PACKET_MULTICAST, SkipTrue: 10},
	bpf.LoadAbsolute{Off: 12, Size: 2},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: frame.EtherIPv4, SkipTrue: 8},
	bpf.LoadAbsolute{Off: 23, Size: 1},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_UDP, SkipTrue: 6},
	bpf.LoadMemShift{Off: 14}, // the length of the IP header
	bpf.LoadIndirect{Off: 14, Size: 2},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: serverPort, SkipTrue: 3},
	bpf.LoadIndirect{Off: 16, Size: 2},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: clientPort, SkipTrue: 1},
	bpf.RetConstant{Val: 65535},
	bpf.RetConstant{Val: 0},
}

func (l *listener) Hardware() net.HardwareAddr { return l.ifi.HardwareAddr }

func (l *listener) Carrier() (bool, error) { return carrier.Up(l.ifi.Index) }

func (l *listener) Probe(b []byte) error {
	if err := l.conn.SetWriteDeadline(time.Now().Add(sendTime)); err != nil {
		return err
	}
	_, err := l.conn.WriteTo(b, &packet.Addr{HardwareAddr: everyone})
	return err
}

// Read waits for a frame also while the link is down, which the kernel tells
// each socket once.
func (l *listener) Read(b []byte) (int, error) {
	for {
		n, _, err := l.conn.ReadFrom(b)
		if errors.Is(err, unix.ENETDOWN) {
			continue
		}
		return n, err
	}
}

func (l *listener) Close() error { return l.conn.Close() }
