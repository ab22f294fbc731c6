package netboot

import (
	"testing"

	"github.com/rackseed/rackseed/services/machine"
)

// carriers is what a replica's order is decided from.
type carriers struct{ replicas []machine.Replica }

func (carriers) Site() (machine.Site, bool)       { return machine.Site{}, true }
func (carriers) Handoff() (machine.Handoff, bool) { return machine.Handoff{}, false }
func (c carriers) Replicas() []machine.Replica    { return c.replicas }
func (carriers) LeftReplicas(machine.ID) []string { return nil }
func (carriers) Image(ref string) (machine.Image, bool) {
	return machine.Image{Ref: ref, Digest: "sha256:published"}, true
}

// A newer image is published, and only the node whose turn it is is told to change.
func TestReplicaOrderNamesTheNodesOwnImage(t *testing.T) {
	c := carriers{[]machine.Replica{
		{ID: "r-1", Machine: "m-1", Image: "sha256:old", Ordered: "sha256:old"},
		{ID: "r-2", Machine: "m-2", Image: "sha256:old", Ordered: "sha256:new"},
		{ID: "r-3", Machine: "m-3"}, // it tells none
	}}
	for id, want := range map[machine.ID]struct {
		digest string
		change bool
	}{"m-1": {"old", true}, "m-2": {"new", true}, "m-3": {"published", false}} {
		o := replicaOrder(c, machine.Machine{ID: id})
		if !o.Run || !o.Joined || o.Image != "rackseed.local/rackseed/service@sha256:"+want.digest || o.Change != want.change {
			t.Errorf("%s: %+v, want %+v", id, o, want)
		}
	}
}
