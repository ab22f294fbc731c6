package dhcp

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/rackseed/rackseed/services/machine"
)

// bucket is a token bucket: burst at once, then rate a second.
type bucket struct {
	mu          sync.Mutex
	burst, rate float64
	tokens      float64
	last        time.Time
}

func newBucket(burst, rate float64) *bucket {
	return &bucket{burst: burst, rate: rate, tokens: burst}
}

func (b *bucket) take(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if passed := now.Sub(b.last).Seconds(); passed > 0 {
		b.tokens = min(b.burst, b.tokens+passed*b.rate)
		b.last = now
	}
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

// pause lets something happen at most once in a while.
type pause struct {
	mu   sync.Mutex
	last time.Time
}

func (p *pause) over(now time.Time, wait time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.last.IsZero() && now.Sub(p.last) < wait {
		return false
	}
	p.last = now
	return true
}

// declines bounds what declines keep from everyone: addresses of one pool that
// are blocked at the same time. Over the limit a declined address stays its
// client's.
type declines struct {
	each, all int

	mu      sync.Mutex
	blocked []blocked
}

type blocked struct {
	address netip.Addr
	by      machine.MAC
	until   time.Time
}

// newDeclines are those of a pool of size addresses: half of it at most may be
// blocked, and 8, of a small pool an eighth, by one client. Who finds that many
// in use is in a pool that others use, or wants to empty it.
func newDeclines(size uint32) *declines {
	return &declines{each: max(min(int(size)/8, 8), 1), all: max(int(size)/2, 1)}
}

// add notes a declined address; false: one more may not be blocked now.
func (d *declines) add(a netip.Addr, by machine.MAC, now, until time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.blocked = slices.DeleteFunc(d.blocked, func(b blocked) bool { return !b.until.After(now) || b.address == a })
	of := 0
	for _, b := range d.blocked {
		if b.by == by {
			of++
		}
	}
	if of >= d.each || len(d.blocked) >= d.all {
		return false
	}
	d.blocked = append(d.blocked, blocked{a, by, until})
	return true
}
