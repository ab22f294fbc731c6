package state

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestOnward(t *testing.T) {
	day := func(days float64) time.Time {
		return time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(days * float64(24*time.Hour)))
	}
	for name, test := range map[string]struct{ from, read, now, want time.Time }{
		"nothing is committed":                        {time.Time{}, day(0), day(1), day(1)},
		"the clock is right":                          {day(0), day(1), day(1), day(1)},
		"the clock is behind":                         {day(10), day(0), day(0), day(10)},
		"and time goes on":                            {day(10), day(0), day(1.5), day(11.5)},
		"the clock was set forward, no monotonic one": {day(10), day(10), day(12), day(12)},
		"the clock was set back":                      {day(10), day(10), day(2), day(10)},
	} {
		if got := onward(test.from, test.read, test.now); !got.Equal(test.want) {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

// A machine comes back years ago: what ended by its time stays over, and one event says
// that the clock is behind.
func TestClockBehindAtAStart(t *testing.T) {
	config := Config{ID: "r-1", Dir: t.TempDir()}
	s := open(t, config)
	must := func(x Result, err error) Result {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	must(s.Propose(within(t), "operator:ann", DiscoveryWindow{Until: time.Now().Add(10 * time.Millisecond)}))
	for over := false; !over; { // the store's clock, which is the machine's
		open, _ := s.View().t.window(s.Now())
		over = !open
	}
	last := must(s.Propose(within(t), "dhcp", note("it is over"))).Events[0].Time
	if err := s.raft.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)

	const late = 3*365*24*time.Hour + 5*time.Minute
	config.Now = func() time.Time { return time.Now().Add(-late) }
	for starts := range 2 { // it stays so
		s = open(t, config)
		if s.Now().Before(last) {
			t.Errorf("now it is %v, and was %v", s.Now(), last)
		}
		if open, _ := s.View().t.window(s.Now()); open {
			t.Error("a discovery window that ended is open again")
		}
		told := must(s.Propose(within(t), "dhcp", note("later"))).Events[0].Time
		if told.Before(last) {
			t.Errorf("an entry of %v after one of %v", told, last)
		}
		for ctx := within(t); len(events(s, "clock.behind")) == starts; {
			select {
			case <-s.View().Changed("events"):
			case <-time.After(10 * time.Millisecond): // it changed before it was asked for
			case <-ctx.Done():
				t.Fatal("nobody was told")
			}
		}
		last = told
		closeStore(t, s)
	}
	told := events(s, "clock.behind")
	if len(told) != 2 || !strings.Contains(told[0], "The clock of replica r-1's machine is 26280h") {
		t.Errorf("told %q", told)
	}
}

// events are the texts of the events of a kind.
func events(s *Store, kind string) (texts []string) {
	for _, e := range s.View().Events(0, "", 0) {
		if e.Kind == kind {
			texts = append(texts, e.Text)
		}
	}
	return texts
}

// A replica whose clock is behind gains the lead, twice.
func TestClockBehindAtALead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t)
		defer r.stop()
		r.late["b"] = 48 * time.Hour
		a := r.start("a")
		r.leader()
		b := r.grow("b")
		if err := a.Change(t.Context(), Promote, "b"); err != nil {
			t.Fatal(err)
		}
		last := r.must(a.Propose(t.Context(), "test", note("by the right clock"))).Events[0].Time
		for range 2 {
			for _, next := range []*Store{b, a} {
				if err := r.leader().Transfer(t.Context(), next.config.ID); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				x := r.must(next.Propose(t.Context(), "test", note("and on"))).Events[0].Time
				if x.Before(last) {
					t.Errorf("%s leads, and goes back from %v to %v", next.config.ID, last, x)
				}
				last = x
			}
		}
		if told := events(a, "clock.behind"); len(told) != 1 || !strings.Contains(told[0], "replica b's machine is 4") {
			t.Errorf("told %q", told)
		}
	})
}
