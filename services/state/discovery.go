package state

import (
	"fmt"
	"time"

	"github.com/rackseed/rackseed/services/machine"
)

func (c *change) discoveryWindow(x DiscoveryWindow) error {
	r, until := c.cluster(), x.Until.UTC()
	was, _ := c.window(c.at)
	if until.Sub(c.at) > maxWindow {
		return refuse("discovery window: %s is %s away; %s is the most", until.Format(time.RFC3339), span(until.Sub(c.at)), span(maxWindow))
	}
	text := fmt.Sprintf("Discovery window closed by %s: machines that are not listed boot their own disks", asker(c.by))
	if until.After(c.at) {
		text = fmt.Sprintf("Discovery window opened by %s for %s: any machine that netboots is looked at", asker(c.by), span(until.Sub(c.at)))
	} else {
		until = time.Time{}
		if !was && r.Discovery.IsZero() {
			return nil
		}
	}
	r.Discovery = until
	if !until.IsZero() {
		r.Opened = c.at
	}
	c.put(tableCluster, &r)
	data := []string{"by", c.by}
	if !until.IsZero() {
		data = append(data, "until", until.Format(time.RFC3339))
	}
	c.event("", "discovery.window", machine.Info, text, data...)
	return nil
}

func (c *change) machineInvite(x MachineInvite) error {
	found := c.tables.machine(x.Machine)
	if found == nil {
		return refuse("there is no machine %.40s to look at", x.Machine)
	}
	if why := machine.NoLook(c.orders(x.Machine)); why != "" {
		return refuse("machine %s: %s", x.Machine, why)
	}
	until := x.Until.UTC()
	if until.Sub(c.at) > maxWindow {
		return refuse("machine %s: %s is %s away; %s is the most", x.Machine, until.Format(time.RFC3339), span(until.Sub(c.at)), span(maxWindow))
	}
	r := c.edit(found)
	c.machine = r
	if !until.After(c.at) {
		r.Machine.Invited = time.Time{}
		return nil
	}
	r.Machine.Invited = until
	c.event(x.Machine, "machine.invited", machine.Info,
		fmt.Sprintf("To be looked at again, asked for by %s: restart it within %s", asker(c.by), span(until.Sub(c.at))), "by", c.by, "until", until.Format(time.RFC3339))
	return nil
}

func (c *change) rescueOpen(x RescueOpen) error {
	found := c.tables.machine(x.Machine)
	if found == nil {
		return refuse("there is no machine %.40s to rescue", x.Machine)
	}
	if err := word("intent ID", x.Intent); err != nil {
		return err
	}
	if c.tables.intent(x.Intent) != nil {
		return refuse("machine %s: intent %s exists already", x.Machine, x.Intent)
	}
	var keys []string
	if s := c.site(); s != nil {
		keys = s.SSHKeys
	}
	if why := machine.NoRescue(c.orders(x.Machine), keys); why != "" {
		return refuse("machine %s: %s", x.Machine, why)
	}
	if old := c.newest(x.Machine, machine.IntentRescue); old != nil {
		c.remove(tableIntents, old)
	}
	i := &intentRow{Order: c.nextOrder(), Intent: machine.Intent{
		ID: x.Intent, Kind: machine.IntentRescue, Machine: x.Machine, Epoch: 1,
		Status: machine.IntentOpen, Created: c.at, Changed: c.at,
	}}
	c.intents = append(c.intents, i)
	c.event(x.Machine, "rescue.opened", machine.Warning,
		fmt.Sprintf("Rescue shell asked for by %s: the next time it netboots it serves a shell to the site's SSH keys", asker(c.by)), "by", c.by, "intent", x.Intent)
	c.machine, c.intent = found, i
	return nil
}

// rescued binds an open rescue intent to the session that was just opened: it
// is for one boot.
func (c *change) rescued(r *machineRow) {
	open := c.newest(r.Machine.ID, machine.IntentRescue)
	if open == nil || open.Intent.Status != machine.IntentOpen {
		return
	}
	i := c.editIntent(open)
	i.Intent.Status, i.Intent.Session = machine.IntentDone, r.Machine.Session.ID
	r.Machine.Phase, r.Machine.Reason = machine.PhaseRescue, machine.ReasonRescue
	c.event(r.Machine.ID, "rescue.began", machine.Warning, "Serves a rescue shell", "intent", i.Intent.ID, "session", r.Machine.Session.ID)
}

