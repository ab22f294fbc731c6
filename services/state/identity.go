package state

import (
	"fmt"
	"slices"
	"time"

	"github.com/rackseed/rackseed/services/machine"
)

// Who is who: a machine is found by its SMBIOS UUID, then by a hardware
// address. No two machines share an address; what two records turn out to
// share makes them one, or moves.

// find is the machine with that UUID, else the first that owns one of macs, or
// nil. A UUID alone is not believed against an inventory (makers repeat them,
// and anybody can send one): an address that was found in the machine must come
// with it.
func (c *change) find(uuid string, macs []machine.MAC) *machineRow {
	if r := c.machineByUUID(uuid); r != nil && r.Machine.Inventory.MayHave(macs...) {
		return r
	}
	for _, m := range macs {
		if r := c.machineByMAC(m); r != nil {
			return r
		}
	}
	return nil
}

// freeUUID is uuid, or "" if another machine than id has it.
func (c *change) freeUUID(uuid string, id machine.ID) string {
	if r := c.machineByUUID(uuid); r != nil && r.Machine.ID != id && r.Machine.ID != c.evicted {
		return ""
	}
	return uuid
}

// create makes room for a machine and makes it.
func (c *change) create(id machine.ID, uuid string) (*machineRow, error) {
	if err := word("machine ID", string(id)); err != nil {
		return nil, err
	}
	if c.tables.machine(id) != nil {
		return nil, refuse("machine %s exists already: a new machine needs a new ID", id)
	}
	// The stranger that was silent the longest, one that was looked at last:
	// anybody can make up packets, and a waiting installer sends none.
	var silent *machineRow
	strangers := 0
	each(c.tables, tableMachines, bySilence, nil, func(r *machineRow) bool {
		if silent == nil {
			silent = r
		}
		strangers++
		return strangers < maxStrangers
	})
	if strangers >= maxStrangers {
		c.drop(silent)
		c.evicted = silent.Machine.ID
	}
	r := &machineRow{Machine: machine.Machine{ID: id, UUID: c.freeUUID(uuid, id), Phase: machine.PhaseSeen, FirstSeen: c.at, LastSeen: c.at}}
	c.machines = append(c.machines, r)
	return r, nil
}

// own makes the addresses r's. One that another machine has: if that is a
// record of mere packets, the two were one machine all along; else it moves
// when sure (an inventory shows the interface in this machine), and stays when
// not (a packet proves little). From a machine that was approved none ever
// moves: then r is refused if it is what r is known by, the first of macs.
func (c *change) own(r *machineRow, macs []machine.MAC, sure bool) error {
	for n, mac := range macs {
		if slices.Contains(r.Machine.MACs, mac) {
			continue
		}
		owner := c.machineByMAC(mac)
		switch {
		case owner == nil || owner.Machine.ID == r.Machine.ID || owner.Machine.ID == c.evicted:
		case c.isMerged(owner.Machine.ID): // with more addresses than fit
			continue
		case c.onlyPackets(owner, r.Machine.UUID):
			c.absorb(r, owner)
			continue
		case sure && c.bound(owner.Machine.ID) && n == 0:
			return refuse("installer session: hardware address %s belongs to machine %s, which is approved: forget that one first, if its network card is in this machine now", mac, owner.Machine.ID)
		case sure && c.bound(owner.Machine.ID):
			c.event(r.Machine.ID, "machine.address-shared", machine.Warning,
				fmt.Sprintf("Hardware address %s is in this machine too; it stays machine %s's, which is approved", mac, owner.Machine.ID),
				"mac", string(mac), "of", string(owner.Machine.ID))
			continue
		case sure:
			from := c.edit(owner)
			from.Machine.MACs = slices.DeleteFunc(from.Machine.MACs, func(m machine.MAC) bool { return m == mac })
			c.event(r.Machine.ID, "machine.address-moved", machine.Warning,
				fmt.Sprintf("Hardware address %s is in this machine now, it was in %s", mac, from.Machine.ID),
				"mac", string(mac), "from", string(from.Machine.ID))
		default:
			continue
		}
		if len(r.Machine.MACs) < maxMACs {
			r.Machine.MACs = append(r.Machine.MACs, mac)
			c.giveLease(mac, r.Machine.ID)
		}
	}
	return nil
}

