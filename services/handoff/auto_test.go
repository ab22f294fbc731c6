package handoff

import (
	"strings"
	"testing"

	"github.com/rackseed/rackseed/services/machine"
)

// wishes is a rack with a site file and a plan.
type wishes struct {
	rack
	site machine.Site
	plan *machine.Handoff
}

func (w wishes) Site() (machine.Site, bool) { return w.site, w.site.Version != 0 }

func (w wishes) Handoff() (machine.Handoff, bool) {
	if w.plan == nil {
		return machine.Handoff{}, false
	}
	return *w.plan, true
}

func TestAuto(t *testing.T) {
	const three = "a control-plane, b worker, c worker"
	for name, c := range map[string]struct {
		machines, listed, carriers, leader string
		with                               func(*wishes)
		start, silent                      bool
		text                               string
	}{
		"all that are listed are Ready":     {machines: three, listed: "a b c", start: true},
		"one is listed and Ready":           {machines: "a control-plane", listed: "a", start: true},
		"one is not Ready":                  {machines: "a control-plane, b worker joining, c worker", listed: "a b c", text: "once every machine that the site file lists is Ready: b is joining"},
		"one was not seen":                  {machines: "a control-plane, b worker", listed: "a b c", text: "c was not seen yet"},
		"another is being installed":        {machines: three + ", d worker installing", listed: "a b c", text: "d is installing"},
		"another waits, and nobody asks it": {machines: three + ", d worker waiting", listed: "a b c", start: true},
		"many":                              {machines: "a control-plane", listed: "a b c d e f g h", text: "f was not seen yet, 2 more"},
		"none is listed":                    {machines: three, text: "it never starts by itself, since the site file lists no machine"},
		"the appliance's own is not waited for": {machines: "a control-plane, b worker", listed: "a b c", start: true, with: func(w *wishes) {
			w.site.Links = []machine.SiteLink{{MAC: "52:54:00:00:00:0c"}}
		}},
		"it is not asked for":       {machines: three, listed: "a b c", silent: true, with: func(w *wishes) { w.site.Handoff = "" }},
		"there is no site file":     {machines: three, silent: true, with: func(w *wishes) { w.site = machine.Site{} }},
		"one is under way":          {machines: three, listed: "a b c", silent: true, with: func(w *wishes) { w.plan = &machine.Handoff{Step: machine.HandoffWatching} }},
		"it runs on a node already": {machines: three, listed: "a b c", carriers: "a", leader: "ra", silent: true},
		"nobody leads":              {machines: three, listed: "a b c", leader: "-", silent: true},
		"it was given up": {machines: three, listed: "a b c", text: "it was given up (b is away), and is not started again by itself: start it with rackseed handoff start", with: func(w *wishes) {
			w.plan = &machine.Handoff{Step: machine.HandoffAborted, Reason: "b is away"}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := wishes{rack: rackOf(c.machines, c.carriers), site: machine.Site{Version: 1, Handoff: machine.HandoffAuto}}
			mac := func(name string) machine.MAC { return machine.MAC("52:54:00:00:00:0" + name) }
			for i, m := range w.machines {
				w.machines[i].MACs = []machine.MAC{mac(m.Name)}
			}
			for _, name := range strings.Fields(c.listed) {
				w.site.Machines = append(w.site.Machines, machine.ListedMachine{Name: name, MAC: mac(name)})
			}
			if c.with != nil {
				c.with(&w)
			}
			if c.leader == "" {
				c.leader = "stick"
			}
			start, text, wanted := Auto(w, c.leader)
			if start != c.start || wanted == c.silent || (text == "") != c.silent || !strings.Contains(text, c.text) {
				t.Errorf("starts: %v, wanted: %v: %q", start, wanted, text)
			}
		})
	}
}
