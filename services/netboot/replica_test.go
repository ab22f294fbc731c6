package netboot

import (
	"slices"
	"testing"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/wire"
)

// carriers is what a replica's order is decided from.
type carriers struct{ replicas []machine.Replica }

func (carriers) Site() (machine.Site, bool)       { return machine.Site{}, true }
func (carriers) Handoff() (machine.Handoff, bool) { return machine.Handoff{}, false }
func (c carriers) Replicas() []machine.Replica    { return c.replicas }
func (c carriers) Replica(id string) (machine.Replica, bool) {
	i := slices.IndexFunc(c.replicas, func(r machine.Replica) bool { return r.ID == id })
	if i < 0 {
		return machine.Replica{}, false
	}
	return c.replicas[i], true
}
func (carriers) Cluster() (state.Cluster, bool)   { return state.Cluster{Generation: 2}, true }
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
		o := replicaOrder(c, machine.Machine{ID: id}, carried{})
		if !o.Run || !o.Joined || o.Image != "rackseed.local/rackseed/service@sha256:"+want.digest || o.Change != want.change {
			t.Errorf("%s: %+v, want %+v", id, o, want)
		}
	}
}

// A replica that joined after the entry that the cluster was recovered from has left; one
// of this generation has not, whoever does not know it.
func TestReplicaOfBeforeARecoveryHasLeft(t *testing.T) {
	c := carriers{[]machine.Replica{{ID: "r-1", Machine: "m-1"}}}
	for has, left := range map[carried]bool{{"r-9", 1}: true, {"r-9", 2}: false, {"r-9", 0}: false, {"r-1", 1}: false, {"", 1}: false} {
		o := replicaOrder(c, machine.Machine{ID: "m-2"}, has)
		if slices.Contains(o.Left, has.id) != left {
			t.Errorf("%+v: %v", has, o.Left)
		}
	}
}

// A node has the site's SSH keys as they are now, and says so to nobody else.
func TestNodeAccess(t *testing.T) {
	l, nodes := startedLab(t)
	site, _ := l.store.View().Site()
	site.SSHKeys = []string{"ssh-ed25519 AAAA ann"}
	l.propose(t, state.SiteApply{Site: site})
	l.want(t, 200, `{"sshKeys":["ssh-ed25519 AAAA ann"]}`, nodes["node-4"], "GET", wire.PathNodeAccess, nil)
	site.SSHKeys = nil
	l.propose(t, state.SiteApply{Site: site})
	l.want(t, 200, `{"sshKeys":[]}`, nodes["node-4"], "GET", wire.PathNodeAccess, nil)
	l.want(t, 403, "no machine's", l.keys(t).sign, "GET", wire.PathNodeAccess, nil)
}
