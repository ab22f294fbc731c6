package state

import (
	"testing"

	"github.com/rackseed/rackseed/services/machine"
)

func handoff(targets ...int) HandoffStart {
	h := machine.Handoff{ID: "h-1", From: "r-1", By: "operator:ann"}
	for _, n := range targets {
		h.Targets = append(h.Targets, machine.HandoffTarget{Machine: machineID(n)})
	}
	return HandoffStart{h}
}

// moving is a world whose boot service moves to its one node.
func moving(t *testing.T) *world {
	w := newWorld(t)
	story(w)
	w.must(handoff(1))
	return w
}

func go1(w *world, from, to machine.HandoffStep) { w.must(HandoffMove{ID: "h-1", From: from, To: to}) }

func TestHandoffIsStarted(t *testing.T) {
	w := newWorld(t)
	wantText(t, w.refused(handoff(1)), "there is no machine")
	story(w)
	for what, bad := range map[string]HandoffStart{
		"needs 1 to 5 nodes": handoff(), "is named twice": handoff(1, 1), "there is no machine": handoff(1, 9),
	} {
		wantText(t, w.refused(bad), what)
	}
	other := handoff(1)
	other.Handoff.From = "r-2"
	wantText(t, w.refused(other), "must lead, and r-1 does")
	other.Handoff.From = "r-9"
	wantText(t, w.refused(other), "no replica")
	w.must(handoff(1))
	h, ok := w.view().Handoff()
	if !ok || h.Step != machine.HandoffPreflight || h.Targets[0].Name != "node-1" || h.Since.IsZero() {
		t.Errorf("%+v", h)
	}
	wantText(t, w.refused(handoff(1)), "a handoff is under way (preflight)")
}

func TestHandoffMovesInOrder(t *testing.T) {
	w := moving(t)
	wantText(t, w.refused(HandoffMove{ID: "h-1", From: machine.HandoffPreflight, To: machine.HandoffSealing}), "cannot go")
	wantText(t, w.refused(HandoffMove{ID: "h-1", From: machine.HandoffDeploying, To: machine.HandoffCatchingUp}), "is at preflight")
	wantText(t, w.refused(HandoffMove{ID: "h-0", From: machine.HandoffPreflight, To: machine.HandoffDeploying}), "not under way")
	order := []machine.HandoffStep{
		machine.HandoffPreflight, machine.HandoffDeploying, machine.HandoffCatchingUp, machine.HandoffPromoting,
		machine.HandoffTransferring, machine.HandoffWatching, machine.HandoffSealing, machine.HandoffDone,
	}
	for i, step := range order[:len(order)-1] {
		if step == machine.HandoffSealing {
			wantText(t, w.refused(HandoffMove{ID: "h-1", From: step, To: machine.HandoffAborting}), "cannot go")
		}
		wantText(t, w.refused(HandoffLost{ID: "h-1"}), "the appliance leads, so it is not destroyed")
		wantText(t, w.refused(HandoffResume{ID: "h-1"}), "only one that is being given up")
		before, _ := w.view().Handoff()
		w.must(HandoffDid{ID: "h-1", Text: "something"})
		if h, _ := w.view().Handoff(); !h.Moved.After(before.Moved) || h.Since != before.Since {
			t.Errorf("%s: moved %v, since %v", step, h.Moved, h.Since)
		}
		go1(w, step, order[i+1])
	}
	wantText(t, w.refused(HandoffDid{ID: "h-1", Text: "late"}), "not under way")
	w.must(handoff(1))
}

func TestNothingIsInstalledMeanwhile(t *testing.T) {
	w := moving(t)
	w.must(session("s-2", inventory(2), machineID(2)))
	second := approval(2)
	second.NodeSeed = sealed("k-1", "seed")
	wantText(t, w.refused(second), "the boot service is moving into the cluster (preflight)")
	w.must(HandoffMove{ID: "h-1", From: machine.HandoffPreflight, To: machine.HandoffAborting, Reason: "node-1 is away"})
	if h, _ := w.view().Handoff(); h.Reason != "node-1 is away" {
		t.Errorf("%+v", h)
	}
	wantText(t, w.refused(second), "aborting")
	go1(w, machine.HandoffAborting, machine.HandoffAborted)
	w.must(second)
}

func TestHandoffGoesForward(t *testing.T) {
	w := moving(t)
	w.must(HandoffMove{ID: "h-1", From: machine.HandoffPreflight, To: machine.HandoffAborting, Reason: "the stick is away"})
	wantText(t, w.refused(HandoffResume{ID: "h-1"}), "the appliance leads again")
	w.term++
	w.must(EpochBegin{Leader: "r-2"})
	w.must(HandoffResume{ID: "h-1"})
	if h, _ := w.view().Handoff(); h.Step != machine.HandoffDeploying || !h.Forward || h.Reason != "" {
		t.Errorf("%+v", h)
	}
}

// Whoever's stick burnt declares it destroyed at any step, once a node leads: from
// there the plan only goes forward.
func TestApplianceIsLost(t *testing.T) {
	for _, step := range []machine.HandoffStep{machine.HandoffPromoting, machine.HandoffTransferring, machine.HandoffWatching, machine.HandoffSealing, machine.HandoffAborting} {
		w := moving(t)
		at := machine.HandoffPreflight
		for _, to := range []machine.HandoffStep{machine.HandoffDeploying, machine.HandoffCatchingUp, machine.HandoffPromoting, machine.HandoffTransferring, machine.HandoffWatching, machine.HandoffSealing} {
			if at == step || step == machine.HandoffAborting {
				break
			}
			go1(w, at, to)
			at = to
		}
		if step == machine.HandoffAborting {
			go1(w, at, step)
		}
		w.term++
		w.must(EpochBegin{Leader: "r-2"})
		if got := w.must(HandoffLost{ID: "h-1"}); len(got.Events) != 1 || got.Events[0].Kind != "handoff.lost" {
			t.Errorf("%s: %v", step, got.Events)
		}
		want := step
		if step == machine.HandoffAborting {
			want = machine.HandoffDeploying
		}
		if h, _ := w.view().Handoff(); h.Step != want || !h.Lost || !h.Forward || h.Reason != "" {
			t.Errorf("%s: %+v", step, h)
		}
		if again := w.must(HandoffLost{ID: "h-1"}); len(again.Events) != 0 {
			t.Errorf("%s: declared twice: %v", step, again.Events)
		}
		wantText(t, w.refused(HandoffMove{ID: "h-1", From: want, To: machine.HandoffAborting}), "cannot go")
	}
	w := moving(t)
	go1(w, machine.HandoffPreflight, machine.HandoffAborting)
	go1(w, machine.HandoffAborting, machine.HandoffAborted)
	join := handoff(1)
	join.Handoff.From = ""
	w.must(join)
	wantText(t, w.refused(HandoffLost{ID: "h-1"}), "no appliance leaves in it")
}
