package api

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/wire"
)

func TestAbandon(t *testing.T) {
	keys := map[string][]byte{"pki/ca.key": []byte("a new key")}
	var broken error
	r := newRig(t, func(c *Config) {
		c.NewPKI = func(time.Time) (map[string][]byte, error) { return keys, broken }
	})
	auth := bearer(siteToken)
	refused := func(body, want string) {
		t.Helper()
		if a := r.want(409, "POST", "/api/cluster/abandon", body, auth); !strings.Contains(a.detail(), want) {
			t.Errorf("%s: %s, want %q", body, a.detail(), want)
		}
	}
	good := `{"reason":"its board is dead","confirm":"alpha"}`
	refused(good, "nothing was begun")
	r.Image()
	id := r.Waiting(1)
	r.want(200, "POST", "/api/machines/"+string(id)+"/approve", `{"name":"alpha"}`, auth)
	refused(good, "alpha may not start the cluster yet")
	r.Installed(id)
	r.Must(state.BootstrapClaim{Machine: id})
	refused(`{"reason":"x","confirm":"beta"}`, `is called "alpha"`)
	r.want(422, "POST", "/api/cluster/abandon", `{"reason":"","confirm":"alpha"}`, auth)
	broken = errors.New("no randomness")
	r.want(500, "POST", "/api/cluster/abandon", good, auth)
	broken = nil

	c := decode[ClusterStart](t, r.want(200, "POST", "/api/cluster/abandon", good, auth).body)
	if c.Bootstrap != nil || !strings.Contains(c.NoKubeconfig, "taken back from "+string(id)+" (abandoned: its board is dead)") {
		t.Errorf("abandoned: %+v", c)
	}
	if key, _ := r.View().Secret("pki/ca.key"); string(key) != "a new key" {
		t.Errorf("the cluster's key is still %q", key)
	}
	r.want(404, "GET", "/api/machines/alpha", "", auth)
	events := r.View().Events(0, "", 0)
	if e := events[len(events)-1]; e.Kind != "bootstrap.abandoned" || !strings.Contains(e.Text, "its board is dead") || !strings.Contains(e.Text, "ann") {
		t.Errorf("the last event is %+v", e)
	}
}

// A cluster that was started is given up only by its name: whoever does reads how
// many nodes that leaves behind.
func TestAbandonOfWhatIsStarted(t *testing.T) {
	r := newRig(t, func(c *Config) {
		c.NewPKI = func(time.Time) (map[string][]byte, error) { return map[string][]byte{"pki/ca.key": []byte("new")}, nil }
	})
	auth := bearer(siteToken)
	r.Image()
	first, second := r.Waiting(1), r.Waiting(2)
	r.want(200, "POST", "/api/machines/"+string(first)+"/approve", `{"name":"alpha"}`, auth)
	r.Installed(first)
	r.Must(state.BootstrapClaim{Machine: first})
	if c := decode[ClusterStart](t, r.want(200, "GET", "/api/cluster", "", auth).body); c.Orphans != nil {
		t.Errorf("not started: %+v", c.Orphans)
	}
	r.Node(first, 1, wire.NodeReady)
	r.want(200, "POST", "/api/machines/"+string(second)+"/approve", `{"profile":"worker"}`, auth)
	r.Installed(second)
	if c := decode[ClusterStart](t, r.want(200, "GET", "/api/cluster", "", auth).body); c.Orphans == nil || *c.Orphans != (Orphans{"lab", 1, 2}) {
		t.Errorf("started: %+v", c.Orphans)
	}
	for _, name := range []string{"", "alpha"} {
		a := r.want(409, "POST", "/api/cluster/abandon", `{"reason":"x","confirm":"alpha","cluster":"`+name+`"}`, auth)
		if !strings.Contains(a.detail(), `is called "lab"`) || !strings.Contains(a.detail(), "Ready nodes: 1, installed machines: 2") {
			t.Errorf("by the name %q: %s", name, a.detail())
		}
	}
	r.want(200, "POST", "/api/cluster/abandon", `{"reason":"x","confirm":"alpha","cluster":"lab"}`, auth)
}

func TestProfiles(t *testing.T) {
	r := newRig(t)
	r.Image()
	auth := bearer(siteToken)
	site, _ := r.View().Site()
	site.Profiles = append(site.Profiles,
		machine.Profile{Name: "storage", Role: machine.RoleWorker, Selector: machine.Selector{MinMemory: 64 << 30}},
		machine.Profile{Name: "big", Role: machine.RoleWorker, Selector: machine.Selector{MinMemory: 32 << 30}},
		machine.Profile{Name: "named", Role: machine.RoleWorker})
	large := func(i *machine.Inventory) { i.MemoryBytes = 128 << 30 }
	r.Waiting(1, large)
	r.Waiting(2, large)
	r.Waiting(3, large)
	r.Waiting(4)
	site.Machines = []machine.ListedMachine{{MAC: "52:54:00:00:00:03", Profile: "named"}}
	r.Must(state.SiteApply{Site: site})
	r.want(200, "POST", "/api/machines/m-00000001/approve", `{"name":"alpha","profile":"big"}`, auth)

	got := map[string]string{}
	for _, p := range decode[List[ProfileUse]](t, r.want(200, "GET", "/api/profiles", "", auth).body).Items {
		words := []string{}
		for _, m := range p.Machines {
			words = append(words, "has "+m.Name)
		}
		for _, m := range p.Matches {
			words = append(words, "gets "+string(m.ID))
		}
		got[p.Name] = strings.Join(words, ", ")
	}
	// Nobody starts the cluster yet: alpha is no control plane.
	want := map[string]string{"control-plane": "gets m-00000004", "worker": "", "storage": "gets m-00000002", "big": "has alpha", "named": "gets m-00000003"}
	if a, b := marshal(t, got), marshal(t, want); a != b {
		t.Errorf("profiles and their machines:\n%s, want\n%s", a, b)
	}
}

func marshal(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
