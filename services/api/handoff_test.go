package api

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/handoff"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/wire"
)

// appliance tells of the one replica that there is at first, which leads.
func (r *rig) appliance() {
	r.t.Helper()
	r.Must(state.ReplicaTell{ID: "replica-1", Name: "appliance", Endpoint: "192.0.2.2:8300", Key: bytes.Repeat([]byte{1}, 32), Release: "v1", Level: 1})
}

// node has machine n become a Ready node of that name.
func (r *rig) node(n int, name string) machine.ID {
	r.t.Helper()
	id := r.Waiting(n)
	r.want(200, "POST", "/api/machines/"+string(id)+"/approve", fmt.Sprintf(`{"name":%q}`, name), bearer(siteToken))
	r.Installed(id)
	if n == 1 {
		r.Started(id)
	}
	r.Node(id, 2, wire.NodeReady)
	return id
}

// carries has a replica join on a node.
func (r *rig) carries(id, name string, m machine.ID) {
	r.t.Helper()
	token := sha256.Sum256([]byte(id))
	r.Must(state.ReplicaInvite{TokenHash: token[:], Name: name, Machine: m, Expires: time.Now().Add(time.Minute)})
	r.Must(state.ReplicaJoin{TokenHash: token[:], ID: id, Endpoint: "192.0.2.10:8300", Key: bytes.Repeat([]byte{2}, 32), Release: "v1", Level: 1})
}

func newMovingRig(t *testing.T) *rig {
	r := newRig(t)
	r.appliance()
	r.Image()
	return r
}

func TestHandoffIsOrdered(t *testing.T) {
	r := newMovingRig(t)
	auth := bearer(siteToken)
	get := func() Handoff {
		t.Helper()
		return decode[Handoff](t, r.want(200, "GET", "/api/handoff", "", auth).body)
	}
	post := func(action, body string) Handoff {
		t.Helper()
		return decode[Handoff](t, r.want(200, "POST", "/api/handoff/"+action, body, auth).body)
	}
	refused := func(action, body, want string) {
		t.Helper()
		if a := r.want(409, "POST", "/api/handoff/"+action, body, auth); !strings.Contains(a.detail(), want) {
			t.Errorf("%s %s: %q, want %q", action, body, a.detail(), want)
		}
	}
	// move goes on with the plan as its loop would.
	move := func(to machine.HandoffStep, reason string) {
		t.Helper()
		h, _ := r.View().Handoff()
		r.Must(state.HandoffMove{ID: h.ID, From: h.Step, To: to, Reason: reason})
	}

	h := get()
	if h.Ready || h.Reason != "no node can carry the boot service: no machine is installed yet" || h.Plan != nil || h.SafeToUnplug || len(h.Targets) != 0 {
		t.Errorf("with no machine: %+v", h)
	}
	if len(h.Replicas) != 1 || !h.Replicas[0].Leads || !h.Replicas[0].Voter || !h.Replicas[0].Member || h.Replicas[0].Name != "appliance" {
		t.Errorf("replicas: %+v", h.Replicas)
	}
	refused("start", "", "no node can carry the boot service: no machine is installed yet")
	for _, action := range []string{"abort", "lost", "resume"} {
		refused(action, "", "no handoff is under way")
	}

	site, _ := r.View().Site()
	site.Handoff = machine.HandoffAuto
	r.Must(state.SiteApply{Site: site})
	if h := get(); h.Auto != "it never starts by itself, since the site file lists no machine: start it with rackseed handoff start" {
		t.Errorf("handoff: auto, and no machine is listed: %q", h.Auto)
	}
	r.node(1, "alpha")
	second := r.Waiting(2)
	r.want(200, "POST", "/api/machines/"+string(second)+"/approve", `{"name":"beta"}`, auth)
	refused("start", `{"nodes":["beta"]}`, "beta is approved: its node must be Ready")
	refused("start", `{"nodes":["gamma"]}`, "there is no machine gamma")
	refused("start", `{"nodes":["alpha","alpha"]}`, "2 nodes are named")
	refused("start", `{"nodes":["alpha","alpha","alpha"]}`, "is named twice")
	r.want(422, "POST", "/api/handoff/start", `{"nodes":["a","b","c","d","e","f"]}`, auth)
	if h := get(); !h.Ready || h.Reason != "" || !slices.Equal(h.Targets, []string{"alpha"}) {
		t.Errorf("with one Ready node: %+v", h)
	}

	h = post("start", "")
	if p := h.Plan; p == nil || p.Step != machine.HandoffPreflight || p.Over || p.Known || p.By != "operator:ann" || p.From != "replica-1" ||
		len(p.Targets) != 1 || p.Targets[0].Name != "alpha" || !slices.Equal(p.Actions, []HandoffAction{HandoffAbort}) || p.Text == "" {
		t.Errorf("started: %+v", p)
	}
	if h.Ready || h.Reason != "one is under way" || h.SafeToUnplug {
		t.Errorf("under way: %+v", h)
	}
	refused("start", "", "a handoff is under way (preflight)")
	refused("lost", "", "the appliance leads, so it is not destroyed")
	refused("resume", "", "only one that is being given up")
	// Nothing new is installed meanwhile.
	third := r.Waiting(3)
	if a := r.want(409, "POST", "/api/machines/"+string(third)+"/approve", `{"name":"gamma"}`, auth); !strings.Contains(a.detail(), "the boot service is moving into the cluster") {
		t.Errorf("approved meanwhile: %s", a.detail())
	}

	if p := post("abort", "").Plan; p.Step != machine.HandoffAborting || p.Reason != "an operator gave it up" || len(p.Actions) != 0 {
		t.Errorf("given up: %+v", p)
	}
	refused("abort", "", "it is aborting, and only goes on")
	refused("resume", "", "the appliance leads again")
	move(machine.HandoffAborted, "")
	if h := get(); !h.Plan.Over || !h.Ready || h.Plan.Reason != "an operator gave it up" || len(h.Plan.Actions) != 0 {
		t.Errorf("it was given up: %+v %+v", h, h.Plan)
	}
	refused("abort", "", "no handoff is under way")

	post("start", `{"nodes":["alpha"]}`)
	for _, to := range []machine.HandoffStep{machine.HandoffDeploying, machine.HandoffCatchingUp, machine.HandoffPromoting, machine.HandoffTransferring, machine.HandoffWatching, machine.HandoffSealing} {
		move(to, "")
	}
	if p := get().Plan; len(p.Actions) != 0 { // the appliance leads still
		t.Errorf("sealing: %+v", p)
	}
	refused("abort", "", "it is sealing, and only goes on")
	r.Led("r-2")
	if p := get().Plan; !slices.Equal(p.Actions, []HandoffAction{HandoffLost}) {
		t.Errorf("sealing, and a node leads: %+v", p)
	}
	if p := post("lost", "").Plan; !p.Lost || len(p.Actions) != 0 {
		t.Errorf("lost: %+v", p)
	}
	events := r.View().Events(0, "", 0)
	if e := events[len(events)-1]; e.Kind != "handoff.lost" || !strings.Contains(e.Text, "ann") {
		t.Errorf("the last event is %+v", e)
	}
	move(machine.HandoffDone, "")
	if h := get(); !h.Plan.Over || h.SafeToUnplug { // the appliance's replica is still there
		t.Errorf("done: %+v", h)
	}
}

