package state

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/rackseed/rackseed/services/keyring"
	"github.com/rackseed/rackseed/services/machine"
)

func recovery() ClusterRecover {
	return ClusterRecover{Generation: 2, Secrets: map[string]keyring.Sealed{"peer/ca.key": sealed("k-1", "new")}, Replica: "r-9", Name: "node-1", Machine: machineID(1),
		Endpoint: "10.77.0.11:8300", Key: bytes32("key of r-9"), Release: "v1", Level: 1, From: "r-2", Index: 900}
}

// A new generation has one replica; whoever belonged to the old one has left, what
// was under way is over, and nothing may write to a disk by an old order.
func TestClusterRecover(t *testing.T) {
	w := newWorld(t)
	wantText(t, w.refused(recovery()), "no cluster")
	story(w)
	w.must(invite(w, "b"))
	w.must(session("s-2", inventory(2), machineID(2)))
	a := approval(2)
	a.NodeSeed = sealed("k-1", "seed")
	a.Session, a.Profile = "s-2", machine.Profile{Name: "worker", Role: machine.RoleWorker}
	w.must(a)
	w.must(handoff(1))
	w.must(KeyNext{Key: "of-the-lost", For: "h-1"})
	wantText(t, w.refused(recovery()), "led by one that is new and alone")
	w.term++
	w.must(EpochBegin{Leader: "r-9"})
	bad := recovery()
	bad.Generation = 1
	wantText(t, w.refused(bad), "makes a later one, and not 1")
	bad = recovery()
	bad.Secrets = map[string]keyring.Sealed{"pki/ca.key": {}}
	wantText(t, w.refused(bad), "no secret of the replicas' authority")
	before := w.view().LastEvent()
	r := w.must(recovery())
	if len(r.Events) != 2 || r.Events[0].Kind != "cluster.recovered" || r.Events[0].Seq != before+1 || r.Events[1].Kind != "intent.fenced" {
		t.Errorf("events %+v", r.Events)
	}
	v := w.view()
	if c, _ := v.Cluster(); c.Generation != 2 || c.ID != "c-1" {
		t.Errorf("%+v", c)
	}
	if list := v.Replicas(); len(list) != 1 || list[0].ID != "r-9" || list[0].Machine != machineID(1) {
		t.Errorf("in service: %+v", list)
	}
	if left := v.LeftReplicas(machineID(1)); len(left) != 1 || left[0] != "r-2" {
		t.Errorf("left: %v", left)
	}
	if r := first[secretRow](v.t, tableSecrets, byID, key("peer/ca.key")); r == nil || string(r.Sealed.Value) != "new" {
		t.Errorf("the authority's key is %+v", r)
	}
	if k := v.Keyring(); k.Current != "k-1" || k.Next != "" || k.For != "" || k.Mark() == "" {
		t.Errorf("data keys: %+v", k)
	}
	if h, _ := v.Handoff(); h.Step != machine.HandoffAborted || h.Reason == "" {
		t.Errorf("the plan: %+v", h)
	}
	if i, _ := v.Intent("i-2"); i.Status != machine.IntentFailed || w.machine(machineID(2)).Phase != machine.PhaseFailed {
		t.Errorf("the open install: %+v", i)
	}
	if _, _, ok := v.Invited(bytes32("b")); ok {
		t.Error("an invitation of the old generation stays")
	}
	wantText(t, w.refused(tell("r-2", "10.77.0.11:8300")), "never comes back under this ID")
	wantText(t, w.refused(recovery()), "makes a later one")
}

// What a state held goes on in a new folder, under a new ID and with later entries.
func TestSeed(t *testing.T) {
	ctx := within(t)
	old := filepath.Join(t.TempDir(), "state")
	s := open(t, Config{Dir: old, ID: "r-1"})
	for range 20 {
		if _, err := s.Propose(ctx, "test", note("before")); err != nil {
			t.Fatal(err)
		}
	}
	var backup bytes.Buffer
	exported, err := s.Export(&backup)
	if err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	for _, from := range []string{"folder", "backup"} {
		p, err := ReadPast(Config{Dir: old, ID: "r-1"})
		if from == "backup" {
			if err := p.Close(); err != nil {
				t.Fatal(err)
			}
			p, err = ReadBackup(bytes.NewReader(backup.Bytes()))
		}
		if err != nil || p.Last != exported || p.Term == 0 {
			t.Fatalf("%s: %+v, %v", from, p, err)
		}
		c := Config{Dir: filepath.Join(t.TempDir(), "state"), ID: "r-2"}
		if err := Seed(c, p); err != nil {
			t.Fatal(err)
		}
		if err := Seed(c, p); err == nil {
			t.Error("a folder was made twice")
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		for range 2 { // and after a restart
			s := open(t, c)
			r, err := s.Propose(ctx, "test", note("after"))
			if err != nil || r.Index <= exported {
				t.Fatalf("%s: entry %d, %v", from, r.Index, err)
			}
			if events := s.View().Events(0, "", 0); events[len(events)-1].Seq != uint64(len(events)) || events[20].Text != "before" {
				t.Errorf("%s: events %+v", from, events)
			}
			closeStore(t, s)
		}
	}
}
