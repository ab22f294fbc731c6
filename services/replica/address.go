package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/rackseed/rackseed/services/address"
	"github.com/rackseed/rackseed/services/api"
	"github.com/rackseed/rackseed/services/bounded"
	"github.com/rackseed/rackseed/services/dhcp"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
)

// holdAddress keeps the service address on its link. told remembers, from one
// start to the next, which other hosts with the address were told of.
func (r *replica) holdAddress(ctx context.Context, tell report, site machine.Site, told *bounded.Repeat) error {
	present, err := net.Interfaces()
	if err != nil {
		return err
	}
	link, prefix, err := serviceLink(site, present)
	if err != nil {
		return err
	}
	held := fmt.Sprintf("%s on %s", prefix, link)
	conflicts := make(chan *address.Conflict, 1)
	noting, stop := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		for {
			select {
			case c := <-conflicts:
				err := r.explained(noting, c)
				tell(false, err.Error())
				r.tellConflict(noting, c, err, told)
			case <-noting.Done():
				return
			}
		}
	})
	var conflict *address.Conflict
	var replica func(net.HardwareAddr) bool
	if len(r.store.Load().Membership().Members) > 1 {
		// The leader of a newer generation may run where one of this generation did: it
		// has the address for good.
		replica = func(hw net.HardwareAddr) bool { return r.network.Newer() == nil && r.hardwareOfReplica(link, hw) }
	}
	err = address.Hold(ctx, link, prefix, replica, func(err error) {
		if err == nil {
			tell(true, held)
			return
		}
		tell(false, err.Error())
		if errors.As(err, &conflict) {
			select {
			case conflicts <- conflict:
			default: // the one that waits says the same
			}
		}
	})
	stop()
	watching.Wait()
	if errors.As(err, &conflict) {
		err = r.explained(ctx, conflict)
		r.tellConflict(ctx, conflict, err, told)
	}
	return err
}

// hardwareOfReplica says whether another replica's own address is at a hardware
// address, as far as this kernel, which talks to it all the time, knows.
func (r *replica) hardwareOfReplica(link string, hw net.HardwareAddr) bool {
	l, err := netlink.LinkByName(link)
	if err != nil {
		return false
	}
	neighbours, err := netlink.NeighList(l.Attrs().Index, netlink.FAMILY_V4)
	if err != nil {
		return false
	}
	for _, x := range r.store.Load().View().Replicas() {
		host, _, err := net.SplitHostPort(x.Endpoint)
		if ip := net.ParseIP(host); err == nil && x.ID != r.own.ID && slices.ContainsFunc(neighbours, func(n netlink.Neigh) bool {
			return n.IP.Equal(ip) && bytes.Equal(n.HardwareAddr, hw)
		}) {
			return true
		}
	}
	return false
}

// explained is a conflict with what can be said of the other host: that it is this
// very cluster, which went on without this replica.
func (r *replica) explained(ctx context.Context, c *address.Conflict) error {
	view := r.store.Load().View()
	cluster, _ := view.Cluster()
	_, print, err := consoleCertificate(view)
	if err != nil || c.Held { // then this replica itself would answer
		return c
	}
	ctx, cancel := context.WithTimeout(ctx, conflictAsk)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodHead, "https://"+c.Address.String()+"/", nil)
	if err != nil {
		return c
	}
	answer, err := pinned(print).Do(request)
	if err != nil { // another program, or nobody who can be asked
		return c
	}
	answer.Body.Close() // of a HEAD
	if text := otherAuthority(cluster, r.own.ID, answer.Header.Get(api.HeaderAuthority)); text != "" {
		return fmt.Errorf("%w. %s", c, text)
	}
	return c
}

// otherAuthority says that the same cluster is served where this replica wants to; "":
// it is not known. there is api.HeaderAuthority. Epochs tell nothing: each past counts
// its own.
func otherAuthority(cluster state.Cluster, own, there string) string {
	parts := strings.SplitN(there, "/", 3)
	if len(parts) != 3 {
		return ""
	}
	generation, err := strconv.ParseUint(parts[0], 10, 64)
	if err != nil {
		return ""
	}
	if generation < cluster.Generation {
		return fmt.Sprintf("Replica %s of generation %d answers there, which is from before this cluster was recovered as generation %d: switch it off", parts[2], generation, cluster.Generation)
	}
	return fmt.Sprintf("This very cluster answers there: replica %s leads it, in epoch %s of generation %d. This one (%s, epoch %d of generation %d) is an old copy, and serves nobody: switch it off, and erase all of its stick",
		parts[2], parts[1], generation, own, cluster.Epoch, cluster.Generation)
}

const (
	// conflictPause is between events about one host that has the service address.
	conflictPause = 5 * time.Minute
	// conflictAsk is how long that host may take to say who it is.
	conflictAsk = 2 * time.Second
)

// tellConflict makes an event of another host with the service address.
func (r *replica) tellConflict(ctx context.Context, c *address.Conflict, why error, told *bounded.Repeat) {
	if !told.Due(c.Owner.String(), r.Now()) {
		return
	}
	limited, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	_, err := r.store.Load().Propose(limited, by, state.Note{
		What: "address.conflict", Severity: machine.Error, Text: "The service address is another host's too: " + why.Error(),
		Data: map[string]string{"address": c.Address.String(), "link": c.Interface, "hardware": c.Owner.String()},
	})
	if err != nil && ctx.Err() == nil {
		r.Logger.Error("event not committed", "kind", "address.conflict", "error", err)
	}
}

// serviceLink is the network interface that carries the service address, and
// the address with its link's prefix length.
func serviceLink(site machine.Site, present []net.Interface) (name string, prefix netip.Prefix, err error) {
	for i, l := range site.Links {
		if !l.Address.Contains(site.ServiceAddress) {
			continue
		}
		if name, ok := l.InterfaceIn(present); ok {
			return name, netip.PrefixFrom(site.ServiceAddress, l.Address.Bits()), nil
		}
		return "", netip.Prefix{}, fmt.Errorf("service address %s: links[%d] of the site file names the interface %s, which is not there",
			site.ServiceAddress, i, dhcp.LinkWord(l))
	}
	return "", netip.Prefix{}, fmt.Errorf("service address %s is in no link's network: correct serviceAddress or the links in the site file", site.ServiceAddress)
}

// whileHeld runs run while this machine has the address, again and again until
// ctx ends: nothing is served at an address that was given up.
func whileHeld(ctx context.Context, a netip.Addr, waiting func(), run func(ctx context.Context) error) error {
	for ctx.Err() == nil {
		waiting()
		if !awaitAddress(ctx, a, true, 100*time.Millisecond) {
			return nil
		}
		holding, stop := context.WithCancel(ctx)
		var watching sync.WaitGroup
		watching.Go(func() {
			if awaitAddress(holding, a, false, time.Second) {
				stop()
			}
		})
		err := run(holding)
		lost := holding.Err() != nil
		stop()
		watching.Wait()
		if !lost {
			return err
		}
	}
	return nil
}

// awaitAddress waits until this machine has the address, or has it no more; it
// looks each pause. false when ctx ended.
func awaitAddress(ctx context.Context, a netip.Addr, present bool, pause time.Duration) bool {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		if all, err := net.InterfaceAddrs(); err == nil { // the next look may have better luck
			here := slices.ContainsFunc(all, func(p net.Addr) bool {
				n, ok := p.(*net.IPNet)
				if !ok {
					return false
				}
				ip, ok := netip.AddrFromSlice(n.IP)
				return ok && ip.Unmap() == a
			})
			if here == present {
				return true
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
}
