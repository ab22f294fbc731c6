package state

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"
)

// stick is a log on a medium that can be slow, full or read-only. As raft-wal's,
// a log of it that failed once takes no more writes.
type stick struct {
	mu     sync.Mutex
	kept   *raft.InmemStore
	delay  time.Duration
	fail   error
	opened int
	half   bool // what fails is on the medium all the same
}

func (s *stick) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *stick) open() (opened, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil && s.opened > 0 {
		return opened{}, s.fail
	}
	s.opened++
	return opened{&stickLog{InmemStore: s.kept, stick: s}, io.NopCloser(nil), io.NopCloser(nil)}, nil
}

type stickLog struct {
	*raft.InmemStore
	stick  *stick
	broken bool
}

func (l *stickLog) write(f func() error) error {
	l.stick.mu.Lock()
	delay, fail, half := l.stick.delay, l.stick.fail, l.stick.half
	l.stick.mu.Unlock()
	time.Sleep(delay)
	if l.broken {
		return errors.New("non-monotonic append")
	}
	if fail != nil {
		l.broken = true
		if half {
			return errors.Join(f(), fail)
		}
		return fail
	}
	return f()
}

func (l *stickLog) StoreLogs(logs []*raft.Log) error {
	return l.write(func() error { return l.InmemStore.StoreLogs(logs) })
}

func (l *stickLog) DeleteRange(from, to uint64) error {
	return l.write(func() error { return l.InmemStore.DeleteRange(from, to) })
}

func (l *stickLog) Set(key, value []byte) error {
	return l.write(func() error { return l.InmemStore.Set(key, value) })
}

func (l *stickLog) SetUint64(key []byte, value uint64) error {
	return l.write(func() error { return l.InmemStore.SetUint64(key, value) })
}

// Entries that were taken away while the medium failed, whether they are gone by then or
// not, are gone once it takes writes again, and it goes on from there.
func TestDeletingOnAFullMedium(t *testing.T) {
	for _, half := range []bool{false, true} {
		for _, c := range []struct{ from, to, first, last uint64 }{
			{6, 10, 1, 5}, // another leader's are in force
			{1, 10, 0, 0}, // all, for a snapshot that was installed
			{1, 4, 5, 10}, // the oldest
		} {
			synctest.Test(t, func(t *testing.T) {
				disk := &stick{kept: raft.NewInmemStore()}
				m, err := newMedium(disk.open, slog.New(slog.DiscardHandler))
				if err != nil {
					t.Fatal(err)
				}
				for i := range uint64(10) {
					if err := m.StoreLog(&raft.Log{Index: i + 1}); err != nil {
						t.Fatal(err)
					}
				}
				disk.set(func() { disk.fail, disk.half = errors.New("no space left on device"), half })
				done := make(chan error)
				go func() { done <- m.DeleteRange(c.from, c.to) }()
				time.Sleep(10 * time.Second)
				disk.set(func() { disk.fail = nil })
				select {
				case err := <-done:
					if err != nil {
						t.Fatal(err)
					}
				case <-time.After(time.Minute):
					t.Fatalf("deleting %d to %d, done by then: %v: %v", c.from, c.to, half, m.failed)
				}
				first, errFirst := m.FirstIndex()
				last, errLast := m.LastIndex()
				if err := errors.Join(errFirst, errLast); err != nil || first != c.first || last != c.last {
					t.Errorf("entries %d to %d are left, want %d to %d: %v", first, last, c.first, c.last, err)
				}
				if err := m.StoreLog(&raft.Log{Index: max(c.last, 20) + 1}); err != nil {
					t.Error(err)
				}
				m.release()
				if err := m.Close(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// Since when the medium hangs is known, whatever the write is: one of entries would
// wait behind it without having begun.
func TestMediumHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := &stick{kept: raft.NewInmemStore()}
		m, err := newMedium(disk.open, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		disk.set(func() { disk.delay = time.Minute })
		begun := time.Now()
		written := make(chan error)
		go func() { written <- m.SetUint64(termKey, 2) }()
		time.Sleep(30 * time.Second)
		if s, _ := m.status(); !s.Since.Equal(begun) {
			t.Errorf("it hangs since %s, and says %s", begun, s.Since)
		}
		if err := <-written; err != nil {
			t.Error(err)
		}
		if s, _ := m.status(); !s.Since.IsZero() {
			t.Errorf("it does not hang, and says since %s", s.Since)
		}
	})
}

// TestSlowMedium: with a sync of half a second every one of many callers is
// served within the 2 s that a DHCP client waits, as they share syncs; and the
// medium is told to be slow, once, and to be well again.
func TestSlowMedium(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := &stick{kept: raft.NewInmemStore()}
		s := open(t, Config{ID: "r-1", InMemory: true, open: disk.open})
		defer closeStore(t, s)
		m, change := s.Medium()
		if m.Slow || m.Failed != nil {
			t.Errorf("a fast medium: %+v", m)
		}
		disk.set(func() { disk.delay = 500 * time.Millisecond })
		begun := time.Now()
		const clients = 100
		var all sync.WaitGroup
		for n := range clients {
			all.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				defer cancel()
				if _, err := s.Propose(ctx, "dhcp", lease(n, mac(n), time.Now(), time.Hour)); err != nil {
					t.Errorf("client %d: %v", n, err)
				}
			})
		}
		all.Wait()
		if took := time.Since(begun); took > 2*time.Second {
			t.Errorf("%d leases took %v", clients, took)
		}
		equal(t, "leases", len(s.View().Leases()), clients)
		propose := func(times int) {
			for n := range times {
				if _, err := s.Propose(t.Context(), "x", note(fmt.Sprint(n))); err != nil {
					t.Fatal(err)
				}
			}
		}
		propose(measured)
		<-change
		m, change = s.Medium()
		if !m.Slow || m.Median != 500*time.Millisecond || m.Longest != 500*time.Millisecond {
			t.Errorf("a slow medium: %+v", m)
		}
		propose(measured)
		select {
		case <-change:
			t.Error("it was told twice")
		default:
		}
		disk.set(func() { disk.delay = 0 })
		propose(measured)
		<-change
		if m, _ := s.Medium(); m.Slow {
			t.Errorf("well again: %+v", m)
		}
	})
}

