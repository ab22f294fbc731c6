package state

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// leadership says whether this replica leads with a committed epoch.
type leadership struct {
	mu      sync.Mutex
	ready   chan struct{} // closed while it leads
	changed chan struct{} // closed at the next change
	leads   bool
}

func newLeadership() *leadership {
	return &leadership{ready: make(chan struct{}), changed: make(chan struct{})}
}

func (l *leadership) state() (bool, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.leads, l.changed
}

func (l *leadership) is() bool {
	leads, _ := l.state()
	return leads
}

func (l *leadership) set(leads bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if leads == l.leads {
		return
	}
	if leads {
		close(l.ready)
	} else {
		l.ready = make(chan struct{})
	}
	l.leads = leads
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *leadership) wait(ctx context.Context, stopping <-chan struct{}) error {
	l.mu.Lock()
	ready := l.ready
	l.mu.Unlock()
	select {
	case <-ready:
		return nil
	case <-stopping:
		return raft.ErrRaftShutdown
	case <-ctx.Done():
		return ctx.Err()
	}
}

// lead begins an epoch whenever this replica gains leadership. Nothing else is
// applied in a term before its epoch has begun (see apply), so a change of
// leadership that is noticed late does no harm.
func (s *Store) lead(ctx context.Context) {
	changes := s.raft.LeaderCh()
	for {
		select {
		case <-ctx.Done():
			s.leading.set(false)
			return
		case gained := <-changes:
			s.leading.set(false)
			if gained {
				s.beginEpoch(ctx)
			}
		}
	}
}

// beginEpoch tries until the epoch is committed or leadership is lost.
func (s *Store) beginEpoch(ctx context.Context) {
	s.lookAtClock()
	for {
		err := s.proposeEpoch(ctx)
		if err == nil {
			s.leading.set(true)
			epoch := s.View().t.cluster().Epoch
			s.config.Logger.Info("this replica leads", "server", s.config.ID, "epoch", epoch)
			s.tellClock(ctx)
			return
		}
		if ctx.Err() != nil || errors.Is(err, raft.ErrNotLeader) || errors.Is(err, raft.ErrLeadershipLost) || errors.Is(err, raft.ErrRaftShutdown) || errors.Is(err, errHalted) {
			return // the next gain begins anew
		}
		s.config.Logger.Warn("the epoch could not be begun; it is tried again", "server", s.config.ID, "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

func (s *Store) proposeEpoch(ctx context.Context) error {
	entry, err := encode(s.Now(), s.config.ID, EpochBegin{Leader: s.config.ID})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, epochLimit)
	defer cancel()
	answer, err := s.commit(ctx, entry)
	if err != nil {
		return err
	}
	if failed, ok := answer.(error); ok {
		return failed
	}
	return nil
}
