// Package address owns the service address: it follows the leader, and a
// leader that is killed or stopped loses it within three seconds, because the
// kernel itself forgets it.
package address

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// lifetime of the address in the kernel, renewed each renewal.
	lifetime = 3 * time.Second
	renewal  = time.Second
	// Three probes within a second: a live owner answers in microseconds.
	probes       = 3
	probePause   = 250 * time.Millisecond
	announceTime = 30 * time.Second // a switch or a neighbour may have missed it
	// failures in a row until Hold gives up.
	maxFailures = 3
)

// Conflict is returned by Hold when another host has the address.
type Conflict struct {
	Address   netip.Addr
	Interface string
	Owner     net.HardwareAddr
}

func (c *Conflict) Error() string {
	return fmt.Sprintf("address %s on %s: %s has it already; give that host another address, or choose another serviceAddress in the site file", c.Address, c.Interface, c.Owner)
}

// Hold takes an address on a network interface and keeps it until ctx ends,
// then removes it and returns nil. It probes first, and fails with a *Conflict
// if another host has the address. It fails when the interface is gone or the
// kernel refuses; then the address is gone too, or within three seconds.
func Hold(ctx context.Context, link string, prefix netip.Prefix) error {
	h, err := newHolder(link, prefix)
	if err != nil {
		return err
	}
	err = h.hold(ctx)
	return errors.Join(err, h.conn.Close())
}

// holder holds one address.
type holder struct {
	name   string
	link   netlink.Link
	own    net.HardwareAddr
	prefix netip.Prefix
	conn   *packet.Conn
	log    *slog.Logger
}

func newHolder(name string, prefix netip.Prefix) (*holder, error) {
	if !prefix.Addr().Is4() {
		return nil, fmt.Errorf("address %s on %s: it is not IPv4", prefix, name)
	}
	link, err := netlink.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("address %s on %s: %w", prefix, name, err)
	}
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("address %s on %s: %w", prefix, name, err)
	}
	if len(ifi.HardwareAddr) != 6 {
		return nil, fmt.Errorf("address %s on %s: it is not an Ethernet link", prefix, name)
	}
	conn, err := packet.Listen(ifi, packet.Datagram, etherARP, nil)
	if err != nil {
		return nil, fmt.Errorf("address %s on %s: packet socket for ARP: %w", prefix, name, err)
	}
	return &holder{name, link, ifi.HardwareAddr, prefix, conn, slog.Default().With("address", prefix.Addr().String(), "link", name)}, nil
}

func (h *holder) hold(ctx context.Context) error {
	if err := h.probe(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	if err := h.renew(); err != nil {
		return err
	}
	h.log.Info("address taken")
	h.announce()
	tick := time.NewTicker(renewal)
	defer tick.Stop()
	announced, early, failures := time.Now(), 2, 0
	for {
		select {
		case <-ctx.Done():
			return h.release()
		case <-tick.C:
		}
		if err := h.renew(); err != nil {
			if failures++; failures == maxFailures {
				return errors.Join(err, h.release())
			}
			h.log.Warn("address not renewed", "error", err)
			continue
		}
		failures = 0
		if early > 0 || time.Since(announced) >= announceTime {
			early, announced = early-1, time.Now()
			h.announce()
		}
	}
}

// probe returns a *Conflict if another host has the address.
func (h *holder) probe(ctx context.Context) error {
	for range probes {
		h.send(probe(h.own, h.prefix.Addr()))
		owner, err := h.listen(time.Now().Add(probePause))
		if err != nil {
			return err
		}
		if owner != nil {
			return &Conflict{h.prefix.Addr(), h.name, owner}
		}
		if ctx.Err() != nil {
			return nil
		}
	}
	return nil
}

// listen waits until the deadline for a host that claims the address.
func (h *holder) listen(deadline time.Time) (owner net.HardwareAddr, err error) {
	if err := h.conn.SetReadDeadline(deadline); err != nil {
		return nil, fmt.Errorf("address %s on %s: %w", h.prefix, h.name, err)
	}
	b := make([]byte, 128)
	for {
		n, _, err := h.conn.ReadFrom(b)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, nil
		case errors.Is(err, unix.ENETDOWN):
			return nil, nil // no cable: nobody to ask, and nobody to disturb
		case err != nil:
			return nil, fmt.Errorf("address %s on %s: waiting for ARP: %w", h.prefix, h.name, err)
		}
		if p, ok := parseARP(b[:n]); ok && p.claims(h.own, h.prefix.Addr()) {
			return p.senderMAC, nil
		}
	}
}

func (h *holder) announce() { h.send(announcement(h.own, h.prefix.Addr())) }

// send tells everybody; a link without a cable is told again later.
func (h *holder) send(p arp) {
	err := h.conn.SetWriteDeadline(time.Now().Add(renewal / 2))
	if err == nil {
		_, err = h.conn.WriteTo(p.bytes(), &packet.Addr{HardwareAddr: everyone})
	}
	if err != nil {
		h.log.Warn("ARP not sent", "error", err)
	}
}

func (h *holder) address() *netlink.Addr {
	ip := h.prefix.Addr().As4()
	seconds := int(lifetime / time.Second)
	return &netlink.Addr{
		IPNet:       &net.IPNet{IP: ip[:], Mask: net.CIDRMask(h.prefix.Bits(), 32)},
		ValidLft:    seconds,
		PreferedLft: seconds,
	}
}

// renew adds the address, or its lifetime.
func (h *holder) renew() error {
	if err := netlink.AddrReplace(h.link, h.address()); err != nil {
		return fmt.Errorf("address %s on %s: %w", h.prefix, h.name, err)
	}
	return nil
}

// release removes the address; one that is gone already is as well.
func (h *holder) release() error {
	err := netlink.AddrDel(h.link, h.address())
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("address %s on %s: not removed, it ends by itself within %s: %w", h.prefix, h.name, lifetime, err)
	}
	h.log.Info("address released")
	return nil
}
