package link

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
)

func TestParseBOOTIF(t *testing.T) {
	mac, err := ParseBOOTIF("01-52-54-00-AB-34-56")
	if err != nil || mac.String() != "52:54:00:ab:34:56" {
		t.Errorf("%v, %v", mac, err)
	}
	for _, bad := range []string{"", "52-54-00-12-34-56", "06-52-54-00-12-34-56", "01-52-54-00-12-34", "01-52-54-00-12-34-56-78-9a", "01-zz-54-00-12-34-56"} {
		if mac, err := ParseBOOTIF(bad); err == nil {
			t.Errorf("%q was read as %s", bad, mac)
		}
	}
}

func TestFind(t *testing.T) {
	list := []Link{{Name: "eth0", MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}}, {Name: "eth1", MAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}}}
	if l, ok := Find(list, net.HardwareAddr{2, 0, 0, 0, 0, 2}); !ok || l.Name != "eth1" {
		t.Errorf("%v, %v", l, ok)
	}
	if l, ok := Find(list, net.HardwareAddr{2, 0, 0, 0, 0, 3}); ok {
		t.Errorf("found %v", l)
	}
}

func TestResolvConf(t *testing.T) {
	a := netip.MustParseAddr
	got := ResolvConf([]netip.Addr{a("192.0.2.1"), a("192.0.2.2"), a("192.0.2.3"), a("192.0.2.4")}, "example.org")
	want := "search example.org\nnameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\noptions timeout:1 attempts:2\n"
	if got != want {
		t.Errorf("%q\nwant %q", got, want)
	}
}

func ack(t *testing.T, options ...dhcpv4.Modifier) *nclient4.Lease {
	t.Helper()
	m, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithMessageType(dhcpv4.MessageTypeAck)}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	return &nclient4.Lease{Offer: m, ACK: m}
}

func TestLeaseOf(t *testing.T) {
	l, err := leaseOf(ack(t, dhcpv4.WithYourIP(net.IPv4(192, 0, 2, 50)), dhcpv4.WithNetmask(net.CIDRMask(22, 32)),
		dhcpv4.WithRouter(net.IPv4(192, 0, 2, 1)), dhcpv4.WithDNS(net.IPv4(192, 0, 2, 2), net.IPv4(192, 0, 2, 3)),
		dhcpv4.WithLeaseTime(7200), dhcpv4.WithServerIP(net.IPv4(192, 0, 2, 1)), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(192, 0, 2, 9)))))
	if err != nil {
		t.Fatal(err)
	}
	if l.Address.String() != "192.0.2.50/22" || l.Router.String() != "192.0.2.1" || len(l.DNS) != 2 || l.Duration != 2*time.Hour || l.Server.String() != "192.0.2.9" {
		t.Errorf("%+v", l)
	}
	if l, err = leaseOf(ack(t, dhcpv4.WithYourIP(net.IPv4(192, 0, 2, 50)), dhcpv4.WithLeaseTime(1))); err != nil || l.Duration != time.Minute || l.Router.IsValid() {
		t.Errorf("a bare lease: %+v, %v", l, err)
	}
	for _, bad := range []net.IP{net.IPv4zero, net.IPv4bcast, net.IPv4(127, 0, 0, 1)} {
		if l, err := leaseOf(ack(t, dhcpv4.WithYourIP(bad))); err == nil {
			t.Errorf("the address %s was taken: %+v", bad, l)
		}
	}
}
