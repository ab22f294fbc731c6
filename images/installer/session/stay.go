package session

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/rackseed/rackseed/images/installer/client"
	"github.com/rackseed/rackseed/services/wire"
)

const (
	// unheardLimit is how long after the installer's start a machine that is only
	// looked at waits for a first order. Its links and DHCP are waited for in it.
	unheardLimit = 45 * time.Minute
	// grace is what an end that an order named is exceeded by: the boot service
	// itself sends the machine away then, if it is there.
	grace = 5 * time.Minute
	// refusedLimit is how long a session may be refused before the machine
	// leaves. A session that writes is taken over after 20 s of silence, and an
	// operator may want to open the discovery window again.
	refusedLimit = 5 * time.Minute
)

// facts are what it depends on when a machine leaves the installer by itself.
type facts struct {
	discovery bool      // it was sent here only to be looked at
	began     time.Time // when the installer started
	ordered   bool      // an install or a rescue was ordered, once
	answered  bool      // an order came
	until     time.Time // when the newest order ends its stay; zero: never
	refused   time.Time // since when it is refused a session; zero: it is not
	refusal   string
}

// leave is when the machine restarts to its own disk, and why; the zero time is
// never. Whoever was ordered anything stays: what is on the disk then is not
// whole, or somebody is at work. A restart loses no approval: the boot service
// decides anew what the machine boots.
func (f facts) leave() (at time.Time, why string) {
	switch {
	case f.ordered:
		return time.Time{}, ""
	case !f.refused.IsZero():
		return f.refused.Add(refusedLimit), fmt.Sprintf("for %s the boot service has refused it a session: %s", refusedLimit, f.refusal)
	case !f.discovery:
		return time.Time{}, ""
	case !f.answered:
		return f.began.Add(unheardLimit), fmt.Sprintf("no boot service has told it within %s what to do", unheardLimit)
	case f.until.IsZero():
		return time.Time{}, ""
	}
	return f.until.Add(grace), "nobody approved it in time, and the boot service does not answer any more"
}

// Stay ends a machine's stay in the installer where the boot service does not:
// it may be gone. A nil Stay never does.
type Stay struct {
	mu     sync.Mutex
	facts  facts
	timer  *time.Timer
	cancel context.CancelCauseFunc
}

// NewStay begins a stay. The context ends with ErrLeft when the machine shall
// restart to its own disk. discovery says that the machine was sent into the
// installer only to be looked at.
func NewStay(ctx context.Context, discovery bool) (context.Context, *Stay) {
	ctx, cancel := context.WithCancelCause(ctx)
	s := &Stay{cancel: cancel, facts: facts{discovery: discovery, began: time.Now()}}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timer = time.AfterFunc(unheardLimit, func() { s.note(func(*facts) {}) })
	s.look()
	return ctx, s
}

func (s *Stay) note(change func(*facts)) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.facts)
	s.look()
}

// look ends the stay, or sees to it that it is looked at again in time.
func (s *Stay) look() {
	at, why := s.facts.leave()
	switch rest := time.Until(at); {
	case at.IsZero():
		s.timer.Stop()
	case rest > 0:
		s.timer.Reset(rest)
	default:
		s.cancel(fmt.Errorf("%w: %s", ErrLeft, why))
	}
}

// heard notes an order.
func (s *Stay) heard(o wire.Order) {
	s.note(func(f *facts) {
		f.answered, f.until = true, time.Time{}
		switch {
		case o.Kind == wire.OrderInstall || o.Kind == wire.OrderRescue:
			f.ordered = true
		case !o.Until.IsZero():
			// The clock is the boot service's, and may be set once more: what counts
			// is the time that is left.
			now := time.Now()
			f.until = now.Add(o.Until.Sub(now))
		}
	})
}

// asked notes how asking for a session ended. Only who answers refuses: a boot
// service that is away, or has no leader, says nothing about the machine.
func (s *Stay) asked(err error) {
	s.note(func(f *facts) {
		switch {
		case err == nil || !client.Permanent(err):
			f.refused, f.refusal = time.Time{}, ""
			return
		case f.refused.IsZero():
			f.refused = time.Now()
		}
		f.refusal = err.Error()
	})
}
