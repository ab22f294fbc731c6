package site

import (
	"fmt"
	"slices"

	"github.com/rackseed/rackseed/services/machine"
)

// Summary says in a few lines what a site file makes happen: what is served,
// what is installed without anybody being asked, and who has access. It is for
// whoever made a stick, to see that it is the right file.
func Summary(s machine.Site) []string {
	lines := []string{fmt.Sprintf("site %q, service address %s", s.Name, s.ServiceAddress)}
	for _, l := range s.Links {
		name := string(l.MAC)
		if name == "" {
			name = l.Interface
		}
		if l.VLAN != 0 {
			name += fmt.Sprintf(" VLAN %d", l.VLAN)
		}
		text := fmt.Sprintf("link %s has %s and is not served", name, l.Address)
		if h := l.DHCP; h != nil {
			text = fmt.Sprintf("link %s has %s and serves DHCP, %s to %s, to machines", name, l.Address, h.From, h.To)
			if h.Others {
				text += " and to all other clients"
			}
		}
		lines = append(lines, text)
	}
	if s.Discovery.Always {
		lines = append(lines, "ANY machine that netboots there is looked at: the discovery window is always open")
	} else {
		lines = append(lines, fmt.Sprintf("machines that are listed (%d) are looked at, others only while an operator opens the discovery window", len(s.Machines)))
	}
	if !slices.ContainsFunc(s.Machines, func(m machine.ListedMachine) bool { return m.Approve }) {
		lines = append(lines, "nothing is installed without asking")
	}
	for _, w := range Warnings(s) {
		lines = append(lines, w.Text)
	}
	operators := []string{"whoever has the setup code on the screen"}
	for _, o := range s.Operators {
		operators = append(operators, o.Name+" by token")
	}
	lines = append(lines, "operators: "+some(operators), fmt.Sprintf("SSH keys of root on nodes: %d", len(s.SSHKeys)))
	if s.Emulated {
		lines = append(lines, "EMULATED: timeouts for machines emulated in software, never for real ones")
	}
	if s.MemoryOnly {
		lines = append(lines, "MEMORY ONLY: where data cannot be kept, all is forgotten at the next start")
	}
	return lines
}
