package state

import (
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/machine"
)

// TestCloseLetsNobodyWait: who proposes while the store is closed is answered,
// although Raft forgets what waits in its queue at its shutdown.
func TestCloseLetsNobodyWait(t *testing.T) {
	s, err := Open(Config{ID: "r-1", InMemory: true, Now: time.Now, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.WaitLeader(t.Context()); err != nil {
		t.Fatal(err)
	}
	var first, all sync.WaitGroup
	first.Add(64)
	for range 64 {
		all.Go(func() {
			var once sync.Once
			for {
				_, err := s.Propose(t.Context(), "test", Note{What: "note", Severity: machine.Info, Text: "x"})
				once.Do(first.Done)
				if err != nil {
					return
				}
			}
		})
	}
	first.Wait()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	ended := make(chan struct{})
	go func() { all.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(proposeLimit / 2):
		t.Error("a proposal waits for its time limit after the store was closed")
	}
}
