package replica

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rackseed/rackseed/services/state"
)

func TestAskOrder(t *testing.T) {
	members := []state.Member{{ID: "a", Voter: true}, {ID: "b", Voter: true}, {ID: "c"}}
	for _, c := range []struct {
		name, own, leader string
		slow              map[string]time.Time
		want              []string
	}{
		{"the leader last", "c", "a", nil, []string{"b", "a"}},
		{"it leads itself", "a", "a", nil, []string{"b", "c"}},
		{"nobody is known to lead", "b", "", nil, []string{"a", "c"}},
		{"who leads is no member any more", "a", "x", nil, []string{"b", "c"}},
		{"who was slow after the leader", "c", "a", map[string]time.Time{"b": time.Unix(9, 0)}, []string{"a", "b"}},
		{"who was slow last", "d", "a", map[string]time.Time{"a": time.Unix(8, 0), "c": time.Unix(9, 0)}, []string{"b", "a", "c"}},
	} {
		if got := askOrder(state.Membership{Members: members, Leader: c.leader}, c.own, c.slow); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// Who hangs holds nobody up for longer than patience; who fails, not at all.
func TestFirstOf(t *testing.T) {
	const patience, work = time.Second, time.Millisecond
	errFull := errors.New("its disk is full")
	for name, c := range map[string]struct {
		hang, fail string // IDs
		ids        string
		asked      string
		takes      time.Duration
		err        bool
	}{
		"the first does it":  {ids: "abc", asked: "a", takes: work},
		"the first hangs":    {ids: "abc", hang: "a", asked: "ab", takes: patience + work},
		"the first fails":    {ids: "abc", fail: "a", asked: "ab", takes: 2 * work},
		"only the last does": {ids: "abc", hang: "a", fail: "b", asked: "abc", takes: patience + 2*work},
		"all fail":           {ids: "abc", fail: "abc", asked: "abc", takes: 3 * work, err: true},
		"all hang":           {ids: "ab", hang: "ab", asked: "ab", takes: time.Minute, err: true},
		"there is nobody":    {},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				var mu sync.Mutex
				asked, began := "", time.Now()
				err := firstOf(ctx, slices.DeleteFunc(strings.Split(c.ids, ""), func(id string) bool { return id == "" }), patience, func(ctx context.Context, id string) error {
					mu.Lock()
					asked += id
					mu.Unlock()
					if strings.Contains(c.hang, id) {
						<-ctx.Done()
						return ctx.Err()
					}
					time.Sleep(work)
					if strings.Contains(c.fail, id) {
						return errFull
					}
					return nil
				})
				mu.Lock()
				defer mu.Unlock()
				if took := time.Since(began); (err != nil) != c.err || asked != c.asked || took != c.takes {
					t.Errorf("asked %s, after %v: %v", asked, took, err)
				}
			})
		})
	}
}

// Who was slow is remembered until it is not.
func TestSlowness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s slowness
		hear := func(id string, took time.Duration, err error) {
			began := time.Now()
			time.Sleep(took)
			s.heard(id, began, time.Second, err)
		}
		hear("a", time.Second, nil)
		hear("b", time.Minute, context.DeadlineExceeded)
		hear("c", 0, errors.New("refused"))
		if when := s.all(); len(when) != 2 || !when["a"].Before(when["b"]) {
			t.Errorf("slow are %v", when)
		}
		hear("a", 0, errors.New("refused"))
		hear("b", 0, nil)
		if when := s.all(); len(when) != 1 || when["a"].IsZero() {
			t.Errorf("slow are %v", when)
		}
	})
}

// A voter that hangs slows one chunk of output, and not the next ones; once it is the
// other one that hangs, it is asked first again.
func TestAHungVoter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s slowness
		m := state.Membership{Members: []state.Member{{ID: "a", Voter: true}, {ID: "b", Voter: true}, {ID: "own", Voter: true}}, Leader: "own"}
		keep := func(hangs string) time.Duration {
			t.Helper()
			began := time.Now()
			if err := s.keep(t.Context(), askOrder(m, "own", s.all()), func(ctx context.Context, id string) error {
				if id == hangs {
					<-ctx.Done()
					return ctx.Err()
				}
				time.Sleep(time.Millisecond)
				return nil
			}); err != nil {
				t.Error(err)
			}
			synctest.Wait() // until it is remembered who hung
			return time.Since(began)
		}
		for n, want := range []time.Duration{keepPatience + time.Millisecond, time.Millisecond, time.Millisecond} {
			if took := keep("a"); took != want {
				t.Errorf("chunk %d took %v", n+1, took)
			}
		}
		for n, want := range []time.Duration{keepPatience + time.Millisecond, time.Millisecond} {
			if took := keep("b"); took != want {
				t.Errorf("chunk %d after the other one hung took %v", n+1, took)
			}
		}
	})
}
