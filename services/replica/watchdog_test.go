package replica

import (
	"errors"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/state"
)

func TestHung(t *testing.T) {
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	three := state.Membership{Leader: "a", Leads: true, Members: []state.Member{{ID: "a", Voter: true}, {ID: "b", Voter: true}, {ID: "c", Voter: true}}}
	follows, elected, nobody := three, three, three
	follows.Leader, follows.Leads = "b", false
	elected.Leads, nobody.Leader, nobody.Leads = false, "", false
	alone := state.Membership{Leader: "a", Leads: true, Members: []state.Member{{ID: "a", Voter: true}, {ID: "b"}}}
	for name, test := range map[string]struct {
		medium  state.Medium
		watched time.Duration
		members state.Membership
		slower  int
		want    bool
	}{
		"nothing is written":            {state.Medium{}, 0, three, 0, false},
		"a write has just begun":        {state.Medium{Since: now}, time.Second, three, 0, false},
		"it does not end":               {state.Medium{Since: now}, hungAfter, three, 0, true},
		"writes fail":                   {state.Medium{Since: now, Failed: errors.New("full")}, hungAfter, three, 0, true},
		"before its epoch is committed": {state.Medium{Since: now}, hungAfter, elected, 0, true},
		"nobody leads":                  {state.Medium{Since: now}, time.Minute, nobody, 0, false},
		"it follows":                    {state.Medium{Since: now}, time.Minute, follows, 0, false},
		"nobody else could lead":        {state.Medium{Since: now}, time.Minute, alone, 0, false},
		"emulated, where all is slower": {state.Medium{Since: now}, hungAfter, three, 5, false},
		"emulated, and hung":            {state.Medium{Since: now}, 5 * hungAfter, three, 5, true},
	} {
		if got := hung(hang{since: test.medium.Since, watched: test.watched}, test.medium, test.members, "a", test.slower); got != "" != test.want {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// What is watched is one write. A process that was stopped watched nothing meanwhile.
func TestHangLook(t *testing.T) {
	begun := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	one, other := state.Medium{Since: begun}, state.Medium{Since: begun.Add(time.Second)}
	at := func(ms int) time.Time { return begun.Add(time.Duration(ms) * time.Millisecond) }
	for name, test := range map[string]struct {
		looks []time.Time
		last  state.Medium
		want  time.Duration
	}{
		"seen for the first time":  {[]time.Time{at(50)}, one, 0},
		"seen again":               {[]time.Time{at(50), at(150), at(260)}, one, 210 * time.Millisecond},
		"another one":              {[]time.Time{at(50), at(150), at(1250)}, other, 0},
		"nothing is written":       {[]time.Time{at(50), at(150)}, state.Medium{}, 0},
		"the process was stopped":  {[]time.Time{at(50), at(150), at(10150)}, one, 100*time.Millisecond + 5*hungLook},
		"the machine is very busy": {[]time.Time{at(50), at(450), at(850)}, one, 800 * time.Millisecond},
	} {
		var h hang
		for i, now := range test.looks {
			m := one
			if i == len(test.looks)-1 {
				m = test.last
			}
			h = h.look(now, m)
		}
		if h.watched != test.want {
			t.Errorf("%s: watched for %v, want %v", name, h.watched, test.want)
		}
	}
}
