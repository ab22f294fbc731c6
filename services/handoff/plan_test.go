package handoff

import (
	"cmp"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
)

// rack is a site of a few words: each machine "name role" with what is odd about
// it, each replica where it runs.
type rack struct {
	machines []machine.Machine
	roles    map[machine.ID]machine.Role
	replicas []machine.Replica
}

func (r rack) Machines() []machine.Machine { return r.machines }
func (r rack) Replicas() []machine.Replica { return r.replicas }
func (r rack) Profile(id machine.ID) (machine.Profile, bool) {
	return machine.Profile{Role: r.roles[id]}, r.roles[id] != ""
}

func (r rack) Replica(id string) (machine.Replica, bool) {
	for _, x := range r.replicas {
		if x.ID == id {
			return x, true
		}
	}
	return machine.Replica{}, false
}

// rackOf reads "alpha worker installing, beta control-plane"; the appliance's
// replica is called stick, a node's as its machine with an r before it.
func rackOf(machines, carriers string) rack {
	r := rack{roles: map[machine.ID]machine.Role{}, replicas: []machine.Replica{{ID: "stick", Name: "appliance"}}}
	for _, one := range strings.Split(machines, ", ") {
		words := strings.Fields(one)
		if len(words) == 0 {
			continue
		}
		m := machine.Machine{ID: machine.ID("m-" + words[0]), Name: words[0], Phase: machine.PhaseReady, Address: netip.MustParseAddr("192.0.2.10")}
		r.roles[m.ID] = machine.Role(words[1])
		for _, odd := range words[2:] {
			switch odd {
			case "addressless":
				m.Address = netip.Addr{}
			case "nameless":
				m.Name = ""
			default:
				m.Phase = machine.Phase(odd)
			}
		}
		r.machines = append(r.machines, m)
	}
	for _, name := range strings.Fields(carriers) {
		r.replicas = append(r.replicas, machine.Replica{ID: "r" + name, Name: name, Machine: machine.ID("m-" + name)})
	}
	return r
}

