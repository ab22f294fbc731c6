package bounded

import (
	"sync"
	"time"
)

// Repeat says when a thing that recurs is worth telling again: once, and then
// each Pause. At most Most things are told apart, which strangers may make up;
// while that many are fresh a new one is not told.
type Repeat struct {
	Pause time.Duration
	Most  int

	mu   sync.Mutex
	told map[string]time.Time
}

// Due says whether to tell now of the thing that key names, and counts it as
// told if so.
func (r *Repeat) Due(key string, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if at, ok := r.told[key]; ok && now.Sub(at) < r.Pause {
		return false
	}
	if r.told == nil {
		r.told = map[string]time.Time{}
	}
	for k, at := range r.told {
		if now.Sub(at) >= r.Pause {
			delete(r.told, k)
		}
	}
	if len(r.told) >= r.Most {
		return false
	}
	r.told[key] = now
	return true
}
