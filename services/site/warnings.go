package site

import (
	"fmt"
	"slices"
	"strings"

	"github.com/rackseed/rackseed/services/machine"
)

// Warnings are what a valid site says that is seldom meant, or that whoever put
// it in force must know. They have paths, and no places.
func Warnings(s machine.Site) (list []Problem) {
	var unasked []string
	first := -1
	for i, m := range s.Machines {
		if m.Approve {
			if first < 0 {
				first = i
			}
			unasked = append(unasked, entryWord(m))
		}
	}
	if first >= 0 {
		list = append(list, Problem{Path: fmt.Sprintf("machines[%d].approve", first), Text: "installed WITHOUT ASKING, once, onto an empty disk: " + some(unasked)})
	}
	if !slices.ContainsFunc(s.Links, func(l machine.SiteLink) bool { return l.DHCP != nil }) {
		list = append(list, Problem{Path: "links", Text: "NO link has dhcp: no machine is served"})
	}
	if len(s.Profiles) > 0 && !slices.ContainsFunc(s.Profiles, func(p machine.Profile) bool { return p.Role == machine.RoleControlPlane }) {
		list = append(list, Problem{Path: "profiles", Text: "NO profile has the role control-plane: no machine can start a cluster"})
	}
	return append(list, ownAddresses(s)...)
}

// ownAddresses finds the appliance's hardware addresses where machines' are
// meant: it does not netboot from itself.
func ownAddresses(s machine.Site) (list []Problem) {
	own := map[machine.MAC]string{}
	for i, l := range s.Links {
		if _, known := own[l.MAC]; l.MAC != "" && !known {
			own[l.MAC] = fmt.Sprintf("links[%d].mac", i)
		}
	}
	find := func(path string, mac machine.MAC) {
		if link, is := own[mac]; is {
			list = append(list, Problem{Path: path, Text: fmt.Sprintf("%s is the appliance's own (%s), which gets nothing from itself", mac, link)})
		}
	}
	for i, l := range s.Links {
		if l.DHCP == nil {
			continue
		}
		for j, r := range l.DHCP.Reservations {
			find(fmt.Sprintf("links[%d].dhcp.reservations[%d].mac", i, j), r.MAC)
		}
	}
	for i, m := range s.Machines {
		find(fmt.Sprintf("machines[%d].mac", i), m.MAC)
	}
	return list
}

// entryWord tells a listed machine from others.
func entryWord(m machine.ListedMachine) string {
	by := string(m.MAC)
	if m.UUID != "" {
		by = m.UUID
	}
	if m.Name == "" {
		return by
	}
	return m.Name + " (" + by + ")"
}

// some are the first of many.
func some(words []string) string {
	const most = 8
	if more := len(words) - most; more > 0 {
		return strings.Join(words[:most], ", ") + fmt.Sprintf(" and %d more", more)
	}
	return strings.Join(words, ", ")
}
