package link

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
)

// Lease is what a DHCP server gave.
type Lease struct {
	Address  netip.Prefix
	Router   netip.Addr // zero if none
	DNS      []netip.Addr
	Domain   string
	Server   netip.Addr
	Duration time.Duration

	raw *nclient4.Lease
}

// try bounds one exchange: four sends, 4 s apart (RFC 2131 §4.1 doubles from
// there; a busy server under a storm answers the later ones).
const (
	retransmit = 4 * time.Second
	sends      = 4
)

// Acquire asks on a link for a lease until ctx ends. wait is told of each
// round without an answer.
func Acquire(ctx context.Context, name, class string, wait func(error)) (Lease, error) {
	for {
		l, err := acquireOnce(ctx, name, class)
		if err == nil {
			return l, nil
		}
		if ctx.Err() != nil {
			return Lease{}, fmt.Errorf("network link %s: no DHCP lease: %w", name, errors.Join(ctx.Err(), err))
		}
		wait(fmt.Errorf("network link %s: no DHCP lease yet: %w", name, err))
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

func acquireOnce(ctx context.Context, name, class string) (lease Lease, err error) {
	client, options, err := dhcpClient(name, class)
	if err != nil {
		return Lease{}, err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	raw, err := client.Request(ctx, options...)
	if err != nil {
		return Lease{}, err
	}
	return leaseOf(raw)
}

func dhcpClient(name, class string) (*nclient4.Client, []dhcpv4.Modifier, error) {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return nil, nil, err
	}
	client, err := nclient4.New(name, nclient4.WithTimeout(retransmit), nclient4.WithRetry(sends))
	if err != nil {
		return nil, nil, err
	}
	// The client identifier that firmware and iPXE send too, so that the
	// machine keeps the address it netbooted with.
	return client, []dhcpv4.Modifier{
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier(class)),
		dhcpv4.WithOption(dhcpv4.OptClientIdentifier(append([]byte{1}, i.HardwareAddr...))),
		dhcpv4.WithRequestedOptions(dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionDomainNameServer, dhcpv4.OptionDomainName),
	}, nil
}

// leaseOf checks what a server sent.
func leaseOf(raw *nclient4.Lease) (Lease, error) {
	ack := raw.ACK
	address, ok := netip.AddrFromSlice(ack.YourIPAddr.To4())
	if !ok || !address.IsGlobalUnicast() {
		return Lease{}, fmt.Errorf("the DHCP server offers the address %s", ack.YourIPAddr)
	}
	bits := 24
	if mask := ack.SubnetMask(); mask != nil {
		ones, size := mask.Size()
		if size != 32 {
			return Lease{}, fmt.Errorf("the DHCP server sends the subnet mask %s", mask)
		}
		bits = ones
	}
	l := Lease{Address: netip.PrefixFrom(address, bits), Domain: ack.DomainName(), Duration: ack.IPAddressLeaseTime(time.Hour), raw: raw}
	if l.Duration < time.Minute {
		l.Duration = time.Minute
	}
	if r := ack.Router(); len(r) > 0 {
		l.Router, _ = netip.AddrFromSlice(r[0].To4())
	}
	for _, d := range ack.DNS() {
		if a, ok := netip.AddrFromSlice(d.To4()); ok {
			l.DNS = append(l.DNS, a)
		}
	}
	l.Server, _ = netip.AddrFromSlice(ack.ServerIdentifier().To4())
	return l, nil
}

// Apply puts a lease on a link: address with the lease's lifetime, default
// route, and the name servers into resolvConf.
func (l Lease) Apply(name, resolvConf string) error {
	if err := SetAddress(name, l.Address, l.Duration); err != nil {
		return err
	}
	if l.Router.IsValid() && !l.Router.IsUnspecified() {
		if err := SetDefaultRoute(name, l.Router); err != nil {
			return err
		}
	}
	if err := os.WriteFile(resolvConf, []byte(ResolvConf(l.DNS, l.Domain)), 0o644); err != nil {
		return fmt.Errorf("network link %s: name servers: %w", name, err)
	}
	return nil
}

// Keep renews a lease at half of its time (RFC 2131 §4.4.5) until ctx ends. If
// the server refuses or is away until seven eighths, it asks anybody; the
// address then may change. Trouble is logged: with the address gone, the next
// round gets one again.
func Keep(ctx context.Context, name, class, resolvConf string, l Lease, log *slog.Logger) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(l.Duration / 2):
		}
		renewal, cancel := context.WithTimeout(ctx, l.Duration*3/8)
		next, err := renew(renewal, name, class, l)
		cancel()
		if err != nil && ctx.Err() == nil {
			log.Warn("the DHCP lease was not renewed; asking for a new one", "link", name, "error", err)
			next, err = Acquire(ctx, name, class, func(err error) { log.Warn("waiting for DHCP", "error", err) })
		}
		if err != nil { // ctx ended
			return
		}
		if next.Address != l.Address {
			log.Warn("the DHCP server gave another address", "link", name, "was", l.Address, "is", next.Address)
		}
		if err := next.Apply(name, resolvConf); err != nil {
			log.Error("the DHCP lease was not applied", "error", err)
		}
		l = next
	}
}

func renew(ctx context.Context, name, class string, l Lease) (lease Lease, err error) {
	client, options, err := dhcpClient(name, class)
	if err != nil {
		return Lease{}, err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	raw, err := client.Renew(ctx, l.raw, options...)
	if err != nil {
		return Lease{}, err
	}
	return leaseOf(raw)
}
