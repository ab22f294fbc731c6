package approve

import (
	"strings"
	"testing"

	"github.com/rackseed/rackseed/services/machine"
)

func TestProfileFor(t *testing.T) {
	dell := machine.Selector{Manufacturer: "dell*"}
	for name, c := range map[string]struct {
		change func(*view, *machine.Machine)
		wish   string
		want   string // "name by why", or parts of the error separated by |
	}{
		"first of the cluster": {func(v *view, m *machine.Machine) {}, "", "control-plane role the cluster needs a control plane to start it"},
		"later": {func(v *view, m *machine.Machine) {
			v.bootstrap = &machine.Intent{Machine: "m-2", Status: machine.IntentDone}
		}, "", "worker role the cluster has a control plane to start it"},
		"the one that starts it, again": {func(v *view, m *machine.Machine) {
			v.bootstrap = &machine.Intent{Machine: "m-1", Status: machine.IntentClaimed}
		}, "", "control-plane role it is the one that starts the cluster"},
		"wished": {func(v *view, m *machine.Machine) {
			v.site.Machines = []machine.ListedMachine{{MAC: mac1, Profile: "worker"}}
			v.site.Profiles[0].Selector = dell
		}, "control-plane", "control-plane wish it was asked for"},
		"listed": {func(v *view, m *machine.Machine) {
			v.site.Machines = []machine.ListedMachine{{MAC: mac1, Profile: "worker"}}
			v.site.Profiles[0].Selector = dell
			m.Profile = "control-plane"
		}, "", "worker list the site file's list says so"},
		"before": {func(v *view, m *machine.Machine) {
			v.site.Profiles[0].Selector = dell
			m.Profile = "worker"
		}, "", "worker before the machine had it before"},
		"before, and gone": {func(v *view, m *machine.Machine) {
			v.site.Profiles[0].Selector = dell
			m.Profile = "arm"
		}, "", "gpu selector its selector matches (manufacturer dell*)"},
		"by hardware": {func(v *view, m *machine.Machine) {
			v.site.Profiles[2].Selector = machine.Selector{Product: "poweredge r6?0", MinCPUs: 64, MinMemory: 256 << 30}
		}, "", "worker selector its selector matches (product poweredge r6?0 and at least 64 CPUs and at least 256GiB of memory)"},
		"by label": {func(v *view, m *machine.Machine) {
			v.site.Machines = []machine.ListedMachine{{UUID: board, Labels: map[string]string{"rack": "r7", "row": "1"}}}
			v.site.Profiles[2].Selector.Labels = map[string]string{"rack": "r7"}
		}, "", "worker selector its selector matches (label rack=r7)"},
		"the first that matches": {func(v *view, m *machine.Machine) {
			v.site.Profiles[0].Selector, v.site.Profiles[2].Selector = dell, dell
		}, "", "gpu selector its selector matches (manufacturer dell*)"},
		"no inventory yet": {func(v *view, m *machine.Machine) {
			v.site.Profiles[0].Selector, m.Inventory = dell, nil
		}, "", "control-plane role the cluster needs a control plane to start it"},
		// A profile with a selector is for those that match, whatever its name.
		"another's selector": {func(v *view, m *machine.Machine) {
			v.bootstrap = &machine.Intent{Machine: "m-2", Status: machine.IntentDone}
			v.site.Profiles[2].Selector.Product = "ProLiant*"
		}, "", "gpu role the cluster has a control plane to start it"},
		"only others' selectors": {func(v *view, m *machine.Machine) {
			v.site.Profiles[1].Selector.Product = "ProLiant*"
		}, "", "error|the cluster needs a control plane to start it|do not match the machine: control-plane (product ProLiant*)|name a profile"},
		"no such role":        {func(v *view, m *machine.Machine) { v.site.Profiles = v.site.Profiles[:1] }, "", "error|no profile of role control-plane"},
		"unknown":             {func(v *view, m *machine.Machine) {}, "x", `error|profile "x" is not in the site file, which has gpu, control-plane, worker`},
		"the site file's own": {func(v *view, m *machine.Machine) { v.site.Profiles = nil }, "worker", "worker wish it was asked for"},
	} {
		t.Run(name, func(t *testing.T) {
			v, m := lab()
			c.change(&v, &m)
			got, err := ProfileFor(v, m, c.wish)
			if parts := strings.Split(c.want, "|"); parts[0] == "error" {
				for _, part := range parts[1:] {
					if err == nil || !strings.Contains(err.Error(), part) {
						t.Errorf("%v, want an error with %q", err, part)
					}
				}
				return
			}
			if s := strings.Join([]string{got.Name, string(got.By), got.Why}, " "); err != nil || s != c.want {
				t.Errorf("%q, %v; want %q", s, err, c.want)
			}
		})
	}
}
