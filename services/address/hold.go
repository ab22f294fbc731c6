// Package address owns the service address: it follows the leader, and a
// leader that is killed or stopped loses it within three seconds, because the
// kernel itself forgets it.
package address

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/rackseed/rackseed/services/internal/carrier"
)

const (
	// lifetime of the address in the kernel, renewed each renewal.
	lifetime = 3 * time.Second
	renewal  = time.Second
	// Three probes within a second: a live owner answers in microseconds. Where
	// another replica had the address a moment ago, machines wait for it, and a
	// stranger would have shown there.
	probes         = 3
	probePause     = 250 * time.Millisecond
	successorPause = 50 * time.Millisecond
	announceTime   = 30 * time.Second // a switch or a neighbour may have missed it
	// failures in a row until Hold gives up.
	maxFailures = 3
	// look is how often a link without a carrier is looked at.
	look = 250 * time.Millisecond
)

// Conflict is another host that has the address.
type Conflict struct {
	Address   netip.Addr
	Interface string
	Owner     net.HardwareAddr
	// Held says that the address is held here too: the other one came later, or
	// was not to be seen before.
	Held bool
}

func (c *Conflict) Error() string {
	way := "give that host another address, or choose another serviceAddress in the site file"
	if c.Held {
		return fmt.Sprintf("address %s on %s: %s uses it too, so that machines reach one or the other; %s", c.Address, c.Interface, c.Owner, way)
	}
	return fmt.Sprintf("address %s on %s: %s has it already; %s", c.Address, c.Interface, c.Owner, way)
}

// errLapsed says that the kernel forgot the address while this process did not run.
var errLapsed = errors.New("this process was stopped")

// Hold takes an address on a network interface and keeps it until ctx ends,
// then removes it and returns nil. It waits for the link's carrier and probes
// first (RFC 5227 section 2.1), and fails with a *Conflict if another host has
// the address: also if that one shows only in the first minute after the carrier
// came, also when it comes back, since a switch may pass nothing at first. It
// fails when the interface is gone or the kernel refuses; then the address is
// gone too, or within three seconds. It fails after this process was stopped for so
// long that the kernel forgot the address: whoever calls it again should know by then
// whether the address is still its to take.
//
// Another host that uses the address later does not get it. told is called with
// a *Conflict of it, at most each ten seconds, and with another error while the
// link has no carrier; and with nil when the address is taken and when that is
// over. It must not block.
//
// replica says whether a hardware address is that of another replica, which may
// have had the address until now: its kernel has it for three seconds more if its
// process was killed. It is taken all the same, and announced each second for
// twice as long. nil: there is no other one.
func Hold(ctx context.Context, link string, prefix netip.Prefix, replica func(net.HardwareAddr) bool, told func(error)) error {
	return hold(ctx, link, prefix, replica, told, trialTime)
}

func hold(ctx context.Context, link string, prefix netip.Prefix, replica func(net.HardwareAddr) bool, told func(error), trial time.Duration) error {
	h, err := newHolder(link, prefix)
	if err != nil {
		return err
	}
	h.told, h.tenure.trial, h.probePause, h.replica = told, trial, successorPause, replica
	if replica == nil {
		h.probePause, h.replica = probePause, func(net.HardwareAddr) bool { return false }
	}
	if err := h.take(ctx); err != nil || ctx.Err() != nil {
		return errors.Join(err, h.conn.Close())
	}
	owners, failed := make(chan net.HardwareAddr, 1), make(chan error, 1)
	var watching sync.WaitGroup
	watching.Go(func() { failed <- h.watch(owners) })
	err = h.keep(ctx, owners, failed)
	err = errors.Join(err, h.conn.Close()) // which ends watch
	watching.Wait()
	return errors.Join(err, h.release())
}

// holder holds one address.
type holder struct {
	name   string
	link   netlink.Link
	own    net.HardwareAddr
	prefix netip.Prefix
	conn   *packet.Conn
	log    *slog.Logger
	told   func(error)
	tenure tenure // take's, then keep's
	// replica says whether a hardware address is another replica's.
	replica    func(net.HardwareAddr) bool
	probePause time.Duration
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
	filter, err := bpf.Assemble(about(prefix.Addr()))
	if err != nil {
		return nil, fmt.Errorf("address %s on %s: %w", prefix, name, err)
	}
	conn, err := packet.Listen(ifi, packet.Datagram, etherARP, &packet.Config{Filter: filter})
	if err != nil {
		return nil, fmt.Errorf("address %s on %s: packet socket for ARP: %w", prefix, name, err)
	}
	return &holder{
		name: name, link: link, own: ifi.HardwareAddr, prefix: prefix, conn: conn,
		log: slog.Default().With("address", prefix.Addr().String(), "link", name),
	}, nil
}

