package replica

import (
	"testing"

	"github.com/rackseed/rackseed/services/state"
)

func TestNextRekey(t *testing.T) {
	for name, c := range map[string]struct {
		k           state.Keyring
		has, spread bool
		want        rekeyStep
	}{
		"at the end of a handoff":              {state.Keyring{Current: "a"}, false, false, rekeyMake},
		"another handoff before":               {state.Keyring{Current: "a", For: "h-0"}, false, false, rekeyMake},
		"a key of a leader that died":          {state.Keyring{Current: "a", Next: "b", For: "h-1"}, false, false, rekeyMake},
		"a key that another handoff left over": {state.Keyring{Current: "a", Next: "b", For: "h-0"}, true, true, rekeyMake},
		"on its way":                           {state.Keyring{Current: "a", Next: "b", For: "h-1"}, true, false, rekeySpread},
		"a majority has it":                    {state.Keyring{Current: "a", Next: "b", For: "h-1"}, true, true, rekeyTurn},
		"some sealed under the old one":        {state.Keyring{Current: "b", Old: "a", For: "h-1"}, false, false, rekeyReseal},
		"left over from before":                {state.Keyring{Current: "b", Old: "a", For: "h-0"}, false, false, rekeyReseal},
		"over":                                 {state.Keyring{Current: "b", For: "h-1"}, false, false, rekeyDone},
	} {
		if got := nextRekey(c.k, "h-1", c.has, c.spread); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}
