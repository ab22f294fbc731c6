// Package dhcp is the boot service's DHCP server for IPv4 (RFC 2131, with the
// PXE options of RFC 4578).
//
// Decide is the whole protocol as a pure function; Server has the sockets.
// Nothing that binds leaves before its command is committed. Only the links
// that the site file names have a socket.
package dhcp

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/rackseed/rackseed/services/dhcp/foreign"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
)

const (
	// seePause is how long a machine is silent until its next packet is worth
	// an event: firmware, iPXE and installer ask one after the other.
	seePause = 30 * time.Second
	// declinePause is how long a declined address is given to nobody.
	declinePause = 10 * time.Minute
)

// Decision is what to do about one request.
type Decision struct {
	// Reply is the answer; nil: silence.
	Reply *dhcpv4.DHCPv4
	// Commands must be committed in this order before Reply leaves. A
	// MachineSee lacks its ID: the edge draws one.
	Commands []state.Command
	// Offer is the address to keep for the client for a moment, without a
	// commit; invalid: none.
	Offer netip.Addr
	// Withdraw says that what was offered to the client is free again.
	Withdraw bool
	// Exhausted says that there was no address left.
	Exhausted bool
	// Other is a DHCP server that the client chose, and is not this one.
	Other netip.Addr
	// Asker is another Rackseed appliance that asks who serves here, or "".
	Asker string
	// Reason says in a few words what was decided and why.
	Reason string
}

func silence(format string, a ...any) Decision { return Decision{Reason: fmt.Sprintf(format, a...)} }

// Decide answers one request. It does no I/O and keeps no state.
func Decide(req *dhcpv4.DHCPv4, link Link, view View, now time.Time) Decision {
	if req.OpCode != dhcpv4.OpcodeBootRequest {
		return silence("not a request")
	}
	who, err := readClient(req)
	if err != nil {
		return silence("%v", err)
	}
	if relay := toAddr(req.GatewayIPAddr); relay.IsValid() && !link.Prefix.Contains(relay) {
		return silence("relayed from %s, a network that the site file does not describe", relay)
	}
	c := &chooser{client: who, link: link, view: view, now: now}
	if cluster, site, is := foreign.Probe(req); is {
		return c.answerProbe(req, cluster, site)
	}
	c.settleUUID()
	switch req.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		return c.discover(req)
	case dhcpv4.MessageTypeRequest:
		return c.request(req)
	case dhcpv4.MessageTypeDecline:
		return c.decline(req)
	case dhcpv4.MessageTypeRelease:
		return c.release(req)
	case dhcpv4.MessageTypeInform:
		return c.inform(req)
	}
	return silence("message type %d is none of a client's", uint8(req.MessageType()))
}

// discover answers DHCPDISCOVER (RFC 2131 section 4.3.1).
func (c *chooser) discover(req *dhcpv4.DHCPv4) Decision {
	if why := c.excluded(); why != "" {
		return silence("%s", why)
	}
	a, ok := c.choose(toAddr(req.RequestedIPAddress()))
	if !ok {
		d := silence("no address left in %s to %s", c.link.From, c.link.To)
		d.Exhausted = true
		return d
	}
	reply, note := c.reply(req, dhcpv4.MessageTypeOffer, a)
	return Decision{
		Reply: reply, Offer: a, Commands: c.see("dhcp.discover", "DHCP discover by"),
		Reason: "offer " + a.String() + note,
	}
}

// request answers DHCPREQUEST (RFC 2131 section 4.3.2), whose four kinds are
// told apart by the server identifier, the requested address and ciaddr.
func (c *chooser) request(req *dhcpv4.DHCPv4) Decision {
	server, wanted, own := toAddr(req.ServerIdentifier()), toAddr(req.RequestedIPAddress()), toAddr(req.ClientIPAddr)
	if server.IsValid() && server != c.link.Service {
		d := silence("it chose the DHCP server %s", server)
		d.Withdraw = true
		// Only who chooses names a server (RFC 2131 table 4); some clients name
		// one of another place later on.
		if wanted.IsValid() && !own.IsValid() {
			d.Other = server
		}
		return d
	}
	if why := c.excluded(); why != "" {
		return silence("%s", why)
	}
	switch {
	case server.IsValid(): // SELECTING
		if c.permitted(wanted) && c.free(wanted) {
			return c.bind(req, wanted)
		}
		return c.refuse(req, wanted, "it cannot have the address it chose")
	case wanted.IsValid(): // INIT-REBOOT
		switch {
		case !c.link.Prefix.Contains(wanted):
			return c.refuse(req, wanted, "the address is of another network")
		case c.holds(wanted) && c.permitted(wanted) || c.isFixed(wanted) && c.permitted(wanted) && c.free(wanted):
			return c.bind(req, wanted)
		}
		if l, known := c.view.LeaseByMAC(c.mac); known && l.Expires.After(c.now) {
			return c.refuse(req, wanted, "it has "+l.Address.String())
		}
		// RFC 2131: a server without a record of the client remains silent.
		return silence("it asks for %s again, of which nothing is known", wanted)
	case own.IsValid(): // RENEWING, REBINDING
		switch {
		case !c.link.Prefix.Contains(own):
			return c.refuse(req, own, "the address is of another network")
		case c.permitted(own) && c.free(own):
			return c.bind(req, own)
		}
		return c.refuse(req, own, "it cannot keep the address")
	}
	return silence("a request for no address")
}