// take takes the address, unless another host has it or ctx ends.
func (h *holder) take(ctx context.Context) error {
	if err := h.await(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	h.tenure.sure = time.Now()
	if err := h.probe(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	if err := h.renew(); err != nil {
		return err
	}
	h.log.Info("address taken")
	h.tenure.taken = time.Now()
	h.announce()
	h.told(nil)
	return nil
}

// await waits until the link has a carrier, or ctx ends.
func (h *holder) await(ctx context.Context) error {
	tick := time.NewTicker(look)
	defer tick.Stop()
	for said := false; ; said = true {
		if _, err := h.lookAtCarrier(); err != nil || h.tenure.up {
			return err
		}
		if !said {
			h.told(h.noCarrier())
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (h *holder) lookAtCarrier() (changed bool, err error) {
	up, err := carrier.Up(h.link.Attrs().Index)
	if err != nil {
		return false, fmt.Errorf("address %s on %s: %w", h.prefix, h.name, err)
	}
	return h.tenure.carrier(up, time.Now()), nil
}

func (h *holder) noCarrier() error {
	return fmt.Errorf("address %s on %s: the link has no carrier, so that nobody can be reached or asked for the address; plug its cable in, or choose another link in the site file",
		h.prefix.Addr(), h.name)
}

// keep renews the address until ctx ends (then nil), that fails, or another host
// had the address first (*Conflict).
func (h *holder) keep(ctx context.Context, owners <-chan net.HardwareAddr, failed <-chan error) error {
	tick := time.NewTicker(renewal)
	defer tick.Stop()
	announced, early, failures := time.Now(), 2, 0
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case owner := <-owners:
			if h.tenure.lingers(time.Now()) && h.replica(owner) {
				early = lingerTicks // its neighbours may have asked it just now
				continue
			}
			first, defend := h.tenure.seen(owner, time.Now())
			if first {
				return &Conflict{h.prefix.Addr(), h.name, owner, false}
			}
			if defend {
				h.announce()
				h.told(&Conflict{h.prefix.Addr(), h.name, owner, true})
			}
			continue
		case <-tick.C:
		}
		changed, err := h.lookAtCarrier()
		if err == nil {
			err = h.renew()
		}
		if err != nil {
			if failures++; failures == maxFailures || errors.Is(err, errLapsed) {
				return err
			}
			h.log.Warn("address not renewed", "error", err)
			continue
		}
		failures = 0
		now := time.Now()
		over := h.tenure.over(now)
		if !h.tenure.up {
			if changed {
				h.told(h.noCarrier())
			}
			continue
		}
		if changed {
			early = 2 // it may be plugged in elsewhere
		}
		if changed || over {
			h.told(nil)
		}
		// Hosts that have it too, and keep quiet, answer a probe. Before what
		// we say of ourselves, which others would believe.
		announces := early > 0 || now.Sub(announced) >= announceTime
		if announces || h.tenure.onTrial(now) {
			h.send(probe(h.own, h.prefix.Addr()))
		}
		if announces {
			early, announced = early-1, now
			h.announce()
		}
	}
}

// probe returns a *Conflict if another host has the address.
func (h *holder) probe(ctx context.Context) error {
	for range probes {
		h.send(probe(h.own, h.prefix.Addr()))
		owner, err := h.listen(time.Now().Add(h.probePause), func(p arp) bool { return p.claims(h.own, h.prefix.Addr()) && !ownHardware(p.senderMAC) })
		if err != nil {
			return err
		}
		if owner != nil && h.replica(owner) {
			return nil // a stranger beside it shows while it is held
		}
		if owner != nil {
			return &Conflict{h.prefix.Addr(), h.name, owner, false}
		}
		if ctx.Err() != nil {
			return nil
		}
	}
	return nil
}

// watch tells of other hosts that use the address, until the socket fails or is
// closed. What nobody takes up is left out: it will show again.
func (h *holder) watch(owners chan<- net.HardwareAddr) error {
	for {
		owner, err := h.listen(time.Time{}, func(p arp) bool { return p.senderIP == h.prefix.Addr() && !ownHardware(p.senderMAC) })
		if err != nil {
			return err
		}
		if owner != nil {
			select {
			case owners <- owner:
			default:
			}
		}
	}
}

// ownHardware says whether a hardware address is one of this host's: until the address
// of an earlier process has run out, another of its network cards on the same
// wire answers for it.
func ownHardware(hw net.HardwareAddr) bool {
	present, err := net.Interfaces()
	return err == nil && slices.ContainsFunc(present, func(p net.Interface) bool { return bytes.Equal(p.HardwareAddr, hw) })
}

// listen waits until the deadline (zero: for ever) for a packet that matters,
// and returns who sent it; nil: nobody, or the link is down.
func (h *holder) listen(deadline time.Time, matters func(arp) bool) (owner net.HardwareAddr, err error) {
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
		if p, ok := parseARP(b[:n]); ok && matters(p) {
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

// renew adds the address, or its lifetime, unless it lapsed.
func (h *holder) renew() error {
	now := time.Now()
	if h.tenure.lapsed(now) {
		return fmt.Errorf("address %s on %s: %w: it did not run for %s, and another replica may have it; it is asked for anew", h.prefix, h.name, errLapsed, now.Sub(h.tenure.sure).Round(time.Second))
	}
	if err := netlink.AddrReplace(h.link, h.address()); err != nil {
		return fmt.Errorf("address %s on %s: %w", h.prefix, h.name, err)
	}
	h.tenure.sure = now
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
