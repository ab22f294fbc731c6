package replica

import (
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/state"
)

func TestAwayText(t *testing.T) {
	three := state.Membership{Members: []state.Member{{ID: "a", Voter: true}, {ID: "b", Voter: true}, {ID: "c", Voter: true}}}
	five := state.Membership{Members: append(three.Members, state.Member{ID: "d", Voter: true}, state.Member{ID: "e", Voter: true})}
	for _, c := range []struct {
		m     state.Membership
		names []string
		last  bool
	}{{three, []string{"node-2"}, true}, {five, []string{"node-2"}, false}, {five, []string{"node-2", "node-3"}, true}} {
		text := awayText(c.m, c.names, 3*time.Minute)
		if strings.Contains(text, "No other one may fail.") != c.last || !strings.Contains(text, "rackseed handoff remove node-2") {
			t.Errorf("%v of %d: %s", c.names, len(c.m.Members), text)
		}
	}
}
