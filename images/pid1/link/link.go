// Package link sets up network links for a PID 1 without a network manager.
package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Link is a network interface with hardware behind it.
type Link struct {
	Name    string
	MAC     net.HardwareAddr
	Driver  string // kernel module's name, "" if unknown
	Mbit    int    // 0 while unknown
	Carrier bool
}

// List lists the machine's Ethernet interfaces that have hardware (or a
// hypervisor) behind them: no loopback, bridge or tunnel.
func List() ([]Link, error) {
	all, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("network links: %w", err)
	}
	var list []Link
	for _, l := range all {
		a := l.Attrs()
		sys := "/sys/class/net/" + a.Name
		if _, err := os.Stat(sys + "/device"); err != nil || len(a.HardwareAddr) != 6 {
			continue
		}
		driver, err := filepath.EvalSymlinks(sys + "/device/driver")
		if err != nil {
			driver = ""
		} else {
			driver = filepath.Base(driver)
		}
		list = append(list, Link{Name: a.Name, MAC: a.HardwareAddr, Driver: driver, Mbit: speed(sys + "/speed"),
			Carrier: a.RawFlags&unix.IFF_LOWER_UP != 0})
	}
	return list, nil
}

// speed reads Mbit/s; the kernel answers -1 or an error while there is no carrier.
func speed(path string) int {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	var n int
	if _, err := fmt.Sscan(string(b), &n); err != nil || n < 0 {
		return 0
	}
	return n
}

// ParseBOOTIF reads what PXE loaders put on the command line: the hardware type
// and six octets with dashes, 01-52-54-00-12-34-56.
func ParseBOOTIF(s string) (net.HardwareAddr, error) {
	rest, ok := strings.CutPrefix(s, "01-")
	mac, err := net.ParseMAC(strings.ReplaceAll(rest, "-", ":"))
	if !ok || err != nil || len(mac) != 6 {
		return nil, fmt.Errorf("BOOTIF=%q: expected as 01-52-54-00-12-34-56", s)
	}
	return mac, nil
}

// Find returns the link with a hardware address.
func Find(list []Link, mac net.HardwareAddr) (Link, bool) {
	for _, l := range list {
		if l.MAC.String() == mac.String() {
			return l, true
		}
	}
	return Link{}, false
}

// Up brings a link up; "lo" too.
func Up(name string) error {
	l, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkSetUp(l)
	}
	if err != nil {
		return fmt.Errorf("network link %s: bringing it up: %w", name, err)
	}
	return nil
}

// WaitCarrier waits until the link has a carrier, and the kernel takes notice
// of it (IFF_RUNNING), or ctx ends: what is sent before is dropped in silence.
func WaitCarrier(ctx context.Context, name string) error {
	t := time.NewTicker(100 * time.Millisecond)
	defer t.Stop()
	for {
		l, err := netlink.LinkByName(name)
		if err == nil && l.Attrs().RawFlags&unix.IFF_LOWER_UP != 0 && l.Attrs().RawFlags&unix.IFF_RUNNING != 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("network link %s: no carrier; is the cable plugged in and the switch port on? %w", name, errors.Join(ctx.Err(), err))
		case <-t.C:
		}
	}
}

// SetAddress gives a link one IPv4 address; others of that family are removed.
// lifetime 0 is for ever.
func SetAddress(name string, address netip.Prefix, lifetime time.Duration) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("network link %s: %w", name, err)
	}
	wanted := &netlink.Addr{IPNet: ipNet(address), ValidLft: int(lifetime.Seconds()), PreferedLft: int(lifetime.Seconds())}
	old, err := netlink.AddrList(l, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("network link %s: its addresses: %w", name, err)
	}
	if err := netlink.AddrReplace(l, wanted); err != nil {
		return fmt.Errorf("network link %s: address %s: %w", name, address, err)
	}
	for _, a := range old {
		if !a.IPNet.IP.Equal(wanted.IP) {
			if err := netlink.AddrDel(l, &netlink.Addr{IPNet: a.IPNet}); err != nil {
				return fmt.Errorf("network link %s: removing address %s: %w", name, a.IPNet, err)
			}
		}
	}
	return nil
}

// SetDefaultRoute sends what has no other route to router, over a link.
func SetDefaultRoute(name string, router netip.Addr) error {
	l, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.RouteReplace(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: router.AsSlice(),
			Dst: &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}})
	}
	if err != nil {
		return fmt.Errorf("network link %s: default route by %s: %w", name, router, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// ResolvConf is the text of /etc/resolv.conf. One try of a second each: a name
// server that is away must not stop a boot for half a minute.
func ResolvConf(servers []netip.Addr, search string) string {
	var b strings.Builder
	if search != "" {
		b.WriteString("search " + search + "\n")
	}
	for i, s := range servers {
		if i == 3 { // resolv.conf(5): MAXNS
			break
		}
		b.WriteString("nameserver " + s.String() + "\n")
	}
	b.WriteString("options timeout:1 attempts:2\n")
	return b.String()
}
