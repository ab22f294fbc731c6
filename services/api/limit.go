package api

import (
	"net/netip"
	"sync"
	"time"
)

// Attempts at a password or setup code that one source may make: five at once,
// then one each ten seconds. At that pace a ten-byte password is not guessed,
// and a person who mistypes does not notice.
const (
	attemptBurst    = 5
	attemptInterval = 10 * time.Second
	attemptSources  = 4096
)

// limiter counts attempts by source. Each source has its own allowance, so
// that one that guesses locks out nobody else; the table has a limit, and when
// it is full the source that was silent longest is forgotten.
type limiter struct {
	mu      sync.Mutex
	sources map[netip.Prefix]allowance
}

// allowance is a token bucket, kept as the time at which it is full again.
type allowance struct{ full, last time.Time }

func newLimiter() *limiter { return &limiter{sources: map[netip.Prefix]allowance{}} }

// allow takes one attempt from the source of addr, or says how long to wait.
func (l *limiter) allow(addr netip.Addr, now time.Time) (wait time.Duration, ok bool) {
	source := sourceOf(addr)
	l.mu.Lock()
	defer l.mu.Unlock()
	a, known := l.sources[source]
	if !known && len(l.sources) >= attemptSources {
		l.evict()
	}
	if a.full.Before(now) {
		a.full = now
	}
	a.last = now
	next := a.full.Add(attemptInterval)
	if wait = next.Sub(now) - attemptBurst*attemptInterval; wait > 0 {
		l.sources[source] = a
		return wait, false
	}
	a.full = next
	l.sources[source] = a
	return 0, true
}

func (l *limiter) evict() {
	var oldest netip.Prefix
	var at time.Time
	for source, a := range l.sources {
		if at.IsZero() || a.last.Before(at) {
			oldest, at = source, a.last
		}
	}
	delete(l.sources, oldest)
}

// sourceOf is what counts as one source: an IPv4 address, or an IPv6 /64,
// which is what one host can choose its addresses from.
func sourceOf(addr netip.Addr) netip.Prefix {
	addr = addr.Unmap().WithZone("")
	bits := addr.BitLen()
	if addr.Is6() {
		bits = 64
	}
	p, err := addr.Prefix(bits)
	if err != nil { // the zero address: all strangers without one share a bucket
		return netip.Prefix{}
	}
	return p
}
