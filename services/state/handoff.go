package state

import (
	"fmt"
	"strings"

	"github.com/rackseed/rackseed/services/machine"
)

func (t tables) handoff() *machine.Handoff {
	return first[machine.Handoff](t, tableHandoff, byID, []byte{0})
}

// Handoff is the newest plan to move the boot service, also one that is over.
func (v View) Handoff() (machine.Handoff, bool) {
	if h := v.t.handoff(); h != nil {
		return *h, true
	}
	return machine.Handoff{}, false
}

// calm refuses what would begin to write to a disk while the boot service moves.
// What is under way goes on.
func (c *change) calm() error {
	if h := c.handoff(); h != nil && !h.Step.Over() {
		return refuse("the boot service is moving into the cluster (%s): nothing new is installed until that is over, in some minutes; see how far it is with: rackseed handoff status", h.Step)
	}
	return nil
}

func (c *change) handoffStart(x HandoffStart) error {
	h := x.Handoff
	if err := word("handoff", h.ID); err != nil {
		return err
	}
	if old := c.handoff(); old != nil && !old.Step.Over() {
		return refuse("a handoff is under way (%s): see how far it is with: rackseed handoff status", old.Step)
	}
	if r := c.rollout(); r != nil && !r.Step.Over() {
		return refuse("a newer boot service is being rolled out, which restarts replicas: wait for its end, or stop it (rackseed service stop)")
	}
	if len(h.Targets) == 0 || len(h.Targets) > machine.MaxTargets {
		return refuse("a handoff needs 1 to %d nodes, and this has %d", machine.MaxTargets, len(h.Targets))
	}
	taken := map[machine.ID]bool{}
	var names []string
	for i, t := range h.Targets {
		m := c.tables.machine(t.Machine)
		switch {
		case m == nil:
			return refuse("handoff: there is no machine %.40s", t.Machine)
		case taken[t.Machine]:
			return refuse("handoff: machine %s is named twice", t.Machine)
		case !m.Machine.Address.IsValid():
			return refuse("handoff: %s has no static address: approve it anew with one", m.Machine.Name)
		}
		taken[t.Machine] = true
		h.Targets[i].Name = m.Machine.Name
		names = append(names, m.Machine.Name)
	}
	if h.From != "" {
		from := c.replica(h.From)
		switch {
		case from == nil || !from.InService():
			return refuse("handoff: there is no replica %.40q in service that could leave", h.From)
		case h.From != c.cluster().Leader:
			return refuse("handoff: replica %s must lead, and %s does", h.From, c.cluster().Leader)
		}
	}
	h.Step, h.Since, h.Moved, h.Reason, h.Forward, h.Lost = machine.HandoffPreflight, c.at, c.at, "", false, false
	c.put(tableHandoff, &h)
	c.event("", "handoff.started", machine.Info, fmt.Sprintf("The boot service moves to %s, as %s asked", strings.Join(names, ", "), asker(h.By)), "handoff", h.ID, "by", h.By)
	return nil
}

// plan is a copy of the plan that is under way.
func (c *change) plan(id string) (*machine.Handoff, error) {
	old := c.handoff()
	if old == nil || old.ID != id || old.Step.Over() {
		return nil, refuse("handoff %.40q is not under way", id)
	}
	h := *old
	return &h, nil
}

func (c *change) handoffMove(x HandoffMove) error {
	h, err := c.plan(x.ID)
	if err != nil {
		return err
	}
	if h.Step != x.From {
		return refuse("handoff %s is at %s, not at %s", x.ID, h.Step, x.From)
	}
	if !h.MayGo(x.To) {
		return refuse("handoff %s cannot go from %s to %s", x.ID, h.Step, x.To)
	}
	h.Step, h.Since, h.Moved = x.To, c.at, c.at
	severity, text := machine.Info, "Handoff: "+h.Words()
	if x.To == machine.HandoffAborting {
		h.Reason, severity, text = clip(x.Reason), machine.Warning, text+": "+clip(x.Reason)
	}
	c.put(tableHandoff, h)
	c.event("", "handoff.step", severity, text, "handoff", h.ID, "step", string(x.To), "by", c.by)
	return nil
}

func (c *change) handoffDid(x HandoffDid) error {
	h, err := c.plan(x.ID)
	if err != nil {
		return err
	}
	h.Moved = c.at
	c.put(tableHandoff, h)
	c.event("", "handoff.did", machine.Info, "Handoff: "+clip(x.Text), "handoff", h.ID)
	return nil
}

func (c *change) handoffLost(x HandoffLost) error {
	h, err := c.plan(x.ID)
	if err != nil {
		return err
	}
	switch {
	case h.From == "":
		return refuse("handoff %s: no appliance leaves in it, so none can be declared destroyed; a replica whose node is dead is taken away, once no handoff is under way, with: rackseed handoff remove NAME", x.ID)
	case h.From == c.cluster().Leader:
		return refuse("handoff %s is at %s: the appliance leads, so it is not destroyed; to stop the handoff give it up: rackseed handoff abort", x.ID, h.Step)
	case h.Lost:
		return nil
	}
	// Nothing goes back to it: what was being given up goes forward, and targets
	// that are away keep nobody waiting.
	h.Lost, h.Forward, h.Moved = true, true, c.at
	if h.Step == machine.HandoffAborting {
		h.Step, h.Since, h.Reason = machine.HandoffDeploying, c.at, ""
	}
	c.put(tableHandoff, h)
	c.event("", "handoff.lost", machine.Warning, fmt.Sprintf("The appliance is declared destroyed by %s: the handoff goes forward with the nodes that are there, and it is removed without its word", asker(c.by)),
		"handoff", h.ID, "step", string(h.Step), "by", c.by)
	return nil
}

func (c *change) handoffResume(x HandoffResume) error {
	h, err := c.plan(x.ID)
	if err != nil {
		return err
	}
	switch {
	case h.Step != machine.HandoffAborting:
		return refuse("handoff %s is at %s: only one that is being given up can be gone on with", x.ID, h.Step)
	case h.From == c.cluster().Leader:
		return refuse("handoff %s: the appliance leads again; let it be given up, and start another", x.ID)
	}
	h.Step, h.Since, h.Moved, h.Reason, h.Forward = machine.HandoffDeploying, c.at, c.at, "", true
	c.put(tableHandoff, h)
	c.event("", "handoff.step", machine.Warning, fmt.Sprintf("Handoff: it goes forward with the nodes that are there, as %s decided", asker(c.by)), "handoff", h.ID, "step", string(h.Step), "by", c.by)
	return nil
}