func (c *change) sessionLeave(x SessionLeave) error {
	found := c.tables.machine(x.Machine)
	if found == nil || found.Machine.Session == nil || found.Machine.Session.ID != x.Session {
		return refuse("machine %.40s: session %.40q is not its newest", x.Machine, x.Session)
	}
	c.machine = found
	if !found.Machine.Session.Left.IsZero() {
		return nil
	}
	install := theIntent(c.install(x.Machine))
	if install.Live() {
		return refuse("machine %s: install intent %s is %s: it does not leave", x.Machine, install.ID, install.Status)
	}
	r := c.edit(found)
	s := *r.Machine.Session
	s.Left = c.at
	r.Machine.Session = &s
	r.Machine.Phase, r.Machine.Reason = machine.PhaseLocal, "looked at, and not approved in time: it went back to its own disk"
	text := "Not approved within " + span(c.at.Sub(s.Opened))
	if found.Machine.TakenBack(install) {
		r.Machine.Reason = "its install was revoked, and not approved anew in time: it went back to its own disk"
		text = fmt.Sprintf("Its install was revoked %s ago, and not approved anew", span(c.at.Sub(install.Changed)))
	}
	c.event(x.Machine, "session.left", machine.Info, text+": it goes back to its own disk", "session", s.ID)
	c.machine = r
	return nil
}

func (c *change) sessionRefuse(x SessionRefuse) error {
	found := c.find(machine.ParseUUID(x.UUID), x.MACs)
	if found == nil {
		return refuse("no machine that is known was refused")
	}
	m := &found.Machine
	since := c.at.Sub(found.ToldAt)
	switch {
	case c.bound(m.ID):
		return refuse("machine %s is approved: what anybody says in its name does not keep it from its install", m.ID)
	case found.Told == "" || found.Told == machine.BootLocal || since < 0 || since >= bootGrace:
		return refuse("machine %s was not told to boot the installer just now", m.ID)
	case found.Heard.After(found.ToldAt):
		return refuse("machine %s: its installer was taken since", m.ID)
	}
	c.machine = found
	if m.RefusedSince(found.ToldAt) { // told already: the counts in Why are the sender's
		return nil
	}
	r, why := c.edit(found), clip(x.Why)
	r.Machine.Refused, r.Machine.Invited, r.Machine.LastSeen = &machine.Refused{At: c.at, Why: why}, time.Time{}, c.at
	r.Machine.Phase, r.Machine.Reason = machine.PhaseSeen, "its installer was refused: "+why
	text := "It goes to its own disk, and is not looked at again while this discovery window is open; mend that, then rackseed look, or open the window anew"
	if d := machine.NextBoot(&r.Machine, theIntent(c.install(m.ID)), c.circumstances(r.Machine, c.at)); d.Kind != machine.BootLocal {
		text = fmt.Sprintf("It boots %s all the same, the next time that it netboots: %s; mend that first", d.Kind.Words(), d.Reason)
	}
	c.event(m.ID, "session.refused", machine.Warning, "Its installer was refused: "+why+". "+text)
	c.machine = r
	return nil
}

func (c *change) sessionHere(x SessionHere) error {
	found := c.tables.machine(x.Machine)
	if found == nil || found.Machine.Session == nil || found.Machine.Session.ID != x.Session {
		return refuse("machine %.40s: session %.40q is not its newest", x.Machine, x.Session)
	}
	c.machine = found
	phase, reason, back := found.Machine.PhaseHeard(theIntent(c.install(x.Machine)), theIntent(c.newest(x.Machine, machine.IntentRescue)))
	if !back {
		return nil
	}
	r := c.edit(found)
	r.Machine.Phase, r.Machine.Reason, r.Machine.LastSeen = phase, reason, c.at
	r.Machine.Refused = nil // it was taken
	c.event(x.Machine, "session.here", machine.Warning,
		"Its installer is still there: somebody asked in its name what it boots, or its answer was lost", "session", x.Session)
	c.machine = r
	return nil
}

func (c *change) machineSilent(x MachineSilent) error {
	found := c.tables.machine(x.Machine)
	switch {
	case found == nil:
		return refuse("there is no machine %.40s", x.Machine)
	case !found.ToldAt.Equal(x.Decided):
		return refuse("machine %s was told to boot something else since", x.Machine)
	case found.Machine.Session != nil && found.Machine.Session.Opened.After(x.Decided):
		return refuse("machine %s was heard of since", x.Machine)
	case found.Machine.RefusedSince(x.Decided):
		return refuse("machine %s: its installer came, and was refused", x.Machine)
	case found.Silent:
		return refuse("machine %s: its silence was told already", x.Machine)
	}
	r := c.edit(found)
	r.Silent = true
	text := clip(x.Text)
	r.Machine.Reason = text
	c.event(x.Machine, "boot.silent", machine.Warning, text)
	c.machine = r
	return nil
}
