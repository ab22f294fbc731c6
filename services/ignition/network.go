package ignition

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/rackseed/rackseed/services/machine"
)

const (
	pathNetwork  = "/etc/systemd/network/10-rackseed.network"
	pathNetworkd = "/etc/systemd/networkd.conf.d/10-rackseed.conf"
)

// bootMAC is the hardware address of the NIC that the machine netboots from,
// which is the one that the node uses.
func bootMAC(m machine.Machine) (machine.MAC, error) {
	if m.Inventory != nil && m.Inventory.BootMAC != "" {
		return m.Inventory.BootMAC, nil
	}
	if len(m.MACs) > 0 {
		return m.MACs[0], nil
	}
	return "", errors.New("no hardware address of it is known: netboot it again")
}

// linkOf finds the site's link whose network holds a.
func linkOf(site machine.Site, a netip.Addr) (machine.SiteLink, bool) {
	for _, l := range site.Links {
		if l.Address.IsValid() && l.Address.Masked().Contains(a) {
			return l, true
		}
	}
	return machine.SiteLink{}, false
}

// network is a node's place in the network.
type network struct {
	mac     machine.MAC
	address netip.Prefix
	gateway netip.Addr   // not valid: none
	dns     []netip.Addr // never empty
}

func networkOf(in Input) (network, error) {
	mac, err := bootMAC(in.Machine)
	if err != nil {
		return network{}, err
	}
	a := in.Machine.Address
	if !a.IsValid() {
		return network{}, errors.New("it has no address: approve it with one")
	}
	link, ok := linkOf(in.Site, a)
	if !ok {
		return network{}, fmt.Errorf("address %s is in no network of the site file's links: name the link or change the address", a)
	}
	n := network{mac: mac, address: netip.PrefixFrom(a, link.Address.Bits()), gateway: link.Gateway}
	if link.DHCP != nil {
		// What DHCP tells the link's clients holds for the node too; the
		// link's own gateway is the appliance's.
		if link.DHCP.Router.IsValid() {
			n.gateway = link.DHCP.Router
		}
		n.dns = link.DHCP.DNS
	}
	if len(n.dns) == 0 {
		// Never empty, and never the node itself: libc would ask 127.0.0.1,
		// and CoreDNS, which forwards to what is written here, itself.
		n.dns = []netip.Addr{in.Site.ServiceAddress}
	}
	return n, nil
}

// networkFile is systemd.network(5). Type keeps it off VLANs and bridges that
// carry the NIC's hardware address.
func (n network) networkFile() string {
	var b strings.Builder
	fmt.Fprintf(&b, "[Match]\nMACAddress=%s\nType=ether\n\n[Link]\nRequiredForOnline=yes\n\n[Network]\nAddress=%s\n", n.mac, n.address)
	if n.gateway.IsValid() {
		fmt.Fprintf(&b, "Gateway=%s\n", n.gateway)
	}
	for _, d := range n.dns {
		fmt.Fprintf(&b, "DNS=%s\n", d)
	}
	b.WriteString("DHCP=no\nIPv6AcceptRA=no\n")
	return b.String()
}

// networkdFile keeps systemd-networkd from removing, whenever a cable comes
// back, the routes between nodes and the service address: networkd.conf(5).
const networkdFile = "[Network]\nManageForeignRoutes=no\nManageForeignRoutingPolicyRules=no\n"

// RegistryHost is the boot service's registry in the names of images, and a name
// in the console's certificate: so nodes trust it at whatever address it is.
const RegistryHost = "rackseed.local"

func (n network) hosts(name string, service netip.Addr) string {
	return "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n" +
		n.address.Addr().String() + " " + name + "\n" +
		service.String() + " " + RegistryHost + "\n"
}

func (n network) resolvConf() string {
	var b strings.Builder
	for _, d := range n.dns {
		fmt.Fprintf(&b, "nameserver %s\n", d)
	}
	return b.String()
}
