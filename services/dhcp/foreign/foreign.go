// Package foreign finds DHCP servers of others on a link: it listens to what
// servers send, and asks now and then whether one answers. While one does, new
// clients are not served there, so that nobody gets two answers and no network
// is taken over by surprise.
//
// watch decides, from what was seen and when; Watcher has the clock, listener
// the socket.
package foreign

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/rackseed/rackseed/services/machine"
)

// Self is what a watch knows its own side by.
type Self struct {
	Interface string
	Service   netip.Addr // the service address, our server identifier
	Cluster   string     // the cluster's ID: its replicas are no strangers to each other
	Site      string     // told to other Rackseed appliances, for their people
}

// Sighting is one sign of a DHCP server.
type Sighting struct {
	Server   netip.Addr         // server identifier (option 54), else who sent it
	Hardware machine.MAC        // who sent the frame; "" where a client named the server
	Kind     dhcpv4.MessageType // OFFER, ACK, NAK; none of a BOOTP server
	Offered  netip.Addr         // the address that it gives; may be invalid
	Client   machine.MAC        // whom it talked to, or who named it
	Name     string             // what it calls itself
	Domain   string             // that it gives to clients
	Vendor   string
	Answer   bool   // to a probe of this replica
	Cluster  string // of a Rackseed that answers a probe
	Site     string
}

// foreign says whether the sighting is another's. own are the hardware
// addresses of this host.
//
// Our server identifier alone is no proof: the replica that led before sends
// replies that are still on their way. The service address has a guard of its
// own (services/address); and who answers a probe with it is another one,
// unless of this cluster.
func (s Sighting) foreign(self Self, own []machine.MAC) bool {
	switch {
	case s.Hardware != "" && slices.Contains(own, s.Hardware):
		return false
	case s.Cluster != "" && s.Cluster == self.Cluster:
		return false
	}
	return s.Server != self.Service || s.Answer
}

// who names the server for people.
func (s Sighting) who() string {
	var with []string
	if s.Hardware != "" {
		with = append(with, "hardware address "+string(s.Hardware))
	}
	if s.Name != "" {
		with = append(with, fmt.Sprintf("named %q", s.Name))
	}
	if s.Domain != "" {
		with = append(with, fmt.Sprintf("domain %q", s.Domain))
	}
	if s.Vendor != "" {
		with = append(with, fmt.Sprintf("vendor %q", s.Vendor))
	}
	text := s.Server.String()
	if len(with) > 0 {
		text += " (" + strings.Join(with, ", ") + ")"
	}
	if s.Cluster == "" {
		return "the DHCP server " + text
	}
	if s.Site != "" {
		return fmt.Sprintf("another Rackseed appliance, of site %q, at %s", s.Site, text)
	}
	return "another Rackseed appliance, at " + text
}

// what says what it was seen to do.
func (s Sighting) what() string {
	switch {
	case s.Hardware == "":
		return fmt.Sprintf("client %s chose it", s.Client)
	case s.Cluster != "":
		return "it serves new machines there"
	case s.Kind == dhcpv4.MessageTypeNak:
		return fmt.Sprintf("it refused an address to %s", s.Client)
	case s.Offered.IsValid() && s.Answer:
		return fmt.Sprintf("asked, it offered %s", s.Offered)
	case s.Offered.IsValid():
		return fmt.Sprintf("it gave %s to %s", s.Offered, s.Client)
	}
	return fmt.Sprintf("it answered %s", s.Client)
}
