// Package keep keeps one program running.
package keep

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// Back-off between two starts: doubled up to the most, and from the beginning
// again after a run of steady.
const (
	first  = time.Second
	most   = 30 * time.Second
	steady = time.Minute
)

// State is how the program is.
type State struct {
	Running  bool
	Restarts int    // since the machine started
	Why      string // it is not running, or why it was started anew; empty at first
}

// Keeper keeps one program running.
type Keeper struct {
	Name string
	// Run starts the program and returns when it ended. It ends it, in good
	// order, when ctx ends.
	Run func(ctx context.Context) error
	Log *slog.Logger

	mu      sync.Mutex
	state   State
	changed func()
}

// OnChange has f called after each change of state. It must be set before
// Keep runs.
func (k *Keeper) OnChange(f func()) { k.changed = f }

// State is how the program is now.
func (k *Keeper) State() State {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.state
}

// Keep runs the program until ctx ends, and returns once it has ended.
func (k *Keeper) Keep(ctx context.Context) {
	wait := first
	for {
		k.set(func(s *State) { s.Running = true })
		start := time.Now()
		err := k.Run(ctx)
		if ctx.Err() != nil {
			k.set(func(s *State) { s.Running, s.Why = false, "the machine is being stopped" })
			return
		}
		why := fmt.Sprintf("%s ended by itself", k.Name)
		if err != nil {
			why = fmt.Sprintf("%s ended: %v", k.Name, err)
		}
		if time.Since(start) >= steady {
			wait = first
		}
		k.Log.Error(why, "again", wait)
		k.set(func(s *State) { s.Running, s.Why, s.Restarts = false, why, s.Restarts+1 })
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		wait = min(2*wait, most)
	}
}

func (k *Keeper) set(f func(*State)) {
	k.mu.Lock()
	f(&k.state)
	changed := k.changed
	k.mu.Unlock()
	if changed != nil {
		changed()
	}
}
