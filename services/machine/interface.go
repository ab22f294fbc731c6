package machine

import (
	"net"
	"strconv"
	"strings"
)

// maxInterface is the kernel's limit of an interface's name (IFNAMSIZ without
// the final 0).
const maxInterface = 15

// InterfaceName is the name of the network interface that carries the link,
// given that of the network card which MAC or Interface chooses: the card
// itself, or its interface in the VLAN, as eth0.20. Of a name that would be too
// long the end stays, which tells cards apart.
func (l SiteLink) InterfaceName(card string) string {
	if l.VLAN == 0 {
		return card
	}
	vlan := "." + strconv.Itoa(l.VLAN)
	return card[max(0, len(card)+len(vlan)-maxInterface):] + vlan
}

// InterfaceIn finds the network interface that carries the link among those
// that are present; false while it, or the card below it, is not there. A VLAN
// interface has its card's hardware address, so what has a dot in its name is
// no card.
func (l SiteLink) InterfaceIn(present []net.Interface) (name string, ok bool) {
	for _, card := range present {
		if l.Interface != "" && card.Name == l.Interface ||
			l.MAC != "" && card.HardwareAddr.String() == string(l.MAC) && !strings.Contains(card.Name, ".") {
			name = l.InterfaceName(card.Name)
		}
	}
	for _, p := range present {
		if p.Name == name {
			return name, true
		}
	}
	return "", false
}
