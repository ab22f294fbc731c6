//go:build host

package podnet

import (
	"net"
	"net/netip"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// inNamespace runs the rest of the test in a network namespace of its own.
func inNamespace(t *testing.T) {
	t.Helper()
	// The thread is never unlocked: it ends with the goroutine, and the
	// namespace with it.
	runtime.LockOSThread()
	ns, err := netns.New()
	if err != nil {
		t.Fatalf("a network namespace: %v: this test needs root", err)
	}
	t.Cleanup(func() {
		if err := ns.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestSetRoutes(t *testing.T) {
	inNamespace(t)
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "test0"}, PeerName: "test1"}
	if err := netlink.LinkAdd(link); err != nil {
		t.Fatal(err)
	}
	if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 0, 0, 1).To4(), Mask: net.CIDRMask(24, 32)}}); err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		t.Fatal(err)
	}
	peer, err := netlink.LinkByName("test1")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(peer); err != nil {
		t.Fatal(err)
	}
	// Somebody else's route must survive everything below.
	foreign := &netlink.Route{Dst: &net.IPNet{IP: net.IPv4(10, 9, 0, 0).To4(), Mask: net.CIDRMask(24, 32)}, Gw: net.IPv4(10, 0, 0, 9)}
	if err := netlink.RouteAdd(foreign); err != nil {
		t.Fatal(err)
	}
	a, b := route("10.244.1.0/24", "10.0.0.2"), route("10.244.2.0/24", "10.0.0.3")
	for _, want := range [][]Route{{a, b}, {a, b}, {route("10.244.1.0/24", "10.0.0.7"), b}, {b}, nil} {
		if err := SetRoutes(want); err != nil {
			t.Fatal(err)
		}
		got, err := current()
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("the kernel has %v (error %v), wanted %v", got, err, want)
		}
	}
	off := route("10.244.4.0/24", "172.16.0.1")
	if err := SetRoutes([]Route{a, off}); err == nil || !strings.Contains(err.Error(), "172.16.0.1") {
		t.Errorf("a route over a network that the node is not on: %v", err)
	}
	if got, err := current(); err != nil || !reflect.DeepEqual(got, []Route{a}) {
		t.Errorf("beside a route that failed: %v, error %v", got, err)
	}
	routes, err := netlink.RouteList(link, netlink.FAMILY_V4)
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, r := range routes {
		found = found || r.Dst != nil && r.Dst.String() == "10.9.0.0/24"
	}
	if !found {
		t.Errorf("the foreign route is gone: %v", routes)
	}
}

func TestSetMasquerade(t *testing.T) {
	inNamespace(t)
	for range 2 { // a second one replaces the first
		if err := SetMasquerade(t.Context(), netip.MustParsePrefix("10.244.0.0/16")); err != nil {
			t.Fatalf("%v: this test needs the package nftables", err)
		}
	}
}