// bind acknowledges an address, once its lease is committed.
func (c *chooser) bind(req *dhcpv4.DHCPv4, a netip.Addr) Decision {
	lease := machine.Lease{
		Address: a, MAC: c.mac, ClientID: c.id, Hostname: c.hostname,
		Bound: c.now.UTC(), Expires: c.now.Add(c.link.LeaseTime).UTC(),
	}
	if m := c.machine(); m != nil {
		lease.Machine = m.ID
	}
	reply, note := c.reply(req, dhcpv4.MessageTypeAck, a)
	commands := c.see("dhcp.request", "DHCP request by")
	if d, silent := c.leaves(); silent && lease.Machine != "" {
		commands = append(commands, state.BootDecide{Machine: lease.Machine, Decision: d})
	}
	return Decision{
		Reply: reply, Withdraw: true, Reason: "acknowledge " + a.String() + note,
		Commands: append(commands, state.LeaseBind{Lease: lease, Event: !c.holds(a)}),
	}
}

// refuse answers DHCPNAK. It binds as well, so it has a command.
func (c *chooser) refuse(req *dhcpv4.DHCPv4, a netip.Addr, why string) Decision {
	note := state.Note{
		What: "dhcp.nak", Severity: machine.Warning,
		Text: fmt.Sprintf("Address %s refused to %s: %s", a, c.mac, why),
		Data: map[string]string{"address": a.String(), "mac": string(c.mac)},
	}
	if m := c.machine(); m != nil {
		note.Machine = m.ID
	}
	return Decision{
		Reply: c.nak(req, why), Withdraw: true, Commands: []state.Command{note},
		Reason: fmt.Sprintf("refuse %s: %s", a, why),
	}
}

// decline keeps an address that a client found in use from everyone (RFC 2131
// section 4.3.3).
func (c *chooser) decline(req *dhcpv4.DHCPv4) Decision {
	a := toAddr(req.RequestedIPAddress())
	if server := toAddr(req.ServerIdentifier()); server.IsValid() && server != c.link.Service {
		return silence("it declines %s of the DHCP server %s", a, server)
	}
	if !c.holds(a) {
		return silence("it declines %s, which it does not hold", a)
	}
	return Decision{
		Withdraw: true, Reason: fmt.Sprintf("it found %s in use", a),
		Commands: []state.Command{state.LeaseDecline{Address: a, MAC: c.mac, Until: c.now.Add(declinePause).UTC()}},
	}
}

// release ends a lease (RFC 2131 section 4.3.4).
func (c *chooser) release(req *dhcpv4.DHCPv4) Decision {
	a := toAddr(req.ClientIPAddr)
	if server := toAddr(req.ServerIdentifier()); server.IsValid() && server != c.link.Service {
		return silence("it releases %s of the DHCP server %s", a, server)
	}
	if !c.holds(a) {
		return silence("it releases %s, which it does not hold", a)
	}
	return Decision{
		Withdraw: true, Reason: fmt.Sprintf("it gives %s back", a),
		Commands: []state.Command{state.LeaseRelease{Address: a, MAC: c.mac}},
	}
}

// inform tells the parameters to a client that has an address (RFC 2131
// section 4.3.5). It binds nothing, so nothing is committed.
func (c *chooser) inform(req *dhcpv4.DHCPv4) Decision {
	a := toAddr(req.ClientIPAddr)
	// The answer goes to this address: one outside would make the server
	// send packets wherever a stranger wants them.
	if !c.link.Prefix.Contains(a) || a == c.link.broadcast() || a == c.link.Prefix.Addr() {
		return silence("it informs of %s, which is not of this network", a)
	}
	if why := c.excluded(); why != "" {
		return silence("%s", why)
	}
	reply, note := c.reply(req, dhcpv4.MessageTypeAck, netip.Addr{})
	return Decision{Reply: reply, Reason: "parameters for " + a.String() + note}
}

// answerProbe tells another Rackseed that new clients are served here, if they
// are. It is offered no address, so that nothing binds and nothing is kept.
func (c *chooser) answerProbe(req *dhcpv4.DHCPv4, cluster, site string) Decision {
	if req.MessageType() != dhcpv4.MessageTypeDiscover || !c.view.Open() {
		return silence("a probe of another Rackseed appliance; new clients are not served here")
	}
	d := Decision{Reply: c.header(req, dhcpv4.MessageTypeOffer), Reason: "tell another Rackseed appliance that new clients are served here"}
	c.link.Self().Answer(d.Reply)
	d.Reply.SetBroadcast() // there is no address to send it to
	if cluster != c.link.Cluster {
		d.Asker = cluster
		if site != "" {
			d.Asker = fmt.Sprintf("site %q", site)
		}
	}
	return d
}

// see is the command by which a netbooting machine is noted: when it is new,
// after a silence, and when its UUID becomes known. Other clients never become
// machines.
func (c *chooser) see(via, what string) []state.Command {
	if !c.boots() {
		return nil
	}
	see := state.MachineSee{MAC: c.mac, UUID: c.uuid, Via: via}
	if m := c.owner(); m != nil && c.now.Sub(m.LastSeen) < seePause {
		if c.uuid == "" || m.UUID != "" {
			return nil
		}
		return []state.Command{see}
	}
	see.Text = fmt.Sprintf("%s %s (%s)", what, c.mac, c.what())
	return []state.Command{see}
}
