package state

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/rackseed/rackseed/services/machine"
)

// clockTold is how far the machine's clock may be behind before people are told.
const clockTold = time.Minute

// clock is the time of a replica: its machine's, but never before what was committed. A
// machine with a dead battery comes back years ago: windows that ended would be open
// again, and leases that ran out be held.
type clock struct {
	machine func() time.Time

	mu   sync.Mutex
	from time.Time // the time at read, without a monotonic reading; zero: nothing is known
	read time.Time // the machine's clock then
}

// onward is the time when a machine's clock shows now, that showed read at the time
// from: it goes on from there, at least. Where the clock was set forward meanwhile, it
// is right.
func onward(from, read, now time.Time) time.Time {
	// By their monotonic readings: that a clock is set is no time that passed.
	if at := from.Add(max(now.Sub(read), 0)); at.After(now) {
		return at
	}
	return now
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return onward(c.from, c.read, c.machine())
}

// atLeast has the time go on from the newest entry's, and says how far the machine's
// clock is behind that.
func (c *clock) atLeast(newest time.Time) (behind time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	read := c.machine()
	at := onward(c.from, c.read, read)
	if newest.After(at) {
		at = newest
	}
	c.from, c.read = at.Round(0), read
	return max(newest.Sub(read), 0)
}

// Now is the time by which this replica dates entries, and which is compared with that
// of what was committed: its machine's, but not before the newest entry's, as of the
// start and of each gained lead.
func (s *Store) Now() time.Time { return s.clock.now() }

// lookAtClock has the time be no earlier than the newest entry's.
func (s *Store) lookAtClock() {
	newest, err := newestTime(s.log)
	if err != nil {
		s.config.Logger.Warn("when the newest entry was made is not known", "server", s.config.ID, "error", err)
	}
	// Of what is in a snapshot alone.
	if view := s.View(); view.LastEvent() > 0 {
		for _, e := range view.Events(view.LastEvent()-1, "", 1) {
			if e.Time.After(newest) {
				newest = e.Time
			}
		}
	}
	s.behind = max(s.behind, s.clock.atLeast(newest))
}

// newestTime is when the newest command of a log was proposed; zero: there is none.
func newestTime(log raft.LogStore) (time.Time, error) {
	first, err := log.FirstIndex()
	if err != nil {
		return time.Time{}, err
	}
	last, err := log.LastIndex()
	if err != nil {
		return time.Time{}, err
	}
	for i := last; i >= first && i > 0; i-- { // past Raft's own
		var l raft.Log
		if err := log.GetLog(i, &l); err != nil {
			return time.Time{}, fmt.Errorf("log entry %d: %w", i, err)
		}
		if l.Type != raft.LogCommand {
			continue
		}
		var e struct {
			At time.Time `json:"at"`
		}
		if err := json.Unmarshal(l.Data, &e); err != nil {
			return time.Time{}, fmt.Errorf("log entry %d: %w", i, err)
		}
		return e.At, nil
	}
	return time.Time{}, nil
}

// tellClock makes an event, once a start, of a machine's clock that is behind.
func (s *Store) tellClock(ctx context.Context) {
	behind := s.behind
	s.behind = 0
	if behind <= clockTold || s.clockTold {
		return
	}
	s.clockTold = true
	note := Note{
		What: "clock.behind", Severity: machine.Warning,
		Text: fmt.Sprintf("The clock of replica %s's machine is %s behind what was committed last: time goes on from there. Set that machine's clock (its firmware's setup, or its battery); if what was committed last is of a clock that was ahead, times are right again once the clock is past it", s.config.ID, span(behind)),
		Data: map[string]string{"replica": s.config.ID, "behind": span(behind)},
	}
	go func() { // whatever comes of it, the lead is watched
		ctx, cancel := context.WithTimeout(ctx, epochLimit)
		defer cancel()
		if _, err := s.propose(ctx, s.config.ID, note); err != nil {
			s.config.Logger.Warn(note.Text, "event not committed", err)
		}
	}()
}
