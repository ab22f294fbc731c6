package handoff

import (
	"slices"

	"github.com/rackseed/rackseed/services/machine"
)

// aborting makes the old replica the only one again, and the targets' replicas
// leave. Without an old one the targets that are no proved voters leave, and one more
// where an even number of voters would stay: of two both are needed, of one only that one.
func (n *planner) aborting() {
	stays := n.p.From
	if stays != "" && n.w.Self != stays {
		old := n.w.Replicas[stays]
		switch {
		case !n.gate("appliance", old.Reachable, "it must lead again before the others leave%s", either(old.Reachable, "", ", and cannot be reached: plug it in and boot it again, let the handoff go on without it (rackseed handoff resume) or, if it is gone for good, declare it destroyed (rackseed handoff lost)")):
		case !n.w.Members.Has(stays):
			n.act(Add, stays, "")
		case !n.w.Members.Voter(stays):
			if n.gate("appliance log", old.Stored.Last+MaxLag >= n.w.Index, "it has entry %d of %d", old.Stored.Last, n.w.Index) {
				n.act(Promote, stays, "")
			}
		default:
			n.act(Transfer, stays, "")
		}
		return
	}
	// Those that are away first: while they count, the others are needed.
	var leave []machine.HandoffTarget
	leaves := map[string]bool{}
	for _, t := range n.p.Targets {
		if s, joined := n.seen(t); joined && (stays != "" || !n.w.Members.Voter(s.ID) || !s.Proved) {
			leave, leaves[s.ID] = append(leave, t), true
		}
	}
	if stays == "" {
		if t, ok := n.odd(leaves); ok {
			s, _ := n.seen(t)
			leave, leaves[s.ID] = append(leave, t), true
		}
	}
	if leaves[n.w.Self] { // it can take no vote from itself
		n.handOver(leaves)
		return
	}
	slices.SortStableFunc(leave, func(a, b machine.HandoffTarget) int {
		x, _ := n.seen(a)
		y, _ := n.seen(b)
		switch {
		case x.Reachable == y.Reachable:
			return 0
		case y.Reachable:
			return -1
		}
		return 1
	})
	for _, t := range leave {
		s, _ := n.seen(t)
		switch {
		case n.w.Members.Voter(s.ID):
			n.act(Demote, s.ID, t.Machine)
		case n.w.Members.Has(s.ID):
			n.act(Remove, s.ID, t.Machine)
		default:
			n.act(Leave, s.ID, t.Machine)
		}
		return
	}
	n.to(machine.HandoffAborted)
}

// odd is the target that leaves, too, where the voters that would stay are even in number:
// the last one that does not lead, or else the one that does.
func (n *planner) odd(leaves map[string]bool) (last machine.HandoffTarget, ok bool) {
	stay := 0
	for _, id := range n.w.Members.Voters() {
		if !leaves[id] {
			stay++
		}
	}
	if stay%2 == 1 {
		return last, false
	}
	for _, t := range n.p.Targets {
		if s, joined := n.seen(t); joined && !leaves[s.ID] && n.w.Members.Voter(s.ID) && (!ok || s.ID != n.w.Self) {
			last, ok = t, true
		}
	}
	return last, ok
}

// handOver hands the lead to a voter that stays.
func (n *planner) handOver(leaves map[string]bool) {
	for _, id := range n.w.Members.Voters() {
		if s := n.w.Replicas[id]; !leaves[id] && s.Reachable {
			n.gate("lead", true, "replica %s can take it", n.w.Members.Called(id))
			n.act(Transfer, id, s.Machine)
			return
		}
	}
	n.gate("lead", false, "replica %s leads and is to leave, and no voter that stays can be reached", n.w.Members.Called(n.w.Self))
}
