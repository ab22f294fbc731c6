package approve

import (
	"fmt"
	"strings"

	"github.com/rackseed/rackseed/services/machine"
)

// By is who or what chose a profile.
type By string

const (
	ByWish     By = "wish"     // whoever approves named it
	ByEntry    By = "list"     // the machine's entry in the site file names it
	ByBefore   By = "before"   // the machine had it before
	BySelector By = "selector" // its selector matches, as the first
	ByRole     By = "role"     // it has the role that the cluster needs next
)

// Choice is the profile that a machine gets, and why.
type Choice struct {
	machine.Profile
	By  By
	Why string // the same in words, after "profile X: "
}

// builtin profiles are there where the site file has none.
var builtin = []machine.Profile{
	{Name: string(machine.RoleControlPlane), Role: machine.RoleControlPlane},
	{Name: string(machine.RoleWorker), Role: machine.RoleWorker},
}

// ProfileFor says which profile m gets, and why: the one that is named ("": by
// nobody), else its entry's in the site file's list, else the one that it had
// before, if there still is one, else the first whose selector matches, else
// one without a selector that has the role that the cluster needs next. The
// error says why there is none; a site file is needed.
func ProfileFor(v View, m machine.Machine, named string) (Choice, error) {
	site, _ := v.Site()
	profiles := site.Profiles
	if len(profiles) == 0 {
		profiles = builtin
	}
	listed, _ := site.Listed(m)
	if named != "" {
		return byName(profiles, named, ByWish, "it was asked for")
	}
	if listed.Profile != "" {
		return byName(profiles, listed.Profile, ByEntry, "the site file's list says so")
	}
	if m.Profile != "" {
		if c, err := byName(profiles, m.Profile, ByBefore, "the machine had it before"); err == nil {
			return c, nil
		}
	}
	for _, p := range profiles {
		if p.Selector.Matches(m.Inventory, listed.Labels) {
			return Choice{p, BySelector, "its selector matches (" + p.Selector.String() + ")"}, nil
		}
	}
	return byRole(profiles, v.Bootstrap(), m.ID)
}

func byName(profiles []machine.Profile, name string, by By, why string) (Choice, error) {
	var names []string
	for _, p := range profiles {
		if p.Name == name {
			return Choice{p, by, why}, nil
		}
		names = append(names, p.Name)
	}
	return Choice{}, fmt.Errorf("profile %q is not in the site file, which has %s", name, strings.Join(names, ", "))
}

// byRole gives a control plane while the cluster has none to start it, else a
// worker. The profile that is named like the role is preferred to others of it.
// One with a selector is for the machines that match.
func byRole(profiles []machine.Profile, bootstrap *machine.Intent, id machine.ID) (Choice, error) {
	role, why := machine.RoleWorker, "the cluster has a control plane to start it"
	switch {
	case bootstrap == nil:
		role, why = machine.RoleControlPlane, "the cluster needs a control plane to start it"
	case bootstrap.Live() && bootstrap.Machine == id:
		role, why = machine.RoleControlPlane, "it is the one that starts the cluster"
	}
	var found *machine.Profile
	var selective []string
	for i, p := range profiles {
		switch {
		case p.Role != role:
		case !p.Selector.IsZero():
			selective = append(selective, fmt.Sprintf("%s (%s)", p.Name, p.Selector))
		case found == nil || p.Name == string(role):
			found = &profiles[i]
		}
	}
	switch {
	case found != nil:
		return Choice{*found, ByRole, why}, nil
	case len(selective) > 0:
		return Choice{}, fmt.Errorf("%s, and the selectors of the profiles of role %s do not match the machine: %s: name a profile", why, role, strings.Join(selective, ", "))
	}
	return Choice{}, fmt.Errorf("the site file has no profile of role %s: name a profile", role)
}
