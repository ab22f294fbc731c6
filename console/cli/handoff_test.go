package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/console/client"
	"github.com/rackseed/rackseed/services/api"
	"github.com/rackseed/rackseed/services/handoff"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/wire"
)

// newMovingRig is a rig whose boot service runs on the appliance, with one Ready
// node.
func newMovingRig(t *testing.T) *rig {
	usual := pollPause
	pollPause = 10 * time.Millisecond
	t.Cleanup(func() { pollPause = usual })
	r := newRig(t)
	r.setup()
	r.Must(state.ReplicaTell{ID: "replica-1", Name: "appliance", Endpoint: "192.0.2.2:8300", Key: bytes.Repeat([]byte{1}, 32), Release: "v1", Level: 1, Protector: "plaintext"})
	return r
}

// alpha makes the one Ready node.
func (r *rig) alpha() {
	r.t.Helper()
	id := r.Waiting(1)
	r.must("", "approve", string(id), "--name", "alpha")
	r.Installed(id)
	r.Started(id)
	r.Node(id, 2, wire.NodeReady)
}

// move goes on with a handoff as its loop would, which sees gates then.
func (r *rig) move(to machine.HandoffStep, reason string, gates ...handoff.Gate) {
	r.t.Helper()
	h, _ := r.View().Handoff()
	if h.Step != to {
		r.Must(state.HandoffMove{ID: h.ID, From: h.Step, To: to, Reason: reason})
		h, _ = r.View().Handoff()
	}
	r.moving.Store(&handoff.Status{Handoff: h, Gates: gates})
}