// letGo takes from a machine that is looked at for the first time the addresses
// that only packets with its UUID gave it, and that are not in it: another board
// has the same UUID, and is a machine of its own when it is heard of next.
func (c *change) letGo(r *machineRow, found []machine.MAC) {
	if len(found) == 0 {
		return
	}
	var kept []machine.MAC
	for _, mac := range r.Machine.MACs {
		if slices.Contains(found, mac) {
			kept = append(kept, mac)
			continue
		}
		c.giveLease(mac, "")
		c.event(r.Machine.ID, "machine.address-gone", machine.Warning,
			fmt.Sprintf("Hardware address %s came with the same UUID, and is not in this machine: it is another one's, or of a card that the installer has no driver for", mac),
			"mac", string(mac))
	}
	r.Machine.MACs = kept
}

// bound says whether an approval of the machine stands: it installs, or was
// installed.
func (t tables) bound(id machine.ID) bool {
	i := t.install(id)
	return i != nil && (i.Intent.Live() || i.Intent.Status == machine.IntentDone)
}

// onlyPackets says whether r is known by nothing but packets, and could be the
// machine with that UUID.
func (c *change) onlyPackets(r *machineRow, uuid string) bool {
	return r.Machine.Session == nil && (r.Machine.Phase == machine.PhaseSeen || r.Machine.Phase == machine.PhaseLocal) &&
		(r.Machine.UUID == "" || uuid == "" || r.Machine.UUID == uuid) && len(c.tables.intents(r.Machine.ID)) == 0
}

// absorb makes other a part of r: its addresses, leases and past.
func (c *change) absorb(r, other *machineRow) {
	for _, mac := range other.Machine.MACs {
		if !slices.Contains(r.Machine.MACs, mac) && len(r.Machine.MACs) < maxMACs {
			r.Machine.MACs = append(r.Machine.MACs, mac)
		}
	}
	if r.Machine.UUID == "" {
		r.Machine.UUID = other.Machine.UUID
	}
	if other.Machine.FirstSeen.Before(r.Machine.FirstSeen) {
		r.Machine.FirstSeen = other.Machine.FirstSeen
	}
	c.dropLeaseOwner(other.Machine.ID, r.Machine.ID)
	c.removeMachine(other)
	c.merged = append(c.merged, [2]machine.ID{other.Machine.ID, r.Machine.ID})
	c.event(r.Machine.ID, "machine.merged", machine.Info,
		fmt.Sprintf("Machine %s turned out to be this one", other.Machine.ID), "other", string(other.Machine.ID))
}

func (c *change) isMerged(id machine.ID) bool {
	return slices.ContainsFunc(c.merged, func(m [2]machine.ID) bool { return m[0] == id })
}

// giveLease makes the lease of an address's holder the machine's.
func (c *change) giveLease(mac machine.MAC, id machine.ID) {
	if l := c.leaseByMAC(mac); l != nil && l.Machine != id {
		given := *l
		given.Machine = id
		c.put(tableLeases, &given)
	}
}

// dropLeaseOwner gives the leases of one machine to another, or to none.
func (c *change) dropLeaseOwner(from, to machine.ID) {
	for _, l := range c.leasesOf(from) {
		left := *l
		left.Machine = to
		c.put(tableLeases, &left)
	}
}

func (c *change) machineSee(x MachineSee) error {
	if x.MAC == "" {
		return refuse("a packet without a hardware address is no machine's")
	}
	uuid := machine.ParseUUID(x.UUID)
	macs := []machine.MAC{x.MAC}
	var r *machineRow
	if found := c.find(uuid, macs); found != nil {
		r = c.edit(found)
	} else {
		var err error
		if r, err = c.create(x.ID, uuid); err != nil {
			return err
		}
	}
	if r.Machine.UUID == "" {
		r.Machine.UUID = c.freeUUID(uuid, r.Machine.ID)
	}
	r.Machine.LastSeen = c.at
	if x.Via == ViaKernel {
		r.Fetched = c.at
	}
	if x.Text != "" {
		if err := word("kind of a packet", x.Via); err != nil {
			return err
		}
		c.event(r.Machine.ID, x.Via, machine.Info, clip(x.Text), "mac", string(x.MAC), "uuid", uuid)
	}
	c.machine = r
	return c.own(r, macs, false)
}

