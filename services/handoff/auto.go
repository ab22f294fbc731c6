package handoff

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/rackseed/rackseed/services/machine"
)

// BySite is who starts a handoff that the site file asks for.
const BySite = "the site file"

// Wishes is what a site file's wish for a handoff is measured by; state.View has it.
type Wishes interface {
	Sites
	Site() (machine.Site, bool)
	Handoff() (machine.Handoff, bool)
}

// named are the first of many.
const named = 5

// Auto says what the site file's handoff: auto comes to: that the handoff starts
// now, or what it waits for. wanted: the site file asks for one, and the appliance
// leads still. It waits for every machine that the site file lists, but the
// appliance's own, and for every other that is being installed: else it would go to
// one node while three are on their way. What was given up is never started again by
// itself.
func Auto(v Wishes, leader string) (start bool, text string, wanted bool) {
	site, ok := v.Site()
	if !ok || site.Handoff != machine.HandoffAuto {
		return false, "", false
	}
	r, ok := v.Replica(leader)
	if !ok || !r.InService() || r.Machine != "" {
		return false, "", false
	}
	if h, planned := v.Handoff(); planned {
		if h.Step != machine.HandoffAborted {
			return false, "", false
		}
		return false, fmt.Sprintf("it was given up (%s), and is not started again by itself: start it with rackseed handoff start", cmp.Or(h.Reason, "no reason was told")), true
	}
	var waits []string
	ready := 0
	all := v.Machines()
	own := func(l machine.ListedMachine) bool {
		return l.MAC != "" && slices.ContainsFunc(site.Links, func(x machine.SiteLink) bool { return x.MAC == l.MAC })
	}
	for _, l := range site.Expected(all) {
		if !own(l) {
			waits = append(waits, cmp.Or(l.Name, string(l.MAC), l.UUID)+" was not seen yet")
		}
	}
	for _, m := range all {
		l, listed := site.Listed(m)
		switch {
		case listed && m.Phase == machine.PhaseReady:
			ready++
		case listed && !own(l), beingInstalled(m.Phase):
			waits = append(waits, fmt.Sprintf("%s is %s", cmp.Or(m.Name, l.Name, string(m.ID)), m.Phase))
		}
	}
	switch more := len(waits) - named; {
	case len(waits) == 0 && ready == 0:
		return false, "it never starts by itself, since the site file lists no machine: start it with rackseed handoff start", true
	case len(waits) == 0:
		return true, "every machine that the site file lists is Ready", true
	case more > 0:
		waits = append(waits[:named], fmt.Sprintf("%d more", more))
	}
	return false, "it starts by itself once every machine that the site file lists is Ready: " + strings.Join(waits, ", "), true
}

// beingInstalled says whether a machine is on its way to become a node.
func beingInstalled(p machine.Phase) bool {
	switch p {
	case machine.PhaseApproved, machine.PhaseInstalling, machine.PhaseInstalled, machine.PhaseBooted, machine.PhaseJoining:
		return true
	}
	return false
}