func TestHandoff(t *testing.T) {
	r := newMovingRig(t)
	const none = `
REPLICA    ROLE          ENDPOINT        SECRETS                    BEHIND  TO COPY
appliance  leads, voter  192.0.2.2:8300  not protected (plaintext)  -       -

Recovery key  none was made: rackseed recovery-key
Handoff       cannot be started: no node can carry the boot service: no machine is installed yet
`
	r.prints(none, "handoff")
	r.prints(none, "handoff", "status")
	r.fails("no handoff can be started: no node can carry the boot service", "yes\n", "handoff", "start")
	r.fails("no handoff is under way, and there was none", "", "handoff", "status", "-f")
	for _, command := range []string{"abort", "lost", "resume"} {
		r.fails("no handoff is under way", "", "handoff", command, map[string]string{"resume": "--yes", "lost": "--confirm=destroyed", "abort": "--output=text"}[command])
	}
	if got := r.exits("handoff", "move"); got != ExitUsage {
		t.Errorf("a command that there is not ends with %d", got)
	}

	r.alpha()
	r.fails("rackseed handoff start --node alpha --node beta", "", "handoff", "start", "alpha", "beta")
	r.fails("alpha is named twice", "", "handoff", "start", "--yes", "--node", "alpha", "--node", "alpha")
	r.fails("there is no machine beta", "", "handoff", "start", "--yes", "--node", "beta")
	// Elsewhere than at a terminal nothing is asked, and nothing done.
	r.fails("say --yes if that is meant", "yes\n", "handoff", "start")
	shown, err := r.types("no\n", "handoff", "start")
	if err == nil || !strings.Contains(shown, "The boot service moves to alpha.") || !strings.Contains(shown, "One node alone carries the boot service then: while it is away, no machine is served") {
		t.Errorf("answered no: %v\n%s", err, shown)
	}
	if _, ok := r.View().Handoff(); ok {
		t.Fatal("it is started all the same")
	}
	if _, err := r.types("yes\n", "handoff", "start", "--no-wait"); err != nil {
		t.Fatalf("answered yes: %v", err)
	}
	r.prints(`
REPLICA    ROLE          ENDPOINT        SECRETS                    BEHIND  TO COPY
appliance  leads, voter  192.0.2.2:8300  not protected (plaintext)  -       -

Handoff       to alpha, started by ann
Step          preflight: looks whether the nodes are Ready
Since         NOW, NOW
Waits for     not known here yet: the replica that leads says it, at the service address
Possible      rackseed handoff abort
Recovery key  none was made: rackseed recovery-key
`, "handoff")
	r.fails("a handoff is under way (preflight)", "", "handoff", "start", "--yes")
	r.fails("while a node leads and the appliance is to leave", "", "handoff", "lost", "--confirm", "destroyed")

	token := bytes.Repeat([]byte{7}, 32)
	r.Must(state.ReplicaInvite{TokenHash: token, Name: "alpha", Machine: "m-00000001", Expires: time.Now().Add(time.Minute)})
	r.Must(state.ReplicaJoin{TokenHash: token, ID: "r-2", Endpoint: "192.0.2.10:8300", Key: bytes.Repeat([]byte{2}, 32), Release: "v1", Level: 1})
	r.move(machine.HandoffDeploying, "")
	r.move(machine.HandoffCatchingUp, "", handoff.Gate{Name: "alpha", OK: true, Text: "replica r-2 can be reached"}, handoff.Gate{Name: "alpha log", Text: "9 entries behind"})
	now := *r.moving.Load()
	now.Failed, now.Doing = "writing a backup: no space", "giving alpha a vote, with proof"
	now.Replicas = []handoff.Seen{{ID: "r-2", Reachable: true, Stored: state.Stored{Applied: r.View().Index() - 9}, MissingBytes: 300 << 20}, {ID: "replica-1"}}
	r.moving.Store(&now)
	r.prints(`
REPLICA    ROLE                             ENDPOINT         SECRETS                    BEHIND  TO COPY
alpha      joining, no member yet           192.0.2.10:8300  -                          9       300 MiB
appliance  leads, voter, cannot be reached  192.0.2.2:8300   not protected (plaintext)  -       -

Handoff       to alpha, started by ann
Step          catching-up: the replicas fetch the log and the images
Since         NOW, NOW
Now           giving alpha a vote, with proof
Failed        writing a backup: no space; it is tried again
Holds         alpha: replica r-2 can be reached
Waits for     alpha log: 9 entries behind
Possible      rackseed handoff abort
Recovery key  none was made: rackseed recovery-key
`, "handoff", "status")
	r.Must(state.RecoveryPut{Recipient: "age1a", Copy: []byte("copy")})
	if out := r.must("", "handoff"); strings.Contains(out, "Recovery key") {
		t.Errorf("there is a recovery key:\n%s", out)
	}
	var h api.Handoff
	if err := json.Unmarshal([]byte(r.must("", "handoff", "-o", "json")), &h); err != nil || h.Plan.Step != machine.HandoffCatchingUp || len(h.Plan.Gates) != 2 {
		t.Errorf("as JSON: %+v, %v", h, err)
	}
	if out := r.must("", "handoff", "status", "-o", "yaml"); !strings.Contains(out, "step: catching-up") {
		t.Errorf("as YAML:\n%s", out)
	}
	if out := r.must("", "handoff", "status", "-o", "wide"); !strings.Contains(out, "JOINED") || !strings.Contains(out, "replica-1  v1") {
		t.Errorf("wide:\n%s", out)
	}

	r.fails("goes on by itself", "", "handoff", "resume", "--yes")
	r.fails("say --yes if that is meant", "", "handoff", "abort")
	if out := r.must("", "handoff", "abort", "--yes"); !strings.Contains(out, "Reason     an operator gave it up\n") || !strings.Contains(out, "aborting: it is given up") {
		t.Errorf("given up:\n%s", out)
	}
	r.fails("the appliance leads again", "", "handoff", "resume", "--yes")
	r.fails("the appliance leads again", "", "handoff", "resume") // before anything is asked
	r.move(machine.HandoffAborted, "")
	if out := r.must("", "handoff"); !strings.Contains(out, "Reason    an operator gave it up\nPossible  rackseed handoff start: it moves to alpha\n") {
		t.Errorf("it was given up:\n%s", out)
	}
	r.fails("the handoff was given up: an operator gave it up", "", "handoff", "status", "-f")
	if got := r.exits("handoff", "-f"); got != ExitRefused {
		t.Errorf("following one that was given up ends with %d", got)
	}
}

