package dhcp

import (
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/rackseed/rackseed/services/machine"
)

// State is what decisions read; services/state's View has it.
type State interface {
	MachineByMAC(machine.MAC) (machine.Machine, bool)
	MachineByUUID(string) (machine.Machine, bool)
	Machines() []machine.Machine
	Lease(netip.Addr) (machine.Lease, bool)
	LeaseByMAC(machine.MAC) (machine.Lease, bool)
	InstallIntent(machine.ID) *machine.Intent
	Circumstances(machine.Machine, time.Time) machine.Circumstances
}

// View is the state, and the offers that were made and not taken up yet.
type View interface {
	State
	Offered(netip.Addr) (machine.MAC, bool) // whom an address is offered to
	OfferTo(machine.MAC) (netip.Addr, bool) // what is offered to a client
	// Open says whether new clients are served on the link: no other DHCP
	// server shows there.
	Open() bool
	// Exhausted says that the pool was searched a moment ago, in vain.
	Exhausted() bool
}

// chooser decides about addresses for one client on one link at one time.
type chooser struct {
	client
	link Link
	view View
	now  time.Time

	// Made when first needed, once: a pool has up to 65,536 addresses to ask
	// for.
	own      []netip.Addr // see fixed
	ownMade  bool
	statics  map[netip.Addr]machine.ID // of all machines; listed ones have no ID
	reserved map[netip.Addr]machine.MAC
	known    *machine.Machine // see owner
	looked   bool
}

// machine is the machine that the client belongs to, or nil.
func (c *chooser) machine() *machine.Machine {
	if c.uuid != "" {
		if m, ok := c.view.MachineByUUID(c.uuid); ok {
			return &m
		}
	}
	return c.owner()
}

// owner is the machine that the client's hardware address is known to be of, or
// nil: the one that the state binds its lease to.
func (c *chooser) owner() *machine.Machine {
	if !c.looked {
		c.looked = true
		if m, ok := c.view.MachineByMAC(c.mac); ok {
			c.known = &m
		}
	}
	return c.known
}

// settleUUID takes the client's UUID in network order if that is a machine's
// that is known or listed, and the other is nobody's. Then it forgets one that
// is another machine's, as the state does: makers repeat UUIDs, and anybody can
// send one.
func (c *chooser) settleUUID() {
	known := func(uuid string) bool {
		_, seen := c.view.MachineByUUID(uuid)
		return seen || slices.ContainsFunc(c.link.Listed, func(l machine.ListedMachine) bool { return strings.EqualFold(l.UUID, uuid) })
	}
	if c.uuid != "" && !known(c.uuid) && known(c.swapped) {
		c.uuid = c.swapped
	}
	if c.uuid == "" {
		return
	}
	if m, ok := c.view.MachineByUUID(c.uuid); ok && !m.Inventory.MayHave(c.mac) {
		c.uuid = ""
	}
}

// fixed are the addresses that are the client's by somebody's decision, the
// strongest first: reservation, the machine's static address, the site file's.
func (c *chooser) fixed() []netip.Addr {
	if !c.ownMade {
		c.own, c.ownMade = c.findFixed(), true
	}
	return c.own
}

func (c *chooser) findFixed() (own []netip.Addr) {
	for _, r := range c.link.Reservations {
		if r.MAC == c.mac {
			own = append(own, r.Address)
		}
	}
	if m := c.owner(); m != nil && m.Address.IsValid() {
		own = append(own, m.Address)
	}
	m := c.machine()
	for _, l := range c.link.Listed {
		if l.Address.IsValid() && c.isListed(l, m) {
			own = append(own, l.Address)
		}
	}
	return own
}

// isListed says whether an entry of the site file's list is the client's, which
// belongs to m (or nil).
func (c *chooser) isListed(l machine.ListedMachine, m *machine.Machine) bool {
	return l.MAC == c.mac || l.HasUUID(c.uuid) || m != nil && l.HasUUID(m.UUID)
}

// excluded says why the client is served nothing here; "": it is served.
func (c *chooser) excluded() string {
	m := c.machine()
	switch {
	case c.link.Others || c.boots() || c.ours || m != nil:
	case slices.ContainsFunc(c.link.Reservations, func(r machine.Reservation) bool { return r.MAC == c.mac }):
	case slices.ContainsFunc(c.link.Listed, func(l machine.ListedMachine) bool { return c.isListed(l, m) }):
	default:
		return "it does not netboot, is no machine and has no reservation; others: true in the site file gives such clients addresses"
	}
	if !c.view.Open() && c.isNew() {
		return "another DHCP server answers on this link, and it has no lease here"
	}
	return ""
}

