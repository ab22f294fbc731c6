package replica

import (
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/rackseed/rackseed/services/peer"
	"github.com/rackseed/rackseed/services/state"
)

func TestJudge(t *testing.T) {
	own := ownLog{id: "replica-0", last: 100, configured: 80, epoch: 3}
	away := errors.New("no route to host")
	removed := &net.OpError{Op: "remote error", Err: errors.New("tls: bad certificate")}
	next := &peer.OtherGenerationError{There: peer.Name{Cluster: "c-1", Generation: 2, ID: "replica-9"}, Own: peer.Name{Cluster: "c-1", Generation: 1, ID: "replica-0"}}
	earlier := &peer.OtherGenerationError{There: peer.Name{Cluster: "c-1", Generation: 1, ID: "replica-9"}, Own: peer.Name{Cluster: "c-1", Generation: 2, ID: "replica-0"}}
	has := func(name string, s state.Stored) heard { return heard{name: name, named: true, stored: s} }
	for name, c := range map[string]struct {
		others []heard
		want   verdict
		why    string // is in the text
	}{
		"nobody":                         {nil, goesOn, ""},
		"all have less":                  {[]heard{has("node-1", state.Stored{Last: 90, Epoch: 3}), has("node-2", state.Stored{Last: 100, Epoch: 2})}, goesOn, ""},
		"a longer log":                   {[]heard{has("node-1", state.Stored{Last: 101, Epoch: 3})}, wentBack, "node-1 has entry 101 of epoch 3"},
		"a higher epoch":                 {[]heard{has("node-1", state.Stored{Last: 70, Epoch: 4})}, wentBack, "of epoch 4"},
		"a voter":                        {[]heard{has("node-1", state.Stored{Last: 80, Epoch: 3, Voter: true})}, wentBack, "node-1 has a vote"},
		"a voter that has not heard yet": {[]heard{has("node-1", state.Stored{Last: 79, Epoch: 3, Voter: true})}, goesOn, ""},
		"away":                           {[]heard{{name: "node-1", named: true, err: away}}, waits, "node-1: no route to host"},
		"one of two away":                {[]heard{has("node-2", state.Stored{Last: 90}), {name: "node-1", named: true, err: away}}, waits, "node-1"},
		"one away, one has more":         {[]heard{{name: "node-1", named: true, err: away}, has("node-2", state.Stored{Last: 200})}, wentBack, "node-2 has entry 200"},
		"away, and never named":          {[]heard{{name: "node-1", err: away}}, goesOn, ""},
		"removed":                        {[]heard{{name: "node-1", named: true, err: removed}}, wentBack, "node-1 says that this replica was removed"},
		"removed, by one never named":    {[]heard{{name: "node-1", err: removed}}, wentBack, "was removed"},
		"recovered without it":           {[]heard{{name: "node-1", named: true, err: next}}, waits, "generation 2"},
		"recovered, by one never named":  {[]heard{{name: "node-1", err: next}}, waits, "generation 2"},
		"left behind":                    {[]heard{{name: "node-1", named: true, err: earlier}}, goesOn, ""},
	} {
		v, why := judge(own, c.others)
		if v != c.want || !strings.Contains(why, c.why) {
			t.Errorf("%s: %s: %s", name, v, why)
		}
		if v != goesOn && !strings.Contains(why, "rackseed recover") {
			t.Errorf("%s: it says no way out: %s", name, why)
		}
	}
}