func TestPlan(t *testing.T) {
	const many = "f worker, e worker, d control-plane, c control-plane, b worker, a worker"
	for name, c := range map[string]struct {
		machines, carriers, leader string
		names                      string
		targets, from              string
		refused                    string
	}{
		"three of many, control planes first": {machines: many, targets: "c d a", from: "stick"},
		"three":                               {machines: "a worker, b worker, c control-plane", targets: "c a b", from: "stick"},
		"one where there are two":             {machines: "a worker, b control-plane", targets: "b", from: "stick"},
		"one":                                 {machines: "a control-plane", targets: "a", from: "stick"},
		"what is not Ready is left out":       {machines: many + ", aa control-plane joining, ab control-plane addressless", targets: "c d a", from: "stick"},
		"none is installed":                   {refused: "no node can carry the boot service: no machine is installed yet"},
		"none has a name":                     {machines: "a worker nameless waiting", refused: "no machine is installed yet"},
		"none is Ready":                       {machines: "a worker installing, b worker addressless", refused: "a is installing: its node must be Ready; b has no static address: approve it anew with one"},
		"named":                               {machines: many, names: "f b e", targets: "f b e", from: "stick"},
		"named by ID":                         {machines: many, names: "m-f", targets: "f", from: "stick"},
		"five":                                {machines: many, names: "a b c d e", targets: "a b c d e", from: "stick"},
		"an even number":                      {machines: many, names: "a b", refused: "2 nodes are named, and 1, 3 or 5 are needed"},
		"named and not there":                 {machines: many, names: "a x c", refused: "there is no machine x with a name; machines are listed with: rackseed machines"},
		"named and not Ready":                 {machines: "a worker, b worker joining, c worker", names: "a b c", refused: "b is joining: its node must be Ready"},
		"named and without an address":        {machines: "a worker addressless", names: "a", refused: "a has no static address"},
		"it carries one already":              {machines: many, carriers: "a b c", leader: "ra", names: "a", refused: "a carries a replica already"},
		"the leader is on a node":             {machines: many, carriers: "a b c", leader: "ra", names: "d e", targets: "d e"},
		"on nodes, and nobody was named":      {machines: many, carriers: "a b c", leader: "ra", refused: "the boot service runs on nodes already"},
		// Else the appliance would never be let go.
		"nobody leads just now": {machines: many, leader: "-", names: "a", refused: "no replica leads just now"},
		"it has no endpoint":    {machines: many, leader: "r-9", refused: "that takes a site file with a link that carries the service address"},
	} {
		t.Run(name, func(t *testing.T) {
			h, err := Plan(rackOf(c.machines, c.carriers), "h-1", strings.Trim(cmp.Or(c.leader, "stick"), "-"), "operator:ann", strings.Fields(c.names))
			if c.refused != "" {
				var refusal *state.Refusal
				if !errors.As(err, &refusal) || !strings.HasPrefix(err.Error(), "handoff: ") || !strings.Contains(err.Error(), c.refused) {
					t.Errorf("%v, want %q", err, c.refused)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var targets []string
			for _, x := range h.Targets {
				targets = append(targets, x.Name)
				if x.Machine != machine.ID("m-"+x.Name) {
					t.Errorf("%s is machine %s", x.Name, x.Machine)
				}
			}
			if got := strings.Join(targets, " "); got != c.targets || h.From != c.from || h.ID != "h-1" || h.By != "operator:ann" {
				t.Errorf("to %s from %q: %+v; want to %s from %q", got, h.From, h, c.targets, c.from)
			}
		})
	}
}

// What is said of an action has every kind, and calls things by what people call
// them.
func TestActionsInWords(t *testing.T) {
	h := machine.Handoff{From: "r-1", Targets: []machine.HandoffTarget{{Machine: "m-1", Name: "node-1"}}}
	for _, k := range []ActionKind{Deploy, Add, Promote, Demote, Remove, Transfer, Seal, Leave, Backup, Try} {
		for _, c := range []struct {
			action Action
			name   string
		}{{Action{k, "r-2", "m-1"}, "node-1"}, {Action{k, "r-1", ""}, "the appliance"}} {
			said := map[string]string{"aim": c.action.aim(h)}
			if k.Moves() {
				said["words"] = c.action.words(h)
			}
			for what, text := range said {
				if k.Moves() && !strings.Contains(text, c.name) || strings.Contains(text, "%!") || text == "" || strings.Contains(text, "r-") {
					t.Errorf("%s of %+v: %q", what, c.action, text)
				}
			}
		}
	}
}

func TestRemovable(t *testing.T) {
	v := removing{list: []machine.Replica{{ID: "r-1", Name: "node-1"}, {ID: "r-2", Name: "node-2"}}}
	for name, want := range map[string]string{"node-2": "", "r-2": "", "node-1": "replica node-1 leads", "node-9": "there are node-1, node-2"} {
		got, err := Removable(v, "r-1", name)
		if want == "" && (err != nil || got.ID != "r-2") || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, %v", name, got.ID, err)
		}
	}
	v.plan = &machine.Handoff{Step: machine.HandoffWatching}
	if _, err := Removable(v, "r-1", "node-2"); err == nil || !strings.Contains(err.Error(), "under way") {
		t.Errorf("while a plan is under way: %v", err)
	}
}

// removing is replicas and a plan.
type removing struct {
	list []machine.Replica
	plan *machine.Handoff
}

func (r removing) Replicas() []machine.Replica { return r.list }

func (r removing) Handoff() (machine.Handoff, bool) {
	if r.plan == nil {
		return machine.Handoff{}, false
	}
	return *r.plan, true
}

func TestCandidates(t *testing.T) {
	var got []string
	for _, c := range Candidates(rackOf("d worker, c control-plane installing, b control-plane, a worker, e worker nameless, f worker addressless, g control-plane", "g"), "rg") {
		got = append(got, c.Machine.Name+strings.TrimPrefix(c.Why, c.Machine.Name))
	}
	want := "b a d c is installing: its node must be Ready g carries a replica already f has no static address: approve it anew with one"
	if strings.Join(got, " ") != want {
		t.Errorf("%s\nwant %s", strings.Join(got, " "), want)
	}
}

func TestChoices(t *testing.T) {
	for _, c := range []struct {
		nodes, there int
		refused      bool
		text         string
	}{
		{0, 0, true, "no node is chosen"},
		{1, 0, false, "one node alone carries the boot service then: while it is away, no machine is served"},
		{2, 0, true, "2 nodes are named, and 1, 3 or 5 are needed"},
		{3, 0, false, "three nodes carry the boot service then: one may fail"},
		{4, 0, true, "4 nodes are named"},
		{5, 0, false, "five nodes carry the boot service then: two may fail"},
		{1, 1, false, "two nodes carry the boot service then, and both are needed"},
		{2, 1, false, "three nodes carry the boot service then: one may fail"},
		{1, 3, false, "four nodes carry the boot service then: one may fail, as of three"},
	} {
		if got := Choose(c.nodes, c.there); got.Refused != c.refused || got.Nodes != c.nodes || !strings.HasPrefix(got.Text, c.text) {
			t.Errorf("%d besides %d: %+v, want %+v", c.nodes, c.there, got, c)
		}
	}
	if got := Choices(7); len(got) != 2 {
		t.Errorf("besides 7: %+v", got)
	}
}
