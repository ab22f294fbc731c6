package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/rackseed/rackseed/services/api"
)

// How long a task that ended waits for its next start: doubled each time up to
// the most, and from the beginning after it ran well for that long.
const (
	restartFirst = time.Second
	restartMost  = 30 * time.Second
)

// task is one part of a replica. run works until ctx ends, calls report when
// there is something to tell, and returns why it could not go on.
type task struct {
	name string
	run  func(ctx context.Context, report report) error
}

// report tells a task's health: what it does, or what is wrong. Of what is not ok,
// kind says why; none: a fault.
type report func(ok bool, text string, kind ...api.HealthKind)

// plain is the report of those that know no kinds.
func (r report) plain(ok bool, text string) { r(ok, text) }

// supervisor runs tasks and knows how each is. A task that fails is started
// again: one port that is taken must not end the rest, and may be free later.
type supervisor struct {
	log    *slog.Logger
	mu     sync.Mutex
	order  []string
	health map[string]api.Health
}

func newSupervisor(log *slog.Logger) *supervisor {
	return &supervisor{log: log, health: map[string]api.Health{}}
}

// run runs tasks until ctx ends and all of them have ended. Their health is
// shown as long as they run.
func (s *supervisor) run(ctx context.Context, tasks ...task) {
	var wg sync.WaitGroup
	for _, t := range tasks {
		s.set(t.name, false, "starting", api.HealthStarting)
		wg.Go(func() {
			defer s.drop(t.name)
			s.keep(ctx, t)
		})
	}
	wg.Wait()
}

// keep starts a task again and again until ctx ends.
func (s *supervisor) keep(ctx context.Context, t task) {
	for wait := restartFirst; ctx.Err() == nil; wait = min(2*wait, restartMost) {
		begun := time.Now()
		err := protect(ctx, t, func(ok bool, text string, kind ...api.HealthKind) { s.set(t.name, ok, text, kind...) })
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			err = errors.New("it ended by itself")
		}
		if time.Since(begun) > restartMost {
			wait = restartFirst
		}
		s.log.Error("replica: task failed", "task", t.name, "error", err, "again", wait)
		s.set(t.name, false, fmt.Sprintf("%v; it is tried again in %v", err, wait))
		pause(ctx, wait)
	}
}

// protect makes a panic of one task that task's error: a fault in TFTP must
// not take DHCP with it.
func protect(ctx context.Context, t task, r report) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("fault in %s: %v\n%s", t.name, p, debug.Stack())
		}
	}()
	return t.run(ctx, r)
}

func (s *supervisor) set(name string, ok bool, text string, kind ...api.HealthKind) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.health[name]; !known {
		s.order = append(s.order, name)
	}
	s.health[name] = api.HealthOf(name, ok, text, kind...)
}

func (s *supervisor) drop(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.health, name)
	for i, n := range s.order {
		if n == name {
			s.order = append(s.order[:i:i], s.order[i+1:]...)
			return
		}
	}
}

// list is the health of every task, in the order they were started.
func (s *supervisor) list() []api.Health {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]api.Health, 0, len(s.order))
	for _, name := range s.order {
		list = append(list, s.health[name])
	}
	return list
}
