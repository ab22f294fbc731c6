package dhcp

import (
	"sync"
	"time"
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
