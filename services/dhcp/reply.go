package dhcp

import (
	"encoding/binary"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/rackseed/rackseed/services/machine"
)

// reply builds an OFFER or ACK (RFC 2131 table 3). a is the client's address;
// invalid in the answer to an INFORM. note says what is odd about it.
func (c *chooser) reply(req *dhcpv4.DHCPv4, kind dhcpv4.MessageType, a netip.Addr) (r *dhcpv4.DHCPv4, note string) {
	r = c.header(req, kind)
	// The client's own word for where it is, which the reply is sent to: only
	// if it is where the client will be, or was checked (INFORM).
	if own := toAddr(req.ClientIPAddr); kind == dhcpv4.MessageTypeAck && (own == a || !a.IsValid()) {
		r.ClientIPAddr = req.ClientIPAddr
	}
	bits := make(net.IPMask, 4)
	binary.BigEndian.PutUint32(bits, mask(c.link.Prefix))
	r.UpdateOption(dhcpv4.OptSubnetMask(bits))
	r.UpdateOption(dhcpv4.OptBroadcastAddress(toIP(c.link.broadcast())))
	if c.link.Router.IsValid() {
		r.UpdateOption(dhcpv4.OptRouter(toIP(c.link.Router)))
	}
	if len(c.link.DNS) > 0 {
		servers := make([]net.IP, len(c.link.DNS))
		for i, s := range c.link.DNS {
			servers[i] = toIP(s)
		}
		r.UpdateOption(dhcpv4.OptDNS(servers...))
	}
	if a.IsValid() {
		r.YourIPAddr = toIP(a)
		lease := c.link.LeaseTime.Truncate(time.Second)
		r.UpdateOption(dhcpv4.OptIPAddressLeaseTime(lease))
		r.UpdateOption(dhcpv4.OptRenewTimeValue(lease / 2)) // RFC 2131 section 4.4.5
		r.UpdateOption(dhcpv4.OptRebindingTimeValue(lease / 8 * 7))
	}
	if m := c.machine(); m != nil && m.Name != "" {
		r.UpdateOption(dhcpv4.OptHostName(m.Name))
	}
	return r, c.boot(r)
}

// boot adds what a netbooting client needs.
func (c *chooser) boot(r *dhcpv4.DHCPv4) (note string) {
	if !c.boots() {
		return ""
	}
	if d, silent := c.leaves(); silent {
		return "; no boot file: " + d.Reason
	}
	file, note := c.bootFile(c.link.Service, c.link.Netboot.UEFI)
	if c.http {
		if file == "" {
			return "; " + note
		}
		// UEFI 2.10 section 24.7.3.1: without this class its answer is no
		// HTTP boot's.
		r.UpdateOption(dhcpv4.OptClassIdentifier("HTTPClient"))
		r.BootFileName = file
		r.UpdateOption(dhcpv4.OptBootFileName(file))
		return ""
	}
	r.ServerIPAddr = toIP(c.link.Service)
	r.UpdateOption(dhcpv4.OptClassIdentifier("PXEClient"))
	// PXE 2.1 section 2.4.5: sub-option 6, discovery control, bit 3: load the
	// named file, look for no other boot server.
	r.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionVendorSpecificInformation, []byte{6, 1, 8, 255}))
	if c.ipxe {
		// iPXE's no-pxedhcp: it would wait for a ProxyDHCP server, since the
		// class above says PXEClient.
		r.UpdateOption(dhcpv4.OptGeneric(optionIPXE, []byte{176, 1, 1}))
	}
	if file == "" {
		return "; " + note
	}
	r.BootFileName = file
	r.UpdateOption(dhcpv4.OptTFTPServerName(c.link.Service.String()))
	r.UpdateOption(dhcpv4.OptBootFileName(file))
	return ""
}

// leaves says whether the client is told nothing of netboot, so that its
// firmware goes on to its own disk: the site's policy for its firmware is
// silence, and its own disk is what it boots next.
func (c *chooser) leaves() (d machine.BootDecision, silent bool) {
	policy := c.link.Netboot.LeaveUEFI
	if c.bios() {
		policy = c.link.Netboot.LeaveBIOS
	}
	if !c.boots() || policy != machine.LeaveSilence {
		return d, false
	}
	if m := c.machine(); m != nil {
		d = machine.NextBoot(m, c.view.InstallIntent(m.ID), c.view.Circumstances(*m, c.now))
	} else {
		d = machine.NextBoot(nil, nil, c.view.Circumstances(machine.Machine{UUID: c.uuid, MACs: []machine.MAC{c.mac}}, c.now))
	}
	return d, d.Kind == machine.BootLocal
}

// nak builds a DHCPNAK.
func (c *chooser) nak(req *dhcpv4.DHCPv4, why string) *dhcpv4.DHCPv4 {
	r := c.header(req, dhcpv4.MessageTypeNak)
	r.UpdateOption(dhcpv4.OptMessage(why))
	if toAddr(req.GatewayIPAddr).IsValid() {
		r.SetBroadcast() // the relay must broadcast it (RFC 2131 section 4.3.2)
	}
	return r
}

// header is what all replies have: transaction, hardware address, flags and
// relay of the request, the server identifier, and the options that are sent
// back: 61 (RFC 6842), 82 (RFC 3046), 97 (RFC 4578).
func (c *chooser) header(req *dhcpv4.DHCPv4, kind dhcpv4.MessageType) *dhcpv4.DHCPv4 {
	none := net.IPv4zero.To4()
	r := &dhcpv4.DHCPv4{
		OpCode: dhcpv4.OpcodeBootReply, HWType: req.HWType, TransactionID: req.TransactionID, Flags: req.Flags,
		ClientHWAddr: req.ClientHWAddr, GatewayIPAddr: req.GatewayIPAddr,
		ClientIPAddr: none, YourIPAddr: none, ServerIPAddr: none, Options: dhcpv4.Options{},
	}
	r.UpdateOption(dhcpv4.OptMessageType(kind))
	r.UpdateOption(dhcpv4.OptServerIdentifier(toIP(c.link.Service)))
	for _, code := range []dhcpv4.OptionCode{dhcpv4.OptionClientIdentifier, dhcpv4.OptionRelayAgentInformation, optionClientUUID} {
		if v := req.Options.Get(code); len(v) > 0 {
			r.UpdateOption(dhcpv4.OptGeneric(code, v))
		}
	}
	return r
}

func toIP(a netip.Addr) net.IP {
	b := a.As4()
	return b[:]
}