func TestHandoffIsFollowed(t *testing.T) {
	r := newMovingRig(t)
	r.alpha()
	next, stop := r.follow("handoff", "start", "--yes")
	line := func(want string) {
		t.Helper()
		got := moment.ReplaceAllString(next(), "NOW")
		// Between two steps, and before the first look at one, only the step is known.
		for got != want && !strings.Contains(got, "waits for") && !strings.Contains(got, "unplug") {
			got = moment.ReplaceAllString(next(), "NOW")
		}
		if got != want {
			t.Errorf("followed: %q, want %q", got, want)
		}
	}
	line("NOW  preflight     looks whether the nodes are Ready")
	r.move(machine.HandoffPreflight, "", handoff.Gate{Name: "alpha", Text: "its node is away"})
	line("NOW  preflight     waits for alpha: its node is away")
	r.silent.Store(true) // as while the lead goes elsewhere
	r.move(machine.HandoffDeploying, "", handoff.Gate{Name: "alpha", OK: true, Text: "x"})
	r.silent.Store(false)
	line("NOW  deploying     a replica starts on each node, and becomes a member without a vote")
	for _, to := range []machine.HandoffStep{machine.HandoffCatchingUp, machine.HandoffPromoting, machine.HandoffTransferring, machine.HandoffWatching} {
		r.move(to, "", handoff.Gate{Name: string(to), Text: "soon"})
		line(fmt.Sprintf("NOW  %-12s  waits for %s: soon", to, to))
	}
	r.move(machine.HandoffSealing, "", handoff.Gate{Name: "appliance", Text: "it is away"})
	line("NOW  sealing       waits for appliance: it is away")

	r.Led("r-2")
	// The stick is gone: that is confirmed in so many words.
	r.fails("--confirm destroyed is needed. The handoff goes forward", "destroyed\n", "handoff", "lost")
	r.fails("nothing was done", "", "handoff", "lost", "--confirm", "yes")
	if shown, err := r.types("yes\n", "handoff", "lost"); err == nil || !strings.Contains(shown, "must never be booted again as it is") {
		t.Errorf("answered yes: %v\n%s", err, shown)
	}
	if h, _ := r.View().Handoff(); h.Lost {
		t.Fatal("it is declared destroyed all the same")
	}
	r.fails("cannot be given up any more", "", "handoff", "abort")
	if _, err := r.types("destroyed\n", "handoff", "lost"); err != nil {
		t.Errorf("confirmed: %v", err)
	}
	if h, _ := r.View().Handoff(); !h.Lost {
		t.Error("it is not declared destroyed")
	}

	token := bytes.Repeat([]byte{7}, 32)
	r.Must(state.ReplicaInvite{TokenHash: token, Name: "alpha", Machine: "m-00000001", Expires: time.Now().Add(time.Minute)})
	r.Must(state.ReplicaJoin{TokenHash: token, ID: "r-2", Endpoint: "192.0.2.10:8300", Key: bytes.Repeat([]byte{2}, 32), Release: "v1", Level: 1})
	r.Must(state.ReplicaLeave{ID: "replica-1", Reason: "the handoff"})
	r.move(machine.HandoffDone, "")
	line("NOW  done          the boot service has moved")
	line("Safe to unplug. The boot service runs on alpha. The stick can be pulled. It was declared destroyed and NEVER TOLD: erase all of it or destroy it, and never boot it again.")
	if err := stop(); err != nil {
		t.Errorf("done: %v", err)
	}
	if out := r.must("", "handoff"); !strings.Contains(out, "Stick         Safe to unplug. The boot service runs on alpha. The stick can be pulled. It was") {
		t.Errorf("done:\n%s", out)
	}
	// Each line of JSON is all of it.
	var h api.Handoff
	if err := json.Unmarshal([]byte(r.must("", "handoff", "-f", "-o", "json")), &h); err != nil || !h.SafeToUnplug {
		t.Errorf("followed as JSON: %+v, %v", h, err)
	}
}

