package replica

import (
	"bytes"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/statetest"
)

// A replica that was invited joins while a plan wants it, and not before or after.
func TestJoinsWhileAPlanWantsIt(t *testing.T) {
	s := statetest.Open(t)
	s.Begin(make([]byte, 32), statetest.Site())
	s.Must(state.ReplicaTell{ID: "replica-1", Name: "appliance", Endpoint: "192.0.2.2:8300", Key: make([]byte, 32), Release: "v1", Level: 1})
	id, other := s.Waiting(1), s.Waiting(2)
	m, _ := s.View().Machine(id)
	key, seed := statetest.Node(id, bytes.Repeat([]byte{7}, 32))
	s.Must(state.MachineApprove{
		Machine: id, Session: m.Session.ID, Intent: "i-1", Name: "node-1", Profile: machine.Profile{Name: "worker", Role: machine.RoleWorker},
		Address: netip.MustParseAddr("192.0.2.11"), Image: "sha256:" + strings.Repeat("0", 64), NodeKey: key, NodeSeed: seed,
	})
	r := &replica{Config: Config{Logger: slog.New(slog.DiscardHandler)}}
	r.store.Store(s.Store)
	r.meet()
	defer r.network.Close()
	may := func(want bool, of machine.ID, when string) {
		t.Helper()
		if err := r.answers.Expects(of); (err == nil) != want {
			t.Errorf("%s: %v", when, err)
		}
	}
	may(false, id, "without a plan")
	s.Must(state.HandoffStart{Handoff: machine.Handoff{ID: "h-1", From: "replica-1", By: "operator:ann", Targets: []machine.HandoffTarget{{Machine: id}}}})
	may(false, id, "before it is deployed")
	s.Must(state.HandoffMove{ID: "h-1", From: machine.HandoffPreflight, To: machine.HandoffDeploying})
	may(true, id, "while it is deployed")
	may(false, other, "another machine's")
	s.Must(state.HandoffMove{ID: "h-1", From: machine.HandoffDeploying, To: machine.HandoffAborting, Reason: "so"})
	may(false, id, "while it is given up")
	s.Must(state.HandoffMove{ID: "h-1", From: machine.HandoffAborting, To: machine.HandoffAborted})
	may(false, id, "once it was given up")
}