func (c *change) sessionOpen(x SessionOpen) error {
	s, i := x.Session, x.Inventory
	uuid, macs := machine.ParseUUID(i.UUID), i.Addresses()
	switch {
	case len(s.SignKey) != 32 || len(s.SealKey) != 32:
		return refuse("installer session: keys of %d and %d bytes, 32 each are expected", len(s.SignKey), len(s.SealKey))
	case uuid == "" && len(macs) == 0:
		return refuse("installer session: the inventory has neither a UUID nor a hardware address to know the machine by")
	}
	if err := word("session ID", s.ID); err != nil {
		return err
	}
	i, err := bounded(i)
	if err != nil {
		return refuse("installer session: %v", err)
	}
	found := c.find(uuid, macs)
	if found != nil && found.Machine.Inventory != nil && uuid != "" {
		// An inventory showed that the owner of the address is another board:
		// its network card is in this machine now.
		if was := machine.ParseUUID(found.Machine.Inventory.UUID); was != "" && was != uuid {
			found = nil
		}
	}
	if owner := c.machineBySignKey(s.SignKey); owner != nil {
		if found == nil || found.Machine.ID != owner.Machine.ID {
			return refuse("installer session: its key is machine %s's", owner.Machine.ID)
		}
		c.machine = owner // asked again: the same answer
		return nil
	}
	var r *machineRow
	if found == nil {
		stranger := machine.Machine{UUID: uuid, MACs: macs}
		if next := machine.NextBoot(nil, nil, c.circumstances(stranger, c.at)); next.Kind == machine.BootLocal {
			return refuse("installer session of %s: it boots its own disk, and no installer: %s", macs[0], next.Reason)
		}
		if r, err = c.create(x.NewID, uuid); err != nil {
			return err
		}
		if r.Machine.UUID == "" && len(macs) == 0 {
			return refuse("installer session: UUID %s is machine %s's, and none of that one's hardware addresses is here", uuid, c.machineByUUID(uuid).Machine.ID)
		}
	} else {
		past := func(k []byte) bool { return string(k) == string(s.SignKey) }
		if slices.ContainsFunc(found.PastSessions, past) {
			return refuse("machine %s: this session was ended by a newer one", found.Machine.ID)
		}
		if err := c.mayOpen(found); err != nil {
			return err
		}
		r = c.edit(found)
		if r.Machine.Inventory == nil {
			c.letGo(r, macs)
		}
		uuid := c.freeUUID(uuid, r.Machine.ID)
		if uuid != "" && r.Machine.UUID != "" && uuid != r.Machine.UUID {
			c.event(r.Machine.ID, "machine.uuid-changed", machine.Info,
				fmt.Sprintf("The SMBIOS UUID is %s; packets said %s", uuid, r.Machine.UUID), "uuid", uuid, "was", r.Machine.UUID)
		}
		if uuid != "" {
			r.Machine.UUID = uuid
		}
	}
	if err := c.own(r, macs, true); err != nil {
		return err
	}

	s.Opened, s.Number = s.Opened.UTC(), 1
	if old := r.Machine.Session; old != nil {
		s.Number = old.Number + 1
		r.PastSessions = append(slices.Clone(r.PastSessions), old.SignKey)
		if over := len(r.PastSessions) - maxPastSessions; over > 0 {
			r.PastSessions = r.PastSessions[over:]
		}
	}
	r.Machine.Session, r.Machine.Inventory, r.Report = &s, &i, 0
	r.Machine.Phase, r.Machine.Reason, r.Machine.LastSeen = machine.PhaseWaiting, machine.ReasonWaiting, c.at
	r.Machine.Invited, r.Machine.Refused = time.Time{}, nil // it came
	r.Heard = c.at
	c.event(r.Machine.ID, "session.opened", machine.Info,
		fmt.Sprintf("Installer session %d opened: %s", s.Number, summary(i)), "session", s.ID, "number", fmt.Sprint(s.Number))
	c.cutOff(r)
	c.rescued(r)
	c.machine = r
	return nil
}