// isNew says whether nothing binds the client to us: no live lease, and no
// approval of its machine.
func (c *chooser) isNew() bool {
	if l, ok := c.view.LeaseByMAC(c.mac); ok && !l.Declined && l.Expires.After(c.now) {
		return false
	}
	m := c.machine()
	return m == nil || !m.Approved()
}

func (c *chooser) isFixed(a netip.Addr) bool { return slices.Contains(c.fixed(), a) }

// free says whether nobody else holds the address now or was offered it.
func (c *chooser) free(a netip.Addr) bool {
	l, ok := c.view.Lease(a)
	return c.freeOf(l, ok) && c.notOffered(a)
}

// freeOf says whether an address's lease, if there is one, keeps nobody off.
func (c *chooser) freeOf(l machine.Lease, there bool) bool {
	return !there || !l.Expires.After(c.now) || !l.Declined && l.MAC == c.mac
}

// notOffered says whether the address is offered to nobody else.
func (c *chooser) notOffered(a netip.Addr) bool {
	to, offered := c.view.Offered(a)
	return !offered || to == c.mac
}

// holds says whether the client has a live lease of the address.
func (c *chooser) holds(a netip.Addr) bool {
	l, ok := c.view.Lease(a)
	return ok && !l.Declined && l.MAC == c.mac && l.Expires.After(c.now)
}

// permitted says whether the client could have the address if it is free: one
// that is fixed for it, or one of the pool that is fixed for nobody. What the
// state would not bind to it is no wish of anybody's: it would be offered, and
// refused, for ever.
func (c *chooser) permitted(a netip.Addr) bool {
	if !a.Is4() || c.link.special(a) {
		return false
	}
	to := c.reservedFor(a)
	if to != "" && to != c.mac || !c.isFixed(a) && !c.link.inPool(a) {
		return false
	}
	of, static := c.static(a)
	if of != "" {
		return c.owner() != nil && c.owner().ID == of
	}
	return c.isFixed(a) || !static
}

// reservedFor is who an address is reserved for, or "".
func (c *chooser) reservedFor(a netip.Addr) machine.MAC {
	if c.reserved == nil {
		c.reserved = make(map[netip.Addr]machine.MAC, len(c.link.Reservations))
		for _, r := range c.link.Reservations {
			if c.reserved[r.Address] == "" { // the first one counts
				c.reserved[r.Address] = r.MAC
			}
		}
	}
	return c.reserved[a]
}

// static says whether the address is fixed for some machine, and for which if it
// is known.
func (c *chooser) static(a netip.Addr) (of machine.ID, static bool) {
	if c.statics == nil {
		c.statics = map[netip.Addr]machine.ID{}
		for _, l := range c.link.Listed {
			if l.Address.IsValid() {
				c.statics[l.Address] = ""
			}
		}
		for _, m := range c.view.Machines() {
			if m.Address.IsValid() {
				c.statics[m.Address] = m.ID
			}
		}
	}
	of, static = c.statics[a]
	return of, static
}

// choose finds the address to offer: a fixed one, the one it had, the one
// offered a moment ago, the one it asks for, else one of the pool. Not ok: the
// pool is exhausted.
func (c *chooser) choose(requested netip.Addr) (a netip.Addr, ok bool) {
	wishes := slices.Clone(c.fixed())
	if l, ok := c.view.LeaseByMAC(c.mac); ok {
		wishes = append(wishes, l.Address)
	}
	if a, ok := c.view.OfferTo(c.mac); ok {
		wishes = append(wishes, a)
	}
	wishes = append(wishes, requested)
	for _, a := range wishes {
		if c.permitted(a) && c.free(a) {
			return a, true
		}
	}
	return c.fromPool()
}

// fromPool finds an address in the pool, unless that was tried in vain a moment
// ago: a full pool of 65,536 is not searched for each of a flood. It prefers an address that nobody ever had, then the one whose lease
// ran out first. It starts at a place that follows from the hardware address,
// so that a client whose lease is forgotten most likely gets the same again.
func (c *chooser) fromPool() (oldest netip.Addr, ok bool) {
	if c.view.Exhausted() {
		return netip.Addr{}, false
	}
	h := fnv.New32a()
	h.Write([]byte(c.mac)) // never fails
	first, size := number(c.link.From), number(c.link.To)-number(c.link.From)+1
	start := h.Sum32() % max(size, 1)
	var expired time.Time
	for i := range size {
		a := address(first + (start+i)%size)
		l, used := c.view.Lease(a)
		if !c.freeOf(l, used) || !c.notOffered(a) || !c.permitted(a) {
			continue
		}
		if !used {
			return a, true
		}
		if !ok || l.Expires.Before(expired) {
			oldest, expired, ok = a, l.Expires, true
		}
	}
	return oldest, ok
}
