package state

import (
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/machine"
)

func tell(id, endpoint string) ReplicaTell {
	return ReplicaTell{ID: id, Name: "appliance", Endpoint: endpoint, Key: bytes32("key of " + id), Release: "v1", Level: 1}
}

func invite(w *world, token string) ReplicaInvite {
	return ReplicaInvite{TokenHash: bytes32(token), Name: "node-" + token, Expires: w.now.Add(time.Hour)}
}

func joinBy(token, id string) ReplicaJoin {
	return ReplicaJoin{TokenHash: bytes32(token), ID: id, Endpoint: "10.77.0.11:8300", Key: bytes32("key of " + id), Release: "v1", Level: 1}
}

func wantText(t *testing.T, got, want string) {
	t.Helper()
	if !strings.Contains(got, want) {
		t.Errorf("%q, wanted %q in it", got, want)
	}
}

func TestFirstReplicaTellsOfItself(t *testing.T) {
	w := newWorld(t)
	wantText(t, w.refused(tell("r-2", "10.77.0.2:8300")), "r-2 was never invited")
	w.must(tell("r-1", "10.77.0.2:8300"))
	w.must(tell("r-1", "10.77.0.3:8300"))
	r, ok := w.view().Replica("r-1")
	if !ok || r.Endpoint != "10.77.0.3:8300" || r.Name != "appliance" || r.Level != 1 {
		t.Errorf("%+v", r)
	}
	for _, bad := range []string{"", "10.77.0.2", "host:8300", "10.77.0.2:", "10.77.0.2:http", strings.Repeat("1", 200) + ":1"} {
		wantText(t, w.refused(tell("r-1", bad)), "an address and a port are expected")
	}
	moved := tell("r-1", "10.77.0.2:8300")
	moved.Machine = machineID(1)
	wantText(t, w.refused(moved), "runs on machine")
}

func TestInvitationIsTakenOnce(t *testing.T) {
	w := newWorld(t)
	w.must(tell("r-1", "10.77.0.2:8300"))
	w.must(invite(w, "a"))
	wantText(t, w.refused(invite(w, "a")), "in use")
	wantText(t, w.refused(joinBy("x", "r-2")), "another cluster")
	wantText(t, w.refused(joinBy("a", "r-1")), "was used before")
	got := w.must(joinBy("a", "r-2"))
	if got.Replica == nil || got.Replica.ID != "r-2" || got.Replica.Name != "node-a" {
		t.Fatalf("%+v", got.Replica)
	}
	// The answer was lost: the same replica asks again, with another made-up ID.
	again := joinBy("a", "r-3")
	again.Key = bytes32("key of r-2")
	if got := w.must(again); got.Replica == nil || got.Replica.ID != "r-2" || len(got.Events) != 0 {
		t.Errorf("asked again: %+v", got)
	}
	wantText(t, w.refused(joinBy("a", "r-3")), "was used already, by r-2")
	if list := w.view().Replicas(); len(list) != 2 {
		t.Errorf("%d replicas", len(list))
	}

	w.must(invite(w, "late"))
	w.now = w.now.Add(time.Hour)
	wantText(t, w.refused(joinBy("late", "r-4")), "expired")
	// The answer was lost, and it was off for a while.
	w.must(invite(w, "prunes what is over"))
	if got := w.must(again); got.Replica == nil || got.Replica.ID != "r-2" {
		t.Errorf("asked again after the invitation's end: %+v", got)
	}
	long := invite(w, "long")
	long.Expires = w.now.Add(2 * time.Hour)
	wantText(t, w.refused(long), "within 1h")
	lost := invite(w, "lost")
	lost.Machine = machineID(7)
	wantText(t, w.refused(lost), "there is no machine")
}

func TestReplicaThatLeftNeverComesBack(t *testing.T) {
	w := newWorld(t)
	w.must(tell("r-1", "10.77.0.2:8300"))
	w.must(invite(w, "a"))
	w.must(joinBy("a", "r-2"))
	proved := w.must(ReplicaProve{ID: "r-2"})
	if r, _ := w.view().Replica("r-2"); r.Proved != proved.Index || r.Proved == 0 {
		t.Errorf("proved at %d, committed at %d", r.Proved, proved.Index)
	}
	w.must(ReplicaProve{ID: "r-2", Undone: true})
	if r, _ := w.view().Replica("r-2"); r.Proved != 0 {
		t.Errorf("proved at %d after that was taken back", r.Proved)
	}
	if left := w.must(ReplicaLeave{ID: "r-2", Reason: "its board burnt"}); len(left.Events) != 1 {
		t.Errorf("%v", left.Events)
	}
	if again := w.must(ReplicaLeave{ID: "r-2", Reason: "again"}); len(again.Events) != 0 {
		t.Errorf("left twice: %v", again.Events)
	}
	wantText(t, w.refused(tell("r-2", "10.77.0.11:8300")), "never comes back")
	wantText(t, w.refused(joinBy("a", "r-2")), "was used already")
	wantText(t, w.refused(ReplicaProve{ID: "r-2"}), "no replica")
	wantText(t, w.refused(ReplicaLeave{ID: "r-9"}), "no replica")
	if list := w.view().Replicas(); len(list) != 1 || list[0].ID != "r-1" {
		t.Errorf("in service: %v", list)
	}
	if r, ok := w.view().Replica("r-2"); !ok || r.InService() || r.Proved != 0 {
		t.Errorf("%+v", r)
	}
}

// A node that carries a replica is not forgotten: its vote may be needed.
func TestCarryingMachineIsNotForgotten(t *testing.T) {
	w := newWorld(t)
	w.waiting(1)
	w.must(tell("r-1", "10.77.0.2:8300"))
	of := invite(w, "a")
	of.Machine = machineID(1)
	w.must(of)
	w.must(joinBy("a", "r-2"))
	wantText(t, w.refused(MachineForget{Machine: machineID(1)}), "rackseed handoff remove node-a")
	w.must(ReplicaLeave{ID: "r-2", Reason: "its board burnt"})
	if left := w.view().LeftReplicas(machineID(1)); len(left) != 1 || left[0] != "r-2" {
		t.Errorf("left: %v", left)
	}
	w.must(MachineForget{Machine: machineID(1)})
}

func TestReplicasAreBounded(t *testing.T) {
	w := newWorld(t)
	w.must(tell("r-1", "10.77.0.2:8300"))
	for n := range machine.MaxReplicas - 1 {
		token := "t" + string(rune('a'+n))
		w.must(invite(w, token))
		w.must(joinBy(token, "r-"+token))
	}
	w.must(invite(w, "one"))
	wantText(t, w.refused(joinBy("one", "r-one")), "which is the most")
	w.must(ReplicaLeave{ID: "r-ta", Reason: "room"})
	w.must(joinBy("one", "r-one"))
	for n := 0; ; n++ {
		_, err := w.try("operator:ann", invite(w, "more"+string(rune('a'+n))))
		if err == nil {
			continue
		}
		wantText(t, err.Error(), "invitations are open, which is the most")
		break
	}
	w.now = w.now.Add(2 * time.Hour)
	w.must(invite(w, "later"))
}

func TestOlderReleaseIsRefused(t *testing.T) {
	w := newWorld(t)
	old := tell("r-1", "10.77.0.2:8300")
	old.Level = 0
	wantText(t, w.refused(old), "feature level 0 is none")
}