// mayOpen refuses a session that would take away what the machine is: one that
// runs from its own disk, or is being written by a session that is alive.
// Anybody on the wire can ask for a session.
func (c *change) mayOpen(r *machineRow) error {
	m := &r.Machine
	newest := theIntent(c.install(m.ID))
	next := machine.NextBoot(m, newest, c.circumstances(*m, c.at))
	// It was told to boot the installer a moment ago; the window closed since.
	since := c.at.Sub(r.ToldAt)
	told := r.Told != "" && r.Told != machine.BootLocal && 0 <= since && since < bootGrace && !c.bound(m.ID)
	if next.Kind == machine.BootLocal && !told {
		out := ""
		if newest != nil {
			out = "; forget it to install it anew"
		}
		return refuse("machine %s boots its own disk, and no installer: %s%s", m.ID, next.Reason, out)
	}
	if newest == nil || newest.Status != machine.IntentClaimed || m.Session == nil {
		return nil
	}
	if silent := c.at.Sub(r.Heard); 0 <= silent && silent < takeoverSilence {
		return refuse("machine %s is being installed, heard from %s ago in session %s; it is taken over once that is silent for %s",
			m.ID, span(silent), m.Session.ID, span(takeoverSilence))
	}
	return nil
}

// cutOff revokes the live install intent of a machine that has a new session.
func (c *change) cutOff(r *machineRow) {
	old := c.install(r.Machine.ID)
	if old == nil || !old.Intent.Live() {
		return
	}
	text := "The machine restarted in the middle of its install; it must be approved again"
	r.Machine.Reason = "restarted in the middle of its install, waiting for approval again"
	if old.Intent.Status == machine.IntentOpen {
		text = "The machine restarted before its install began, and its installer has a new key; it is here now and must be approved again"
		r.Machine.Reason = "restarted before its install began, waiting for approval again"
	}
	e := c.editIntent(old)
	e.Intent.Status, e.Intent.Reason, e.CutOff = machine.IntentRevoked, "the machine restarted", true
	c.event(r.Machine.ID, "intent.revoked", machine.Warning, text, "intent", e.Intent.ID)
	c.intent = e
}

func (c *change) machineForget(x MachineForget) error {
	r := c.tables.machine(x.Machine)
	if r == nil {
		return refuse("there is no machine %.40s", x.Machine)
	}
	if why := machine.NoForget(r.Machine, c.orders(x.Machine)); why != "" {
		return refuse("machine %s: %s", x.Machine, why)
	}
	carried := ""
	each(c.tables, tableReplicas, byID, nil, func(x *machine.Replica) bool {
		if x.Machine == r.Machine.ID && x.InService() {
			carried = x.Name
		}
		return carried == ""
	})
	if carried != "" {
		return refuse("machine %s: its node carries a replica of the boot service, whose vote may be needed: take that away first, with: rackseed handoff remove %s", x.Machine, carried)
	}
	c.drop(r)
	c.event(x.Machine, "machine.forgotten", machine.Info, fmt.Sprintf("Forgotten by %s", asker(c.by)), "by", c.by, "name", r.Machine.Name)
	return nil
}

// drop removes a machine with all that is only its. Events stay, and so does
// the bootstrap intent that was used: there is one for ever.
func (c *change) drop(r *machineRow) {
	id := r.Machine.ID
	for _, i := range c.tables.intents(id) {
		if i.Intent.Kind != machine.IntentBootstrap || i.Intent.Status == machine.IntentRevoked {
			c.remove(tableIntents, i)
		}
	}
	c.dropLeaseOwner(id, "")
	under(c.tables, tableChunks, byID, key(id), func(k *machine.Chunk) bool {
		c.remove(tableChunks, k)
		return true
	})
	if s := first[secretRow](c.tables, tableSecrets, byID, key(NodeSecret(id))); s != nil {
		c.remove(tableSecrets, s)
	}
	c.removeMachine(r)
}

// NodeSecret names the secret that is the seed of a node's signing key.
func NodeSecret(id machine.ID) string { return "node/" + string(id) }
