package replica

import (
	"slices"
	"testing"

	"github.com/rackseed/rackseed/services/state"
)

func TestAskOrder(t *testing.T) {
	members := []state.Member{{ID: "a", Voter: true}, {ID: "b", Voter: true}, {ID: "c"}}
	for _, c := range []struct {
		name, own, leader string
		want              []string
	}{
		{"the leader last", "c", "a", []string{"b", "a"}},
		{"it leads itself", "a", "a", []string{"b", "c"}},
		{"nobody is known to lead", "b", "", []string{"a", "c"}},
		{"who leads is no member any more", "a", "x", []string{"b", "c"}},
	} {
		if got := askOrder(state.Membership{Members: members, Leader: c.leader}, c.own); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