// TestMediumFails: nothing that was acknowledged is lost, nothing is while the
// medium takes no writes, and the log goes on by itself when it does again.
func TestMediumFails(t *testing.T) {
	for _, fail := range []error{unix.ENOSPC, unix.EROFS, unix.EIO} {
		for _, half := range []bool{false, true} {
			t.Run(fmt.Sprint(fail, half), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					disk := &stick{kept: raft.NewInmemStore(), half: half}
					s := open(t, Config{ID: "r-1", InMemory: true, open: disk.open})
					if _, err := s.Propose(t.Context(), "x", note("before")); err != nil {
						t.Fatal(err)
					}
					_, change := s.Medium()
					disk.set(func() { disk.fail = fail })
					for n := range 5 {
						ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
						_, err := s.Propose(ctx, "x", note(fmt.Sprint("while", n)))
						cancel()
						if !errors.Is(err, ErrUnwritable) || !errors.Is(err, fail) {
							t.Errorf("while it fails: %v", err)
						}
					}
					<-change
					m, change := s.Medium()
					if !errors.Is(m.Failed, ErrUnwritable) || !errors.Is(m.Failed, fail) {
						t.Errorf("status %+v", m)
					}
					equal(t, "events while it fails", notes(s), "[before]")
					time.Sleep(time.Hour) // nothing is asked, and nothing grows
					disk.set(func() { disk.fail = nil })
					<-change
					if _, err := s.Propose(t.Context(), "x", note("after")); err != nil {
						t.Fatal(err)
					}
					equal(t, "events", notes(s), "[before after]")
					if m, _ := s.Medium(); m.Failed != nil {
						t.Errorf("status %+v", m)
					}
					closeStore(t, s)
					// A restart finds the same.
					s = open(t, Config{ID: "r-1", InMemory: true, open: disk.open})
					equal(t, "events after a restart", notes(s), "[before after]")
					// It can be stopped while it waits.
					disk.set(func() { disk.fail = fail })
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					defer cancel()
					if _, err := s.Propose(ctx, "x", note("never")); err == nil {
						t.Error("it was committed")
					}
					closeStore(t, s)
				})
			})
		}
	}
}

// notes are the texts of the notes that were committed.
func notes(s *Store) string {
	texts := []string{}
	for _, e := range s.View().Events(0, "", 0) {
		if e.Kind == "note" {
			texts = append(texts, e.Text)
		}
	}
	return fmt.Sprint(texts)
}
