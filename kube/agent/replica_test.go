package agent

import (
	"testing"

	"github.com/rackseed/rackseed/services/wire"
)

func TestNextReplica(t *testing.T) {
	const image = "rackseed.local/rackseed/service@sha256:00"
	for name, test := range map[string]struct {
		order wire.ReplicaOrder
		left  replicaLeft
		want  replicaStep
	}{
		"no plan":                     {wire.ReplicaOrder{}, replicaLeft{}, replicaStays},
		"told to run":                 {wire.ReplicaOrder{Run: true, Image: image}, replicaLeft{}, replicaInvite},
		"invited":                     {wire.ReplicaOrder{Run: true, Image: image}, replicaLeft{Folder: true, Invited: true}, replicaWrite},
		"its invitation is too old":   {wire.ReplicaOrder{Run: true, Image: image}, replicaLeft{Folder: true, Invited: true, Stale: true, Manifest: []byte("new")}, replicaInvite},
		"runs":                        {wire.ReplicaOrder{Run: true, Joined: true, Image: image}, replicaLeft{Folder: true, Invited: true, Manifest: []byte("new")}, replicaStays},
		"a newer image":               {wire.ReplicaOrder{Run: true, Joined: true, Image: image}, replicaLeft{Folder: true, Invited: true, Manifest: []byte("old")}, replicaWrite},
		"its manifest is lost":        {wire.ReplicaOrder{Run: true, Joined: true, Image: image}, replicaLeft{Folder: true, Invited: true}, replicaWrite},
		"its folder is lost":          {wire.ReplicaOrder{Run: true, Joined: true, Image: image}, replicaLeft{}, replicaStays},
		"the image is not there yet":  {wire.ReplicaOrder{Run: true}, replicaLeft{}, replicaStays},
		"given up":                    {wire.ReplicaOrder{}, replicaLeft{Folder: true, Invited: true, Manifest: []byte("new")}, replicaEnd},
		"given up, and ended by then": {wire.ReplicaOrder{}, replicaLeft{Folder: true, Invited: true}, replicaForget},
	} {
		if got := nextReplica(test.order, test.left, []byte("new")); got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}
