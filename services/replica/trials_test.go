package replica

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/handoff"
)

// One replica that finds a fault is enough; one that could not be asked is not.
func TestTogether(t *testing.T) {
	checks := func(fails string) (list []handoff.Check) {
		for _, name := range handoff.Trials {
			list = append(list, handoff.Check{Name: name, OK: name != fails, Text: "tried " + name})
		}
		return list
	}
	away := errors.New("no route to host")
	for name, test := range map[string]struct {
		all  []tried
		ok   bool
		text string // of "dhcp"
	}{
		"all say so":           {[]tried{{"appliance", checks(""), nil}, {"node-2", checks(""), nil}}, true, "from appliance: tried dhcp; from node-2: tried dhcp"},
		"one finds a fault":    {[]tried{{"appliance", checks(""), nil}, {"node-2", checks("dhcp"), nil}}, false, "from node-2: tried dhcp"},
		"one is away":          {[]tried{{"appliance", nil, away}, {"node-2", checks(""), nil}}, true, "from node-2: tried dhcp"},
		"all are away":         {[]tried{{"appliance", nil, away}, {"node-2", nil, away}}, false, "appliance did not try: no route to host; node-2 did not try: no route to host"},
		"one has fewer trials": {[]tried{{"appliance", checks("")[1:], nil}}, false, "appliance knows no such trial: it is of another release"},
		"nobody":               {nil, false, ""},
	} {
		now := time.Now()
		got := together(test.all, now)
		if len(got) != len(handoff.Trials) {
			t.Fatalf("%s: %d checks", name, len(got))
		}
		for i, c := range got {
			if c.Name != handoff.Trials[i] || !c.At.Equal(now) {
				t.Errorf("%s: %+v", name, c)
			}
			if c.Name == trialDHCP && (c.OK != test.ok || c.Text != test.text) {
				t.Errorf("%s: OK %v, %q", name, c.OK, c.Text)
			}
		}
	}
	// A trial that fails is no other's fault.
	for _, c := range together([]tried{{"node-2", checks("dhcp"), nil}}, time.Now()) {
		if c.OK != (c.Name != trialDHCP) || !strings.Contains(c.Text, "tried "+c.Name) {
			t.Errorf("%+v", c)
		}
	}
}
