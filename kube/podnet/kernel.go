package podnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// protocol marks our routes in the kernel (rtnetlink(7), rtm_protocol; above
// 3 is the user's, and iproute2's rt_protos has nothing at 82): only those are
// ever removed.
const protocol netlink.RouteProtocol = 82

// SetRoutes makes the kernel's routes of ours be want. Those that could not be
// set are named by the error; the others are.
func SetRoutes(want []Route) error {
	have, err := current()
	if err != nil {
		return fmt.Errorf("reading the pod network's routes: %w", err)
	}
	set, remove := Diff(have, want)
	var failed []error
	for _, r := range set {
		if err := netlink.RouteReplace(r.netlink()); err != nil {
			failed = append(failed, fmt.Errorf("route to pods %s via %s: %w: is the node on this node's network?", r.Pods, r.Via, err))
		}
	}
	for _, r := range remove {
		if err := netlink.RouteDel(r.netlink()); err != nil && !errors.Is(err, unix.ESRCH) {
			failed = append(failed, fmt.Errorf("removing the route to pods %s via %s: %w", r.Pods, r.Via, err))
		}
	}
	return errors.Join(failed...)
}

func (r Route) netlink() *netlink.Route {
	return &netlink.Route{
		Dst:      &net.IPNet{IP: r.Pods.Addr().AsSlice(), Mask: net.CIDRMask(r.Pods.Bits(), r.Pods.Addr().BitLen())},
		Gw:       r.Via.AsSlice(),
		Protocol: protocol,
	}
}

func current() ([]Route, error) {
	list, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Protocol: protocol}, netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return nil, err
	}
	var routes []Route
	for _, r := range list {
		if r.Dst == nil {
			continue
		}
		pods, ok := netip.AddrFromSlice(r.Dst.IP)
		via, okVia := netip.AddrFromSlice(r.Gw)
		if !ok || !okVia {
			continue
		}
		ones, _ := r.Dst.Mask.Size()
		routes = append(routes, Route{netip.PrefixFrom(pods.Unmap(), ones), via.Unmap()})
	}
	return routes, nil
}

// SetMasquerade loads Masquerade's rules with nft, which the node image has.
func SetMasquerade(ctx context.Context, pods netip.Prefix) error {
	cmd := exec.CommandContext(ctx, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(Masquerade(pods))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("masquerading pods %s: nft: %w: %s", pods, err, strings.TrimSpace(string(out)))
	}
	return nil
}
