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
		"no plan":                       {wire.ReplicaOrder{}, replicaLeft{}, replicaStays},
		"told to run":                   {wire.ReplicaOrder{Run: true, Image: image}, replicaLeft{}, replicaInvite},
		"invited":                       {wire.ReplicaOrder{Run: true, Image: image}, replicaLeft{Folder: true, Invited: true}, replicaWrite},
		"its invitation is too old":     {wire.ReplicaOrder{Run: true, Image: image}, replicaLeft{Folder: true, Invited: true, Stale: true, Manifest: []byte("new")}, replicaInvite},
		"runs":                          {wire.ReplicaOrder{Run: true, Joined: true, Image: image}, replicaLeft{Folder: true, ID: "r-1", Invited: true, Manifest: []byte("new")}, replicaStays},
		"a newer image":                 {wire.ReplicaOrder{Run: true, Joined: true, Image: image}, replicaLeft{Folder: true, ID: "r-1", Invited: true, Manifest: []byte("old")}, replicaStays},
		"it is told to change":          {wire.ReplicaOrder{Run: true, Joined: true, Image: image, Change: true}, replicaLeft{Folder: true, ID: "r-1", Manifest: []byte("old"), Image: "old"}, replicaChange},
		"it has changed":                {wire.ReplicaOrder{Run: true, Joined: true, Image: image, Change: true}, replicaLeft{Folder: true, ID: "r-1", Manifest: []byte("old"), Image: image}, replicaStays},
		"it was refused here":           {wire.ReplicaOrder{Run: true, Joined: true, Image: image, Change: true}, replicaLeft{Folder: true, ID: "r-1", Manifest: []byte("old"), Image: "old", Refused: image}, replicaStays},
		"its manifest is lost":          {wire.ReplicaOrder{Run: true, Joined: true, Image: image}, replicaLeft{Folder: true, ID: "r-1", Invited: true}, replicaWrite},
		"its folder is lost":            {wire.ReplicaOrder{Run: true, Joined: true, Image: image}, replicaLeft{}, replicaStays},
		"the image is not there yet":    {wire.ReplicaOrder{Run: true}, replicaLeft{}, replicaStays},
		"given up before it joined":     {wire.ReplicaOrder{}, replicaLeft{Folder: true, Invited: true, Manifest: []byte("new")}, replicaEnd},
		"and ended by then":             {wire.ReplicaOrder{}, replicaLeft{Folder: true, Invited: true}, replicaForget},
		"given up":                      {wire.ReplicaOrder{Left: []string{"r-1"}}, replicaLeft{Folder: true, ID: "r-1", Manifest: []byte("new")}, replicaEnd},
		"given up, and ended by then":   {wire.ReplicaOrder{Left: []string{"r-1"}}, replicaLeft{Folder: true, ID: "r-1"}, replicaForget},
		"somebody says that it is over": {wire.ReplicaOrder{Reason: "no plan says so"}, replicaLeft{Folder: true, ID: "r-1", Manifest: []byte("new")}, replicaStays},
		"invited again after it left":   {wire.ReplicaOrder{Run: true, Image: image, Left: []string{"r-1"}}, replicaLeft{Folder: true, ID: "r-1", Manifest: []byte("new")}, replicaEnd},
	} {
		if got := nextReplica(test.order, test.left, []byte("new")); got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}
