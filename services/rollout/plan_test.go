package rollout

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/statetest"
)

// A replica that was told to go back from the image is not done with it: trying again is
// no rollout of nothing.
func TestPlanAgain(t *testing.T) {
	s := statetest.Open(t)
	s.Begin(make([]byte, 32), statetest.Site())
	id := s.Waiting(1)
	older, newer := "sha256:"+strings.Repeat("a", 64), "sha256:"+strings.Repeat("b", 64)
	key := bytes.Repeat([]byte{2}, 32)
	s.Must(state.ReplicaTell{ID: "replica-1", Name: "appliance", Endpoint: "192.0.2.2:8300", Key: bytes.Repeat([]byte{1}, 32), Release: "v1", Level: 1})
	s.Must(state.ReplicaInvite{TokenHash: key, Name: "node-1", Machine: id, Expires: time.Now().Add(time.Minute)})
	s.Must(state.ReplicaJoin{TokenHash: key, ID: "r-2", Endpoint: "192.0.2.10:8300", Key: key, Release: "v1", Level: 1, Image: older})
	s.Must(state.ImagePublish{Images: []machine.Image{{Ref: state.ServiceRef, Digest: newer}}})
	plan := func() (machine.Rollout, error) { return Plan(s.View(), s.Membership(), "o-1", "operator:ann", "", 0) }
	p, err := plan()
	if err != nil {
		t.Fatal(err)
	}
	s.Must(state.RolloutStart{Rollout: p})
	s.Must(state.RolloutTell{ID: "o-1", Replica: "r-2"})
	s.Must(state.ReplicaTell{ID: "r-2", Name: "node-1", Machine: id, Endpoint: "192.0.2.10:8300", Key: key, Release: "v2", Level: 1, Image: newer})
	s.Must(state.RolloutStop{ID: "o-1", Reason: "it is behind"})
	if _, err := plan(); err != nil {
		t.Errorf("it runs the image, and is told to go back: %v", err)
	}
}
