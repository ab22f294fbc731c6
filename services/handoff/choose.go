package handoff

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/rackseed/rackseed/services/machine"
)

// Candidate is a machine that may be chosen to carry the boot service, or cannot.
type Candidate struct {
	Machine machine.Machine
	Why     string // it cannot carry a replica; "": it can
}

// Candidates are the machines with a name: those that can carry a replica first,
// control planes before others, then by name. leader leads: where that is the
// appliance, a replica that is on a node already moves with the others.
func Candidates(v Sites, leader string) (list []Candidate) {
	first, ok := v.Replica(leader)
	leaves := ok && first.Machine == ""
	carries := map[machine.ID]bool{}
	for _, r := range v.Replicas() {
		carries[r.Machine] = true
	}
	roles := map[machine.ID]int{}
	for _, m := range v.Machines() {
		if m.Name == "" {
			continue
		}
		c := Candidate{Machine: m}
		switch node := CanCarry(m); {
		case carries[m.ID] && !leaves:
			c.Why = m.Name + " carries a replica already"
		case !node.Ready:
			c.Why = node.Why
		}
		if p, ok := v.Profile(m.ID); !ok || p.Role != machine.RoleControlPlane {
			roles[m.ID] = 1
		}
		list = append(list, c)
	}
	able := func(c Candidate) int {
		if c.Why == "" {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(list, func(a, b Candidate) int {
		return cmp.Or(able(a)-able(b), roles[a.Machine.ID]-roles[b.Machine.ID], strings.Compare(a.Machine.Name, b.Machine.Name))
	})
	return list
}

// Choice is what it means to choose so many nodes.
type Choice struct {
	Nodes   int
	Refused bool
	Text    string
}

// number is how many in words.
func number(n int) string {
	return [...]string{"none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"}[n]
}

// Choose says what it means that n nodes carry the boot service besides those that
// do; there is 0 where the appliance leaves.
func Choose(n, there int) Choice {
	all := min(n+there, machine.MaxReplicas)
	c := Choice{Nodes: n, Text: fmt.Sprintf("%s nodes carry the boot service then: %s may fail", number(all), number((all-1)/2))}
	switch {
	case n == 0:
		return Choice{Refused: true, Text: "no node is chosen: 1, 3 or 5 are needed"}
	case there == 0 && n%2 == 0:
		return Choice{Nodes: n, Refused: true, Text: fmt.Sprintf("%d nodes are named, and 1, 3 or 5 are needed: of an even number one more may not fail than without it", n)}
	case all == 1:
		c.Text = "one node alone carries the boot service then: while it is away, no machine is served; of three one may fail"
	case all == 2:
		c.Text = "two nodes carry the boot service then, and both are needed: none may fail; of three one may"
	case all%2 == 0:
		c.Text += ", as of " + number(all-1)
	}
	return c
}

// Choices are all that one plan may be asked for, besides those that carry a replica
// there.
func Choices(there int) (list []Choice) {
	for n := 1; n <= machine.MaxTargets && n+there <= machine.MaxReplicas; n++ {
		list = append(list, Choose(n, there))
	}
	return list
}
