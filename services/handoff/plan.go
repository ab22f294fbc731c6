package handoff

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
)

// Replicas is how many nodes carry the boot service where there are enough.
const Replicas = 3

// Sites is what a plan is made of; state.View has it.
type Sites interface {
	Machines() []machine.Machine
	Profile(id machine.ID) (machine.Profile, bool)
	Replica(id string) (machine.Replica, bool)
	Replicas() []machine.Replica
}

// CanCarry says whether a machine's node can carry a replica, as far as the state
// knows.
func CanCarry(m machine.Machine) Node {
	switch {
	case m.Phase != machine.PhaseReady:
		return Node{Why: fmt.Sprintf("%s is %s: its node must be Ready", cmp.Or(m.Name, string(m.ID)), m.Phase)}
	case !m.Address.IsValid():
		return Node{Why: m.Name + " has no static address: approve it anew with one"}
	}
	return Node{Ready: true}
}

// Plan makes a plan: to the nodes that are named or, without names, to the best:
// control planes first, then by name, three where there are three, else one, since
// of two replicas both are always needed. leader leaves in the end if it runs on no
// node.
func Plan(v Sites, id, leader, operator string, names []string) (machine.Handoff, error) {
	h := machine.Handoff{ID: id, By: operator}
	refuse := func(text string, a ...any) (machine.Handoff, error) {
		return machine.Handoff{}, &state.Refusal{Text: "handoff: " + fmt.Sprintf(text, a...)}
	}
	switch r, ok := v.Replica(leader); {
	case leader == "": // a plan in which nobody leaves would be another one
		return refuse("no replica leads just now, as far as this one knows: try again in some seconds; if that stays so, more than half of the voters do not reach each other")
	case !ok || !r.InService():
		return refuse("no other replica can join the boot service: that takes a site file with a link that carries the service address (make dev has none: make run does)")
	case r.Machine == "":
		h.From = leader
	}
	all := Candidates(v, leader)
	if len(names) > 0 {
		for _, name := range names {
			i := slices.IndexFunc(all, func(c Candidate) bool { return c.Machine.Name == name || string(c.Machine.ID) == name })
			switch {
			case i < 0:
				return refuse("there is no machine %.60s with a name; machines are listed with: rackseed machines", name)
			case all[i].Why != "":
				return refuse("%s", all[i].Why)
			}
			h.Targets = append(h.Targets, machine.HandoffTarget{Machine: all[i].Machine.ID, Name: all[i].Machine.Name})
		}
		if h.From != "" {
			if c := Choose(len(names), 0); c.Refused {
				return refuse("%s", c.Text)
			}
		}
		return h, nil
	}
	if h.From == "" {
		return refuse("the boot service runs on nodes already; name those that shall carry it too, with --node")
	}
	var fit []machine.Machine
	var why []string
	for _, c := range all {
		if c.Why == "" {
			fit = append(fit, c.Machine)
		} else {
			why = append(why, c.Why)
		}
	}
	if len(fit) == 0 {
		return refuse("no node can carry the boot service: %s", cmp.Or(strings.Join(why, "; "), "no machine is installed yet"))
	}
	n := Replicas
	if len(fit) < n {
		n = 1
	}
	for _, m := range fit[:n] {
		h.Targets = append(h.Targets, machine.HandoffTarget{Machine: m.ID, Name: m.Name})
	}
	return h, nil
}

// Removable is the replica with a name or an ID, which may be taken away: it does
// not lead, and no plan is under way.
func Removable(v interface {
	Replicas() []machine.Replica
	Handoff() (machine.Handoff, bool)
}, leader, name string) (machine.Replica, error) {
	if h, ok := v.Handoff(); ok && !h.Step.Over() {
		return machine.Replica{}, &state.Refusal{Text: fmt.Sprintf("a handoff is under way (%s), which decides on replicas: wait for its end, or give it up", h.Step)}
	}
	var names []string
	for _, r := range v.Replicas() {
		if r.ID != name && r.Name != name {
			names = append(names, r.Name)
			continue
		}
		if r.ID == leader {
			return r, &state.Refusal{Text: fmt.Sprintf("replica %s leads: another one must lead first, as when its node is off", r.Name)}
		}
		return r, nil
	}
	return machine.Replica{}, &state.Refusal{Text: fmt.Sprintf("there is no replica %.60s; there are %s", name, strings.Join(names, ", "))}
}