// TestHandoffOf: who does not lead, or has not looked since, says nothing of what
// is waited for.
func TestHandoffOf(t *testing.T) {
	r := newMovingRig(t)
	alpha := r.node(1, "alpha")
	r.carries("r-2", "alpha", alpha)
	members := state.Membership{Members: []state.Member{{ID: "replica-1", Voter: true}, {ID: "r-2"}}, Leader: "replica-1", Leads: true}
	r.want(200, "POST", "/api/handoff/start", "", bearer(siteToken))
	plan, _ := r.View().Handoff()
	looked := handoff.Status{
		Handoff: plan, Doing: "giving alpha a vote", Failed: "giving alpha a vote: it is away", Gates: []handoff.Gate{{Name: "alpha log", Text: "9 entries behind"}},
		Replicas: []handoff.Seen{{ID: "r-2", Reachable: true, Stored: state.Stored{Applied: r.View().Index() - 9}, MissingBytes: 3 << 20}},
	}
	for name, c := range map[string]struct {
		change func(m *state.Membership, s *handoff.Status)
		known  bool
	}{
		"the leader":              {func(*state.Membership, *handoff.Status) {}, true},
		"another leads":           {func(m *state.Membership, _ *handoff.Status) { m.Leader, m.Leads = "r-2", false }, false},
		"no look at this step":    {func(_ *state.Membership, s *handoff.Status) { s.Handoff.Step = machine.HandoffDeploying }, false},
		"no look at this handoff": {func(_ *state.Membership, s *handoff.Status) { s.Handoff.ID = "h-0" }, false},
		"no look yet":             {func(_ *state.Membership, s *handoff.Status) { *s = handoff.Status{} }, false},
	} {
		t.Run(name, func(t *testing.T) {
			m, s := members, looked
			c.change(&m, &s)
			got := HandoffOf(r.View(), m, s)
			if len(got.Replicas) != 2 {
				t.Fatalf("replicas: %+v", got.Replicas)
			}
			one := got.Replicas[0] // by name
			if one.ID != "r-2" || one.Machine != alpha || one.Voter || !one.Member || one.Leads != (m.Leader == "r-2") {
				t.Errorf("alpha's replica: %+v", one)
			}
			if got.Plan.Known != c.known || one.Seen != c.known || (len(got.Plan.Gates) == 1) != c.known || (got.Plan.Doing != "") != c.known || (got.Plan.Failed != "") != c.known {
				t.Errorf("known %v: %+v, %+v", c.known, got.Plan, one)
			}
			if c.known && (one.Behind != 9 || one.Missing != 3<<20 || !one.Reachable || got.Replicas[1].Seen) {
				t.Errorf("as seen: %+v", got.Replicas)
			}
		})
	}

	if got := HandoffOf(r.View(), members, looked); len(got.Nodes) != 1 || got.Nodes[0].Name != "alpha" || got.Nodes[0].Why != "" || len(got.Choices) != machine.MaxTargets ||
		got.Choices[0].Refused || !got.Choices[1].Refused || got.Auto != "" {
		t.Errorf("nodes %+v, choices %+v, by itself %q", got.Nodes, got.Choices, got.Auto)
	}

	// Over, nothing is waited for, and what was seen is old.
	move := func(steps ...machine.HandoffStep) {
		for _, to := range steps {
			h, _ := r.View().Handoff()
			r.Must(state.HandoffMove{ID: h.ID, From: h.Step, To: to})
		}
	}
	move(machine.HandoffDeploying, machine.HandoffCatchingUp, machine.HandoffPromoting, machine.HandoffTransferring, machine.HandoffWatching, machine.HandoffSealing)
	r.Must(state.ReplicaLeave{ID: "replica-1", Reason: "the handoff"})
	members = state.Membership{Members: []state.Member{{ID: "r-2", Voter: true}}, Leader: "r-2", Leads: true}
	if got := HandoffOf(r.View(), members, handoff.Status{}); got.SafeToUnplug {
		t.Error("it is sealing, and safe to unplug")
	}
	move(machine.HandoffDone)
	looked.Handoff, _ = r.View().Handoff()
	got := HandoffOf(r.View(), members, looked)
	if !got.SafeToUnplug || got.Plan.Known || got.Replicas[0].Seen || got.Plan.Text != "the boot service has moved" || got.Ready ||
		!strings.HasPrefix(got.Reason, "the boot service runs on nodes already") {
		t.Errorf("done: %+v, %+v", got, got.Plan)
	}
}

