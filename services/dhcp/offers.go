package dhcp

import (
	"net/netip"
	"sync"
	"time"

	"github.com/rackseed/rackseed/services/machine"
)

const (
	// offerTime is how long an offered address is kept: clients that want it
	// ask within seconds, and collect offers for up to ten.
	offerTime = 15 * time.Second
	// maxOffers bounds the table, which strangers fill. While it is full,
	// offers are made without being kept: the worst is that two clients are
	// offered one address, and the second gets a NAK.
	maxOffers = 8192
)

// offers are the addresses that were offered a moment ago.
type offers struct {
	mu    sync.Mutex
	byIP  map[netip.Addr]offer
	byMAC map[machine.MAC]netip.Addr
}

type offer struct {
	mac   machine.MAC
	until time.Time
}

func newOffers() *offers {
	return &offers{byIP: map[netip.Addr]offer{}, byMAC: map[machine.MAC]netip.Addr{}}
}

// take keeps a for mac; false if it is another client's.
func (o *offers) take(a netip.Addr, mac machine.MAC, now time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if old, ok := o.byIP[a]; ok && old.mac != mac && old.until.After(now) {
		return false
	}
	o.drop(mac)
	if old, ok := o.byIP[a]; ok {
		o.drop(old.mac)
	}
	if len(o.byIP) >= maxOffers {
		for _, old := range o.byIP {
			if !old.until.After(now) {
				o.drop(old.mac)
			}
		}
	}
	if len(o.byIP) < maxOffers {
		o.byIP[a], o.byMAC[mac] = offer{mac, now.Add(offerTime)}, a
	}
	return true
}

func (o *offers) drop(mac machine.MAC) {
	if a, ok := o.byMAC[mac]; ok {
		delete(o.byMAC, mac)
		delete(o.byIP, a)
	}
}

// withdraw frees what was offered to mac.
func (o *offers) withdraw(mac machine.MAC) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.drop(mac)
}

// moment is the state together with the offers at one time.
type moment struct {
	State
	offers          *offers
	now             time.Time
	open, exhausted bool
}

func (m moment) Open() bool      { return m.open }
func (m moment) Exhausted() bool { return m.exhausted }

func (m moment) Offered(a netip.Addr) (machine.MAC, bool) {
	m.offers.mu.Lock()
	defer m.offers.mu.Unlock()
	o, ok := m.offers.byIP[a]
	return o.mac, ok && o.until.After(m.now)
}

func (m moment) OfferTo(mac machine.MAC) (netip.Addr, bool) {
	m.offers.mu.Lock()
	defer m.offers.mu.Unlock()
	a, ok := m.offers.byMAC[mac]
	return a, ok && m.offers.byIP[a].until.After(m.now)
}