// TestFollowingIsInterrupted: the handoff is not, and that is said.
func TestFollowingIsInterrupted(t *testing.T) {
	r := newMovingRig(t)
	r.alpha()
	next, stop := r.follow("handoff", "start", "--yes")
	next()
	if err := stop(); !errors.Is(err, client.ErrInterrupted) || ExitCode(err) != ExitInterrupted || !strings.Contains(err.Error(), "the handoff goes on") {
		t.Errorf("interrupted: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.run(ctx, "", &bytes.Buffer{}, "handoff", "-f"); ExitCode(err) != ExitInterrupted {
		t.Errorf("interrupted at once: %v", err)
	}
}

func TestNewsOfAHandoff(t *testing.T) {
	begin := time.Date(2026, 5, 20, 12, 0, 0, 0, time.UTC)
	plan := func(step machine.HandoffStep, doing string, gates ...string) (p api.HandoffPlan) {
		p.Step, p.Text, p.Doing = step, "what it does", doing
		for _, g := range gates {
			name, text, _ := strings.Cut(g, ": ")
			p.Gates = append(p.Gates, api.HandoffGate{Name: strings.TrimPrefix(name, "ok "), OK: strings.HasPrefix(name, "ok "), Text: text})
		}
		return p
	}
	var n handoffNewsOf
	for i, c := range []struct {
		after int // seconds
		plan  api.HandoffPlan
		want  string
	}{
		{0, plan("preflight", ""), "preflight     what it does"},
		{1, plan("preflight", ""), ""},
		{60, plan("preflight", ""), ""},
		{61, plan("catching-up", "", "a log: 90 entries behind", "ok b: fine"), "catching-up   waits for a log: 90 entries behind"},
		{62, plan("catching-up", "", "a log: 80 entries behind"), ""}, // a number is no news at once
		{71, plan("catching-up", "", "a log: 70 entries behind"), "catching-up   waits for a log: 70 entries behind"},
		{72, plan("catching-up", "", "a log: 60", "b log: 50", "c log: 40", "d log: 30", "e log: 20"), "catching-up   waits for a log: 60, b log: 50, c log: 40, 2 more"},
		{73, plan("promoting", "giving a a vote", "b log: 50"), "promoting     now giving a a vote; waits for b log: 50"},
		{74, plan("promoting", "", "b log: \x1b[2J"), "promoting     waits for b log: �[2J"},
	} {
		if got := n.next(c.plan, begin.Add(time.Duration(c.after)*time.Second)); got != c.want {
			t.Errorf("%d: %q, want %q", i, got, c.want)
		}
	}
}

// A stick that was sealed can be pulled, and no more is said of it; one that was declared
// destroyed was never told.
func TestUnplugText(t *testing.T) {
	const safe = "Safe to unplug. The boot service runs on a, b. The stick can be pulled."
	h := api.Handoff{SafeToUnplug: true, Replicas: []api.Replica{{Name: "b"}, {Name: "a"}}, Plan: &api.HandoffPlan{}}
	if got := unplugText(h); got != safe {
		t.Errorf("%q", got)
	}
	h.Plan.Lost = true
	if got := unplugText(h); !strings.HasPrefix(got, safe+" It was declared destroyed and NEVER TOLD") {
		t.Errorf("lost: %q", got)
	}
	if got := unplugText(api.Handoff{Replicas: h.Replicas, Plan: h.Plan}); got != "" {
		t.Errorf("not yet: %q", got)
	}
}

// Where nobody leads that is what is said first, and a script notices.
func TestHandoffWithoutALeader(t *testing.T) {
	r, nobody := newLeaderlessRig(t)
	r.setup()
	r.Must(state.ReplicaTell{ID: "replica-1", Name: "node-1", Machine: "m-1", Endpoint: "192.0.2.11:8300", Key: bytes.Repeat([]byte{1}, 32), Release: "v1", Level: 1})
	nobody.Store(true)
	var out bytes.Buffer
	err := r.run(t.Context(), "", &out, "handoff", "status")
	if err == nil || ExitCode(err) != 1 || !strings.Contains(out.String(), "NO LEADER") || strings.Contains(out.String(), "cannot be started") {
		t.Errorf("%v\n%s", err, out.String())
	}
}

// What would be refused is refused before it is asked about.
func TestMayStart(t *testing.T) {
	appliance, node := api.Replica{Leads: true}, api.Replica{Leads: true, Machine: "m-1"}
	nodes := []api.HandoffNode{{Name: "a", Machine: "m-2"}, {Name: "b", Machine: "m-3", Why: "b is installing"}}
	for name, c := range map[string]struct {
		h     api.Handoff
		nodes []string
		want  string // "": it may
	}{
		"ready":                     {api.Handoff{Ready: true, Replicas: []api.Replica{appliance}, Nodes: nodes}, []string{"a"}, ""},
		"by its ID, and not told":   {api.Handoff{Ready: true, Replicas: []api.Replica{appliance}, Nodes: nodes}, []string{"m-2", "m-999"}, ""},
		"the appliance cannot":      {api.Handoff{Reason: "so", Replicas: []api.Replica{appliance}, Nodes: nodes}, []string{"a"}, "no handoff can be started: so"},
		"one more, and none is due": {api.Handoff{Reason: "so", Replicas: []api.Replica{node}, Nodes: nodes}, []string{"a"}, ""},
		"none is due":               {api.Handoff{Reason: "so", Replicas: []api.Replica{node}, Nodes: nodes}, nil, "no handoff can be started: so"},
		"the node cannot":           {api.Handoff{Ready: true, Replicas: []api.Replica{appliance}, Nodes: nodes}, []string{"a", "m-3"}, "b is installing"},
		"named twice":               {api.Handoff{Ready: true, Replicas: []api.Replica{appliance}, Nodes: nodes}, []string{"a", "a"}, "a is named twice"},
	} {
		err := mayStart(c.h, c.nodes)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}
