package agent

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rackseed/rackseed/kube/config"
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

// A new replica has the blobs of the one that left, and nothing else of it.
func TestBlobsStay(t *testing.T) {
	h := host{t.TempDir()}
	folder := h.path(config.ServiceFolder)
	for _, id := range []string{"r-1", "r-2"} {
		if err := h.replicaFolder(); err != nil {
			t.Fatal(err)
		}
		if list, err := filepath.Glob(folder + "/*"); id == "r-2" && (err != nil || len(list) != 1) {
			t.Errorf("it begins with %v, %v", list, err)
		}
		blob := filepath.Join(folder, "blobs/sha256/00")
		if _, err := os.Stat(blob); id == "r-2" && err != nil {
			t.Error(err)
		}
		for _, p := range []string{blob, filepath.Join(folder, "identity/replica.json")} {
			if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(p, []byte(id), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := h.setReplicaAside(id); err != nil {
			t.Fatal(err)
		}
		if h.exists(config.ServiceFolder) || !h.exists(serviceLeft+"/identity/replica.json") {
			t.Errorf("the folder of %s was not set aside", id)
		}
	}
}
