package address

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"
)

// burst is how many probes are sent without a pause: a switch port's queue is
// short.
const burst = 32

// Owners asks on a network interface who has addresses, without claiming any
// (RFC 5227 section 2.1.1): as often and as long as Hold does. The result has
// those that another host has, or is about to take. The interface has to be up.
func Owners(ctx context.Context, link string, addresses ...netip.Addr) (owners map[netip.Addr]net.HardwareAddr, err error) {
	owners = map[netip.Addr]net.HardwareAddr{}
	if len(addresses) == 0 {
		return owners, nil
	}
	fail := func(err error) (map[netip.Addr]net.HardwareAddr, error) {
		return nil, fmt.Errorf("asking on %s who has %d addresses: %w", link, len(addresses), err)
	}
	if slices.ContainsFunc(addresses, func(a netip.Addr) bool { return !a.Is4() }) {
		return fail(errors.New("one is not IPv4"))
	}
	ifi, err := net.InterfaceByName(link)
	if err != nil {
		return fail(err)
	}
	if len(ifi.HardwareAddr) != 6 {
		return fail(errors.New("it is not an Ethernet link"))
	}
	conn, err := packet.Listen(ifi, packet.Datagram, etherARP, nil)
	if err != nil {
		return fail(fmt.Errorf("packet socket for ARP: %w", err))
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	for range probes {
		for chunk := range slices.Chunk(addresses, burst) {
			for _, a := range chunk {
				if owners[a] != nil {
					continue
				}
				if _, err := conn.WriteTo(probe(ifi.HardwareAddr, a).bytes(), &packet.Addr{HardwareAddr: everyone}); err != nil {
					return fail(err)
				}
			}
			// All but the last pause are short: what is late is heard in the next.
			if err := hear(conn, ifi.HardwareAddr, addresses, owners, probePause/8); err != nil {
				return fail(err)
			}
		}
		if err := hear(conn, ifi.HardwareAddr, addresses, owners, probePause); err != nil {
			return fail(err)
		}
		if err := ctx.Err(); err != nil {
			return fail(err)
		}
	}
	return owners, nil
}

// hear notes for a while who claims which of the addresses.
func hear(conn *packet.Conn, own net.HardwareAddr, addresses []netip.Addr, owners map[netip.Addr]net.HardwareAddr, pause time.Duration) error {
	if err := conn.SetReadDeadline(time.Now().Add(pause)); err != nil {
		return err
	}
	b := make([]byte, 128)
	for {
		n, _, err := conn.ReadFrom(b)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case errors.Is(err, unix.ENETDOWN):
			return nil // no cable: nobody to ask
		case err != nil:
			return err
		}
		p, ok := parseARP(b[:n])
		if !ok {
			continue
		}
		for _, a := range addresses {
			if owners[a] == nil && p.claims(own, a) {
				owners[a] = p.senderMAC
			}
		}
	}
}