func TestHandoffSteps(t *testing.T) {
	for step, want := range map[machine.HandoffStep]string{
		machine.HandoffPreflight: "abort lost", machine.HandoffWatching: "abort lost", machine.HandoffSealing: "lost",
		machine.HandoffAborting: "lost resume", machine.HandoffDone: "", machine.HandoffAborted: "",
	} {
		var got []string
		for _, a := range handoffActions(machine.Handoff{Step: step, From: "r-1"}, "r-2") {
			got = append(got, string(a))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %v, want %q", step, got, want)
		}
		if (machine.Handoff{Step: step, From: "r-1"}).Words() == "" {
			t.Errorf("%s has no words", step)
		}
	}
	// Nobody is declared destroyed who leads, or twice, or who does not leave; nothing
	// is given up then.
	for what, h := range map[string]machine.Handoff{
		"who leads": {Step: machine.HandoffSealing, From: "r-2"}, "twice": {Step: machine.HandoffWatching, From: "r-1", Lost: true},
		"nobody": {Step: machine.HandoffSealing},
	} {
		if got := handoffActions(h, "r-2"); len(got) != 0 {
			t.Errorf("%s: %v", what, got)
		}
	}
	// Nobody leaves: nothing is said of an appliance.
	for _, step := range []machine.HandoffStep{machine.HandoffDone, machine.HandoffAborting} {
		if text := (machine.Handoff{Step: step}).Words(); text == "" || strings.Contains(text, "appliance") || strings.Contains(text, "moved") {
			t.Errorf("%s where nobody leaves: %q", step, text)
		}
	}
}
