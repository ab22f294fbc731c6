package netboot

import (
	"container/list"
	"net/netip"
	"sync"
	"time"
)

// Limits bound what machines, and whoever pretends to be one, can take. Zero
// fields have the defaults.
type Limits struct {
	Transfers int // blobs on their way at once; 256
	// TransfersPerSource are those to one address; 8. An installer has up to
	// four, and those from before its machine was reset are not cut at once.
	TransfersPerSource int
	// Stall is how long a transfer may stand still; 30s.
	Stall  time.Duration
	Bodies int // signed bodies being read at once, each up to wire.MaxBody; 32
	// BodiesPerSource are those from one address; 4. An installer sends up to
	// three at once: a claim, a report and its log.
	BodiesPerSource int
	Conns           int // connections; 4096
	// ConnsPerSource are connections from one address; 64. An installer has
	// up to four.
	ConnsPerSource int
	// Rate is each source's allowance in requests a second, Burst what it may
	// save up; 50 and 200. A boot script costs 10, a session 20.
	Rate, Burst float64
	Sources     int // addresses that are remembered; 8192
}

func (l Limits) filled() Limits {
	fill := func(v *int, to int) {
		if *v == 0 {
			*v = to
		}
	}
	fill(&l.Transfers, 256)
	fill(&l.TransfersPerSource, 8)
	fill(&l.Bodies, 32)
	fill(&l.BodiesPerSource, 4)
	fill(&l.Conns, 4096)
	fill(&l.ConnsPerSource, 64)
	fill(&l.Sources, 8192)
	if l.Stall == 0 {
		l.Stall = 30 * time.Second
	}
	if l.Rate == 0 {
		l.Rate = 50
	}
	if l.Burst == 0 {
		l.Burst = 200
	}
	return l
}

// rates holds a token bucket for each source. When the table is full, the
// source that was silent longest is forgotten: it begins with a full bucket
// again, so a flood from many addresses cannot lock anybody out.
type rates struct {
	limits Limits

	mu      sync.Mutex
	buckets map[netip.Addr]*list.Element // of *bucket
	recent  *list.List                   // most recent first
}

type bucket struct {
	source netip.Addr
	tokens float64
	at     time.Time
}

func newRates(l Limits) *rates {
	return &rates{limits: l, buckets: map[netip.Addr]*list.Element{}, recent: list.New()}
}

// take takes cost from the source's allowance, or says that there is not
// enough.
func (r *rates) take(from netip.Addr, cost float64, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	e, known := r.buckets[from]
	if known {
		r.recent.MoveToFront(e)
	} else {
		if r.recent.Len() >= r.limits.Sources {
			oldest := r.recent.Back()
			delete(r.buckets, oldest.Value.(*bucket).source)
			r.recent.Remove(oldest)
		}
		e = r.recent.PushFront(&bucket{from, r.limits.Burst, now})
		r.buckets[from] = e
	}
	b := e.Value.(*bucket)
	if passed := now.Sub(b.at).Seconds(); passed > 0 { // clocks are set back, too
		b.tokens = min(r.limits.Burst, b.tokens+passed*r.limits.Rate)
	}
	b.at = now
	if b.tokens < cost {
		return false
	}
	b.tokens -= cost
	return true
}
