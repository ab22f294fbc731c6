package state

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/rackseed/rackseed/services/machine"
)

// reserved says what of the boot service's own an address is; "": nothing.
func (c *change) reserved(a netip.Addr) string {
	site := c.site()
	if site == nil {
		return ""
	}
	if a == site.ServiceAddress {
		return "the service address"
	}
	for _, l := range site.Links {
		switch {
		case a == l.Address.Addr():
			return "the appliance's own"
		case a == l.Gateway || (l.DHCP != nil && a == l.DHCP.Router):
			return "a gateway's"
		}
	}
	return ""
}

func (c *change) leaseBind(x LeaseBind) error {
	l := x.Lease
	l.Bound, l.Expires, l.Declined = l.Bound.UTC(), l.Expires.UTC(), false
	switch {
	case !l.Address.IsValid() || l.MAC == "":
		return refuse("lease of %s to %q: an address and a hardware address are needed", l.Address, l.MAC)
	case !l.Expires.After(c.at):
		return refuse("lease of %s to %s: it would have run out already", l.Address, l.MAC)
	}
	if old := c.lease(l.Address); old != nil && old.Expires.After(c.at) && (old.Declined || old.MAC != l.MAC) {
		holder := "leased to " + string(old.MAC)
		if old.Declined {
			holder = "declined"
		}
		return refuse("lease of %s to %s: it is %s until %s", l.Address, l.MAC, holder, old.Expires.Format(time.RFC3339))
	}
	if what := c.reserved(l.Address); what != "" {
		return refuse("lease of %s to %s: it is %s", l.Address, l.MAC, what)
	}
	l.Machine = ""
	owner := c.machineByMAC(l.MAC)
	if owner != nil {
		l.Machine = owner.Machine.ID
	}
	if static := c.machineByAddress(l.Address); static != nil && static.Machine.ID != l.Machine {
		return refuse("lease of %s to %s: it is the static address of %s", l.Address, l.MAC, static.Machine.Name)
	}
	if old := c.leaseByMAC(l.MAC); old != nil && old.Address != l.Address {
		c.remove(tableLeases, old) // a client has one lease
	}
	c.forgetLeases(l)
	c.put(tableLeases, &l)
	if x.Event {
		c.event(l.Machine, "dhcp.ack", machine.Info,
			fmt.Sprintf("Address %s leased for %s", l.Address, span(l.Expires.Sub(l.Bound))),
			"address", l.Address.String(), "mac", string(l.MAC), "hostname", clip(l.Hostname), "expires", l.Expires.Format(time.RFC3339))
	}
	c.machine = owner
	return nil
}

// forgetLeases drops leases that ran out long ago, a few at a time: until
// then they let a client have its address again.
func (c *change) forgetLeases(bound machine.Lease) {
	n := 0
	each(c.tables, tableLeases, byExpiry, nil, func(l *machine.Lease) bool {
		if n == 4 || l.Expires.Add(leaseMemory).After(c.at) {
			return false
		}
		if l.Address != bound.Address && l.MAC != bound.MAC {
			c.remove(tableLeases, l)
		}
		n++
		return true
	})
}

// held is the lease that a client speaks of, if it is the client's.
func (c *change) held(a netip.Addr, mac machine.MAC) (*machine.Lease, error) {
	l := c.lease(a)
	if l == nil || l.Declined || l.MAC != mac {
		return nil, refuse("address %s is not leased to %s", a, mac)
	}
	return l, nil
}

func (c *change) leaseRelease(x LeaseRelease) error {
	l, err := c.held(x.Address, x.MAC)
	if err != nil {
		return err
	}
	c.remove(tableLeases, l)
	c.event(l.Machine, "dhcp.release", machine.Info, fmt.Sprintf("Address %s released", l.Address),
		"address", l.Address.String(), "mac", string(l.MAC))
	c.machine = c.machineByMAC(x.MAC)
	return nil
}

func (c *change) leaseDecline(x LeaseDecline) error {
	l, err := c.held(x.Address, x.MAC)
	if err != nil {
		return err
	}
	declined := *l
	declined.Declined, declined.Expires = true, x.Until.UTC()
	c.put(tableLeases, &declined)
	c.event(l.Machine, "dhcp.decline", machine.Warning,
		fmt.Sprintf("Address %s declined: something else uses it; it is given to nobody for %s", l.Address, span(x.Until.Sub(c.at))),
		"address", l.Address.String(), "mac", string(l.MAC))
	c.machine = c.machineByMAC(x.MAC)
	return nil
}

func (c *change) bootDecide(x BootDecide) error {
	found := c.tables.machine(x.Machine)
	if found == nil {
		return refuse("there is no machine %.40s to boot", x.Machine)
	}
	intent := theIntent(c.install(x.Machine))
	if now := machine.NextBoot(&found.Machine, intent, c.circumstances(found.Machine, c.at)); now.Kind != x.Decision.Kind {
		return refuse("machine %s boots %s and not %.20s: %s", x.Machine, now.Kind, x.Decision.Kind, now.Reason)
	}
	r := c.edit(found)
	r.Machine.LastSeen = c.at
	reason, was := clip(x.Decision.Reason), r.Machine.Phase
	phase, because := r.Machine.PhaseTold(intent, machine.BootDecision{Kind: x.Decision.Kind, Reason: reason})
	if since := c.at.Sub(r.ToldAt); r.Told != x.Decision.Kind || since >= bootEventPause || since < 0 || phase != was {
		r.Told, r.ToldAt, r.Fetched, r.Silent = x.Decision.Kind, c.at, time.Time{}, false
		r.Machine.Phase, r.Machine.Reason = phase, because
		what := x.Decision.Kind.Words()
		if phase != was {
			what += map[machine.Phase]string{
				machine.PhaseWaiting: ", and its installer waits no more", machine.PhaseRescue: ", and its rescue shell is over",
			}[was]
		}
		c.event(x.Machine, "boot.decided", machine.Info, fmt.Sprintf("Boots %s: %s", what, reason), "boot", string(x.Decision.Kind))
	}
	c.machine = r
	return nil
}
