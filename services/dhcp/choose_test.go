package dhcp

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/machine"
)

// counted counts how often a client's machine is looked for.
type counted struct {
	*world
	looks int
}

func (c *counted) MachineByMAC(m machine.MAC) (machine.Machine, bool) {
	c.looks++
	return c.world.MachineByMAC(m)
}

// full is a link whose pool is a /16 without an address left, with
// reservations.
func full() (Link, *counted) {
	l, w := testLink(), newWorld()
	l.Prefix, l.From, l.To = netip.MustParsePrefix("10.77.0.0/16"), ip("10.77.1.0"), ip("10.77.255.254")
	l.Reservations = nil
	for i := range 1000 {
		l.Reservations = append(l.Reservations, machine.Reservation{
			MAC: machine.MAC(fmt.Sprintf("52:54:01:00:%02x:%02x", i>>8, i&255)), Address: address(number(l.From) + uint32(i))})
	}
	for n := number(l.From); n <= number(l.To); n++ {
		a := address(n)
		w.leases[a] = machine.Lease{Address: a, MAC: machine.MAC(fmt.Sprintf("52:54:02:%02x:%02x:%02x", n>>16&255, n>>8&255, n&255)), Expires: w.now.Add(time.Hour)}
	}
	return l, &counted{world: w}
}

// However large the pool, what is fixed for a client is found once a request.
func TestFixedIsFoundOnce(t *testing.T) {
	l, w := full()
	for a, lease := range w.leases { // all may be had, and the oldest is
		lease.Expires = w.now.Add(-time.Hour)
		w.leases[a] = lease
	}
	c := &chooser{client: client{mac: macA}, link: l, view: w, now: w.now}
	a, ok := c.fromPool()
	if !ok || c.reservedFor(a) != "" {
		t.Errorf("chosen: %v, %v", a, ok)
	}
	if w.looks != 1 {
		t.Errorf("its machine was looked for %d times", w.looks)
	}
}

func BenchmarkFullPool(b *testing.B) {
	l, w := full()
	for b.Loop() {
		c := &chooser{client: client{mac: macA}, link: l, view: w, now: w.now}
		if a, ok := c.fromPool(); ok {
			b.Fatalf("chosen: %v", a)
		}
	}
}

func BenchmarkExpiredPool(b *testing.B) {
	l, w := full()
	for a, lease := range w.leases {
		lease.Expires = w.now.Add(-time.Hour)
		w.leases[a] = lease
	}
	for b.Loop() {
		c := &chooser{client: client{mac: macA}, link: l, view: w, now: w.now}
		if _, ok := c.fromPool(); !ok {
			b.Fatal("nothing was chosen")
		}
	}
}
