package rollout

import (
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/handoff"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
)

var now = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

// scene is a rollout to three replicas on nodes, of which n1 leads.
func scene() (machine.Rollout, World) {
	p := machine.Rollout{ID: "o-1", Step: machine.RolloutRolling, Image: "new", Within: machine.Duration(Within)}
	w := World{Now: now, Self: "n1", Index: 500}
	for _, n := range []string{"1", "2", "3"} {
		w.Replicas = append(w.Replicas, Seen{
			Replica:   machine.Replica{ID: "n" + n, Name: "node-" + n, Machine: machine.ID("m-" + n), Image: "old", Release: "v1"},
			Reachable: true, Voter: true, Stored: state.Stored{Last: 500, Applied: 500, Voter: true},
		})
	}
	return p, w
}

func TestNext(t *testing.T) {
	away := func(n int) func(*machine.Rollout, *World) {
		return func(_ *machine.Rollout, w *World) { w.Replicas[n].Reachable = false }
	}
	// told has a replica's turn come some time ago; it is back with image.
	told := func(n int, ago time.Duration, image string) func(*machine.Rollout, *World) {
		return func(p *machine.Rollout, w *World) {
			p.Turn, p.Told = w.Replicas[n].ID, now.Add(-ago)
			w.Replicas[n].Image = image
		}
	}
	done := func(ns ...int) func(*machine.Rollout, *World) {
		return func(p *machine.Rollout, w *World) {
			for _, n := range ns {
				p.Done = append(p.Done, w.Replicas[n].ID)
				w.Replicas[n].Image = "new"
			}
		}
	}
	alone := func(_ *machine.Rollout, w *World) { w.Replicas = w.Replicas[:1] }
	behind := func(n int) func(*machine.Rollout, *World) {
		return func(_ *machine.Rollout, w *World) { w.Replicas[n].Stored.Applied = 500 - handoff.MaxLag - 1 }
	}
	type steps = []func(*machine.Rollout, *World)
	for name, c := range map[string]struct {
		with  steps
		act   string // "kind replica"
		stop  string
		waits string
	}{
		"a follower first":                {act: "tell n2"},
		"then the next follower":          {with: steps{done(1)}, act: "tell n3"},
		"the leader hands the lead over":  {with: steps{done(1, 2)}, act: "transfer n2"},
		"to one that is well":             {with: steps{done(1, 2), func(_ *machine.Rollout, w *World) { w.Self = "n2" }, away(1)}, act: "tell n1"},
		"then it is told":                 {with: steps{done(1, 2), func(_ *machine.Rollout, w *World) { w.Self = "n2" }}, act: "tell n1"},
		"all are done":                    {with: steps{done(0, 1, 2)}},
		"the image is not all here":       {with: steps{func(_ *machine.Rollout, w *World) { w.Lacks = "3 blobs are on their way" }}, waits: "3 blobs are on their way"},
		"its turn, and it is away":        {with: steps{away(1)}, waits: "node-2: it cannot be reached"},
		"another one is away":             {with: steps{away(2)}, waits: "majority: without node-2 1 of 3 voters"},
		"another one is behind":           {with: steps{behind(2)}, waits: "majority: without node-2 1 of 3 voters"},
		"its turn, and it is behind":      {with: steps{behind(1)}, act: "tell n2"},
		"two voters":                      {with: steps{func(_ *machine.Rollout, w *World) { w.Replicas = w.Replicas[:2] }}, waits: "majority: without node-2 1 of 2 voters"},
		"one without a vote":              {with: steps{func(_ *machine.Rollout, w *World) { w.Replicas = w.Replicas[:2]; w.Replicas[1].Voter = false }}, act: "tell n2"},
		"alone":                           {with: steps{alone}, act: "tell n1"},
		"alone, back":                     {with: steps{alone, told(0, time.Minute, "new")}, act: "prove n1"},
		"alone, back with the old one":    {with: steps{alone, told(0, Within, "old")}, stop: "replica node-1 was not back with the new image within 5m0s"},
		"the appliance is not its object": {with: steps{done(1, 2), func(_ *machine.Rollout, w *World) { w.Replicas[0].Machine = "" }}},
		"told, still the old one":         {with: steps{told(1, time.Second, "old")}, waits: "node-2 image: it was told to run the new image"},
		"told, away":                      {with: steps{told(1, time.Second, "old"), away(1)}, waits: "node-2: it cannot be reached just now"},
		"told, back":                      {with: steps{told(1, time.Minute, "new")}, act: "prove n2"},
		"told, back and away":             {with: steps{told(1, time.Minute, "new"), away(1)}, waits: "node-2: it cannot be reached just now"},
		"told, back and behind":           {with: steps{told(1, time.Minute, "new"), behind(1)}, waits: "node-2 log: 65 entries behind; it must be within 64"},
		"told, never back":                {with: steps{told(1, Within, "old"), away(1)}, stop: "replica node-2 was not back with the new image within 5m0s: it was told to run the new image, and its node pulls and starts it; it cannot be reached just now"},
		"told, late but back":             {with: steps{told(1, Within, "new")}, act: "prove n2"},
		"told, back, and no commit ends":  {with: steps{told(1, 2*Within, "new")}, stop: "it took part in no commit"},
		"told, and left":                  {with: steps{told(1, time.Second, "old"), func(_ *machine.Rollout, w *World) { w.Replicas = append(w.Replicas[:1], w.Replicas[2]) }}},
		"nobody to take the lead":         {with: steps{done(1, 2), func(_ *machine.Rollout, w *World) { w.Replicas[1].Image, w.Replicas[2].Image = "old", "old" }}, waits: "lead: no replica"},
	} {
		p, w := scene()
		for _, f := range c.with {
			f(&p, &w)
		}
		d := Next(p, w)
		act := ""
		if d.Action != (Action{}) {
			act = string(d.Action.Kind) + " " + d.Action.Replica
		}
		waits := ""
		for _, g := range d.Gates {
			if !g.OK {
				waits += g.Name + ": " + g.Text + "; "
			}
		}
		if act != c.act || (d.Stop != "") != (c.stop != "") || !strings.Contains(d.Stop, c.stop) || !strings.Contains(waits, c.waits) {
			t.Errorf("%s: action %q, stop %q, waits for %q; want %q, %q, %q", name, act, d.Stop, waits, c.act, c.stop, c.waits)
		}
		if act == "" && c.waits != "" && waits == "" {
			t.Errorf("%s: nothing is said to be waited for", name)
		}
	}
}
