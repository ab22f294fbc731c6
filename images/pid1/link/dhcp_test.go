package link

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/rackseed/rackseed/build/host/notrun"
)

// namespace puts the test's thread into a network namespace of its own, with a
// cable from "machine" to "server". The thread ends with the test, and the
// namespace with it.
func namespace(t *testing.T) {
	t.Helper()
	notrun.WithoutRoot(t, "a network namespace")
	runtime.LockOSThread() // never unlocked
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	cable := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "machine"}, PeerName: "server"}
	if err := netlink.LinkAdd(cable); err != nil {
		t.Fatal(err)
	}
	if err := Up("server"); err != nil {
		t.Fatal(err)
	}
	if err := SetAddress("server", netip.MustParsePrefix("192.0.2.1/24"), 0); err != nil {
		t.Fatal(err)
	}
}

// serve answers like a DHCP server; the n-th new lease is 192.0.2.(49+n).
func serve(t *testing.T) {
	t.Helper()
	leases := byte(0)
	s, err := server4.NewServer("server", &net.UDPAddr{Port: 67}, func(conn net.PacketConn, peer net.Addr, m *dhcpv4.DHCPv4) {
		reply, err := dhcpv4.NewReplyFromRequest(m, dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(192, 0, 2, 1))),
			dhcpv4.WithNetmask(net.CIDRMask(24, 32)), dhcpv4.WithRouter(net.IPv4(192, 0, 2, 1)), dhcpv4.WithDNS(net.IPv4(192, 0, 2, 1)), dhcpv4.WithLeaseTime(3600))
		if err != nil {
			t.Error(err)
			return
		}
		if m.ClassIdentifier() != "test" || len(m.GetOneOption(dhcpv4.OptionClientIdentifier)) != 7 {
			t.Errorf("class %q, client %x", m.ClassIdentifier(), m.GetOneOption(dhcpv4.OptionClientIdentifier))
		}
		kind := dhcpv4.MessageTypeAck
		if m.MessageType() == dhcpv4.MessageTypeDiscover {
			kind = dhcpv4.MessageTypeOffer
			leases++
		}
		reply.UpdateOption(dhcpv4.OptMessageType(kind))
		reply.YourIPAddr = net.IPv4(192, 0, 2, 49+leases)
		if _, err := conn.WriteTo(reply.ToBytes(), &net.UDPAddr{IP: net.IPv4bcast, Port: 68}); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve() // ends when it is closed
	}()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		<-done
	})
}

func TestAcquire(t *testing.T) {
	namespace(t)
	serve(t)
	if err := Up("machine"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, end := range []string{"machine", "server"} {
		if err := WaitCarrier(ctx, end); err != nil {
			t.Fatal(err)
		}
	}
	lease, err := Acquire(ctx, "machine", "test", func(err error) { t.Log(err) })
	if err != nil {
		t.Fatal(err)
	}
	resolv := filepath.Join(t.TempDir(), "resolv.conf")
	if err := SetAddress("machine", netip.MustParsePrefix("198.51.100.7/24"), 0); err != nil { // from before
		t.Fatal(err)
	}
	if err := lease.Apply("machine", resolv); err != nil {
		t.Fatal(err)
	}
	l, err := netlink.LinkByName("machine")
	if err != nil {
		t.Fatal(err)
	}
	addresses, err := netlink.AddrList(l, netlink.FAMILY_V4)
	if err != nil || len(addresses) != 1 || addresses[0].IPNet.String() != "192.0.2.50/24" || addresses[0].ValidLft < 3500 || addresses[0].ValidLft > 3600 {
		t.Errorf("addresses %v, %v", addresses, err)
	}
	routes, err := netlink.RouteList(l, netlink.FAMILY_V4)
	found := false
	for _, r := range routes {
		found = found || r.Gw.Equal(net.IPv4(192, 0, 2, 1))
	}
	if err != nil || !found {
		t.Errorf("routes %v, %v", routes, err)
	}
	if b, err := os.ReadFile(resolv); err != nil || !strings.HasPrefix(string(b), "nameserver 192.0.2.1\n") {
		t.Errorf("%q, %v", b, err)
	}
	renewed, err := renew(ctx, "machine", "test", lease)
	if err != nil || renewed.Address != lease.Address {
		t.Errorf("renewed as %v, %v", renewed.Address, err)
	}
}

func TestNoCarrier(t *testing.T) {
	namespace(t)
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	err := WaitCarrier(ctx, "machine") // it is down
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "network link machine: no carrier") {
		t.Errorf("%v", err)
	}
}
