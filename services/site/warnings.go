package site

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/rackseed/rackseed/services/machine"
)

// Warnings are what a valid site says that is seldom meant, or that whoever put
// it in force must know. They have paths, and no places.
func Warnings(s machine.Site) (list []Problem) {
	if s.Emulated {
		list = append(list, Problem{Path: "emulated", Text: "timeouts are those of emulated machines: never for real ones, whose faults are noticed late then"})
	}
	if s.MemoryOnly {
		list = append(list, Problem{Path: "memoryOnly", Text: "machines are served even where NOTHING IS KEPT: switched off, the boot service forgets them and the cluster's keys; for tests"})
	}
	if s.Discovery.Always {
		list = append(list, Problem{Path: "discovery.always", Text: "ANY machine that netboots here is looked at, for ever: not where a production server may netboot"})
	}
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
	if free, known := pools(s), len(s.Machines); free > 0 && free < uint64(known) {
		list = append(list, Problem{Path: "machines", Text: fmt.Sprintf("%d are listed, and the links' dhcp can give %d an address at once", known, free)})
	}
	if own := linkMACs(s); s.Handoff == machine.HandoffAuto && !slices.ContainsFunc(s.Machines, func(m machine.ListedMachine) bool { return m.MAC == "" || own[m.MAC] == "" }) {
		list = append(list, Problem{Path: "handoff", Text: "it never starts by itself: that waits for the machines that are listed, and NONE is; start it with rackseed handoff start"})
	}
	if s.Handoff == machine.HandoffAuto && len(s.SSHKeys) == 0 {
		list = append(list, Problem{Path: "handoff", Text: "without sshKeys NOBODY is root on a node: rackseed recover and break-glass need that once the boot service moved by itself and the stick is pulled"})
	}
	if len(s.Profiles) > 0 && !slices.ContainsFunc(s.Profiles, func(p machine.Profile) bool { return p.Role == machine.RoleControlPlane }) {
		list = append(list, Problem{Path: "profiles", Text: "NO profile has the role control-plane: no machine can start a cluster"})
	}
	return append(append(list, examples(s)...), ownAddresses(s)...)
}

// pools is how many addresses the links' DHCP has to give.
func pools(s machine.Site) (n uint64) {
	for _, l := range s.Links {
		if l.DHCP != nil {
			from, to := l.DHCP.From.As4(), l.DHCP.To.As4()
			n += uint64(binary.BigEndian.Uint32(to[:])) - uint64(binary.BigEndian.Uint32(from[:])) + 1
		}
	}
	return n
}

// examples finds hardware addresses that are for documentation (RFC 9542
// §2.1.2): an example that nobody edited.
func examples(s machine.Site) (list []Problem) {
	find := func(path string, mac machine.MAC) {
		if strings.HasPrefix(string(mac), "00:00:5e:00:53:") {
			list = append(list, Problem{Path: path, Text: fmt.Sprintf("%s is an example's, and no machine's: write the real one", mac)})
		}
	}
	for i, l := range s.Links {
		find(fmt.Sprintf("links[%d].mac", i), l.MAC)
	}
	for i, m := range s.Machines {
		find(fmt.Sprintf("machines[%d].mac", i), m.MAC)
	}
	return list
}

// ownAddresses finds the appliance's hardware addresses where machines' are
// meant: it does not netboot from itself.
func ownAddresses(s machine.Site) (list []Problem) {
	own := linkMACs(s)
	find := func(path string, mac machine.MAC) {
		if link, is := own[mac]; is {
			list = append(list, Problem{Path: path, Text: fmt.Sprintf("%s is the appliance's own (%s), which gets nothing from itself: only after the boot service moved and its stick was pulled", mac, link)})
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

// linkMACs are the appliance's hardware addresses that the links name, and where.
func linkMACs(s machine.Site) map[machine.MAC]string {
	own := map[machine.MAC]string{}
	for i, l := range s.Links {
		if _, known := own[l.MAC]; l.MAC != "" && !known {
			own[l.MAC] = fmt.Sprintf("links[%d].mac", i)
		}
	}
	return own
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
