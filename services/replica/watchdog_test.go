package replica

import (
	"errors"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/state"
)

func TestHung(t *testing.T) {
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	three := state.Membership{Leads: true, Members: []state.Member{{ID: "a", Voter: true}, {ID: "b", Voter: true}, {ID: "c", Voter: true}}}
	follows := three
	follows.Leads = false
	alone := state.Membership{Leads: true, Members: []state.Member{{ID: "a", Voter: true}, {ID: "b"}}}
	for name, test := range map[string]struct {
		medium  state.Medium
		members state.Membership
		slower  int
		want    bool
	}{
		"nothing is written":            {state.Medium{}, three, 0, false},
		"a write has just begun":        {state.Medium{Since: now.Add(-time.Second)}, three, 0, false},
		"it does not end":               {state.Medium{Since: now.Add(-hungAfter)}, three, 0, true},
		"writes fail":                   {state.Medium{Since: now.Add(-hungAfter), Failed: errors.New("full")}, three, 0, true},
		"it follows":                    {state.Medium{Since: now.Add(-time.Minute)}, follows, 0, false},
		"nobody else could lead":        {state.Medium{Since: now.Add(-time.Minute)}, alone, 0, false},
		"emulated, where all is slower": {state.Medium{Since: now.Add(-hungAfter)}, three, 5, false},
		"emulated, and hung":            {state.Medium{Since: now.Add(-5 * hungAfter)}, three, 5, true},
	} {
		if got := hung(now, test.medium, test.members, test.slower); got != "" != test.want {
			t.Errorf("%s: %q", name, got)
		}
	}
}
