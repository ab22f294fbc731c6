package handoff

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
)

var now = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

// scene is a handoff from the stick to three nodes whose replicas are members
// and have everything.
func scene(step machine.HandoffStep, voters ...string) (machine.Handoff, World) {
	p := machine.Handoff{ID: "h-1", Step: step, Since: now, Moved: now, From: "stick"}
	w := World{
		Now: now, Self: "stick", Index: 500, Level: 1, Leads: now.Add(-time.Hour), Backup: 500,
		Replicas: map[string]Seen{"stick": {ID: "stick", Reachable: true, Proved: true, Level: 1, Stored: state.Stored{Last: 500, Applied: 500}}},
		Nodes:    map[machine.ID]Node{},
	}
	is := map[string]bool{"stick": true}
	for _, v := range voters {
		is[strings.TrimPrefix(v, "-")] = !strings.HasPrefix(v, "-")
	}
	for _, n := range []string{"1", "2", "3"} {
		id := "n" + n
		p.Targets = append(p.Targets, machine.HandoffTarget{Machine: machine.ID("m-" + n), Name: "node-" + n})
		w.Nodes[machine.ID("m-"+n)] = Node{Ready: true}
		w.Replicas[id] = Seen{
			ID: id, Machine: machine.ID("m-" + n), Reachable: true, Stored: state.Stored{Last: 500, Applied: 500}, Level: 1, Proved: is[id],
			Close: now.Add(-CloseFor), SameHash: true, Known: true, Keys: true, Sync: time.Duration(4-n[0]+'0') * time.Millisecond,
		}
	}
	for _, id := range []string{"n1", "n2", "n3", "stick"} {
		w.Members.Members = append(w.Members.Members, state.Member{ID: id, Voter: is[id]})
	}
	for _, name := range Trials {
		w.Checks = append(w.Checks, Check{Name: name, OK: true, At: now})
	}
	return p, w
}

// change changes one replica of a scene.
func change(w *World, id string, f func(*Seen)) {
	s := w.Replicas[id]
	f(&s)
	w.Replicas[id] = s
}

func TestNext(t *testing.T) {
	type scenario struct {
		step   machine.HandoffStep
		voters string
		with   func(p *machine.Handoff, w *World)
		act    string // "kind replica"
		to     machine.HandoffStep
		abort  string
		waits  string
	}
	for name, c := range map[string]scenario{
		"all there":      {step: machine.HandoffPreflight, to: machine.HandoffDeploying},
		"a node is away": {step: machine.HandoffPreflight, with: func(_ *machine.Handoff, w *World) { w.Nodes["m-2"] = Node{Why: "its node is not Ready"} }, waits: "node-2: its node is not Ready"},
		"another leads":  {step: machine.HandoffPreflight, with: func(_ *machine.Handoff, w *World) { w.Self = "n1" }, waits: "lead: the appliance must lead"},
		"nothing deployed": {step: machine.HandoffDeploying, with: func(p *machine.Handoff, w *World) {
			delete(w.Replicas, "n1")
		}, act: "deploy "},
		"joined, no member": {step: machine.HandoffDeploying, with: func(_ *machine.Handoff, w *World) { w.Members.Members = w.Members.Members[3:] }, act: "add n1"},
		"joined, away": {step: machine.HandoffDeploying, with: func(_ *machine.Handoff, w *World) {
			w.Members.Members = w.Members.Members[3:]
			change(w, "n1", func(s *Seen) { s.Reachable = false })
		}, waits: "is port 8300 open"},
		"joined, away for long": {step: machine.HandoffDeploying, with: func(_ *machine.Handoff, w *World) {
			w.Members.Members = w.Members.Members[3:]
			change(w, "n1", func(s *Seen) { s.Reachable, s.Away = false, now.Add(-AwayFor) })
		}, act: "leave n1"},
		"joined, away for long on an emulated machine": {step: machine.HandoffDeploying, with: func(_ *machine.Handoff, w *World) {
			w.Members.Members, w.Slower = w.Members.Members[3:], 5
			change(w, "n1", func(s *Seen) { s.Reachable, s.Away = false, now.Add(-AwayFor) })
		}, waits: "is port 8300 open"},
		"joined, away, as the one before it": {step: machine.HandoffDeploying, with: func(_ *machine.Handoff, w *World) {
			w.Members.Members, w.Left = w.Members.Members[3:], map[machine.ID]bool{"m-1": true}
			change(w, "n1", func(s *Seen) { s.Reachable, s.Away = false, now.Add(-AwayFor) })
		}, waits: "is port 8300 open"},
		"a member, away for long": {step: machine.HandoffDeploying, with: func(_ *machine.Handoff, w *World) {
			change(w, "n1", func(s *Seen) { s.Reachable, s.Away = false, now.Add(-time.Hour) })
		}, to: machine.HandoffCatchingUp},
		"all are members": {step: machine.HandoffDeploying, to: machine.HandoffCatchingUp},
		"behind": {step: machine.HandoffCatchingUp, with: func(_ *machine.Handoff, w *World) {
			change(w, "n2", func(s *Seen) { s.Close, s.Stored.Applied = time.Time{}, 20 })
		}, waits: "node-2 log: 480 entries behind"},
		"close, not yet long": {step: machine.HandoffCatchingUp, with: func(_ *machine.Handoff, w *World) { change(w, "n2", func(s *Seen) { s.Close = now.Add(-time.Second) }) }, waits: "within 64 for 30s"},
		"data keys not fetched": {step: machine.HandoffCatchingUp, with: func(_ *machine.Handoff, w *World) {
			n := w.Replicas["n2"]
			n.Keys = false
			w.Replicas["n2"] = n
		}, waits: "node-2 secrets: it has not fetched"},
		"images on their way": {step: machine.HandoffCatchingUp, with: func(_ *machine.Handoff, w *World) {
			change(w, "n3", func(s *Seen) { s.Missing, s.MissingBytes = 2, 300<<20 })
		}, waits: "node-3 images: 2 blobs with 300 MiB"},
		"an image that no replica has": {step: machine.HandoffCatchingUp, with: func(_ *machine.Handoff, w *World) {
			change(w, "n3", func(s *Seen) { s.Lost = "image web:1 is on no replica: push it again" })
		}, to: machine.HandoffPromoting},
		"another state":         {step: machine.HandoffCatchingUp, with: func(_ *machine.Handoff, w *World) { change(w, "n3", func(s *Seen) { s.OtherHash = true }) }, abort: "another state"},
		"a clock a day off":     {step: machine.HandoffCatchingUp, with: func(_ *machine.Handoff, w *World) { change(w, "n3", func(s *Seen) { s.Skew = -24 * time.Hour }) }, waits: "node-3 clock: its clock shows 2026-11-25 12:00 UTC, and that of the replica that leads (the appliance) 2026-11-26 12:00 UTC: set the one that is wrong"},
		"an older release":      {step: machine.HandoffCatchingUp, with: func(_ *machine.Handoff, w *World) { w.Level = 2 }, waits: "supports feature level 1 and the cluster is at 2"},
		"caught up":             {step: machine.HandoffCatchingUp, to: machine.HandoffPromoting},
		"the first voter":       {step: machine.HandoffPromoting, act: "promote n1"},
		"the next is not ready": {step: machine.HandoffPromoting, with: func(_ *machine.Handoff, w *World) { change(w, "n2", func(s *Seen) { s.Close = time.Time{} }) }, waits: "node-2 log"},
		"the second voter":      {step: machine.HandoffPromoting, voters: "n1", act: "promote n2"},
		"left without proof":    {step: machine.HandoffPromoting, voters: "n1 n2", with: func(_ *machine.Handoff, w *World) { change(w, "n1", func(s *Seen) { s.Proved = false }) }, act: "promote n1"},
		"all are voters":        {step: machine.HandoffPromoting, voters: "n1 n2 n3", to: machine.HandoffTransferring},
		"nobody leaves":         {step: machine.HandoffPromoting, voters: "n1 n2 n3", with: func(p *machine.Handoff, _ *World) { p.From = "" }, to: machine.HandoffDone},
		"one, without a backup": {step: machine.HandoffPromoting, voters: "n1", with: func(p *machine.Handoff, w *World) { p.Targets, w.Backup = p.Targets[:1], 0 }, act: "backup n1"},
		"one, not matched": {step: machine.HandoffPromoting, voters: "n1", with: func(p *machine.Handoff, w *World) {
			p.Targets = p.Targets[:1]
			change(w, "n1", func(s *Seen) { s.Stored.Last = 499 })
		}, waits: "log: replica n1 has entry 499 of 500"},
		"one":                    {step: machine.HandoffPromoting, voters: "n1", with: func(p *machine.Handoff, _ *World) { p.Targets = p.Targets[:1] }, to: machine.HandoffTransferring},
		"the best disk leads":    {step: machine.HandoffTransferring, voters: "n1 n2 n3", act: "transfer n3"},
		"the best there is":      {step: machine.HandoffTransferring, voters: "n1 n2 n3", with: func(_ *machine.Handoff, w *World) { change(w, "n3", func(s *Seen) { s.Reachable = false }) }, act: "transfer n2"},
		"a node leads":           {step: machine.HandoffTransferring, voters: "n1 n2 n3", with: func(_ *machine.Handoff, w *World) { w.Self = "n2" }, act: "demote stick"},
		"the stick has no vote":  {step: machine.HandoffTransferring, voters: "n1 n2 n3 -stick", with: func(_ *machine.Handoff, w *World) { w.Self = "n2" }, to: machine.HandoffWatching},
		"not for long yet":       {step: machine.HandoffWatching, voters: "n1 n2 n3 -stick", with: func(_ *machine.Handoff, w *World) { w.Self, w.Leads = "n2", now.Add(-time.Second) }, waits: "leads for 1s; it must for 1m0s"},
		"not tried":              {step: machine.HandoffWatching, voters: "n1 n2 n3 -stick", with: func(_ *machine.Handoff, w *World) { w.Self, w.Checks = "n2", nil }, act: "check ", waits: "dhcp: not tried yet"},
		"an old backup":          {step: machine.HandoffWatching, voters: "n1 n2 n3 -stick", with: func(_ *machine.Handoff, w *World) { w.Self, w.Index = "n2", 5000 }, act: "backup n2"},
		"it serves":              {step: machine.HandoffWatching, voters: "n1 n2 n3 -stick", with: func(_ *machine.Handoff, w *World) { w.Self = "n2" }, to: machine.HandoffSealing},
		"the stick took it back": {step: machine.HandoffWatching, voters: "n1 n2 n3", to: machine.HandoffTransferring},
		"the stick is told":      {step: machine.HandoffSealing, voters: "n1 n2 n3 -stick", with: func(_ *machine.Handoff, w *World) { w.Self = "n2" }, act: "seal stick"},
		"the stick was pulled too early": {step: machine.HandoffSealing, voters: "n1 n2 n3 -stick", with: func(_ *machine.Handoff, w *World) {
			w.Self = "n2"
			change(w, "stick", func(s *Seen) { s.Reachable = false })
		}, waits: "plug it in and boot it again, or, if it is gone for good, declare it destroyed (rackseed handoff lost)"},
		"the stick is destroyed": {step: machine.HandoffSealing, voters: "n1 n2 n3 -stick", with: func(p *machine.Handoff, w *World) {
			w.Self, p.Lost = "n2", true
			change(w, "stick", func(s *Seen) { s.Reachable = false })
		}, act: "remove stick"},
		"the stick knows": {step: machine.HandoffSealing, voters: "n1 n2 n3 -stick", with: func(_ *machine.Handoff, w *World) {
			w.Self = "n2"
			change(w, "stick", func(s *Seen) { s.Sealed = true })
		}, act: "remove stick"},
		"the stick is removed": {step: machine.HandoffSealing, voters: "n1 n2 n3", with: func(_ *machine.Handoff, w *World) {
			w.Self, w.Members.Members = "n2", w.Members.Members[:3]
		}, act: "leave stick"},
		"the stick is gone": {step: machine.HandoffSealing, voters: "n1 n2 n3", with: func(_ *machine.Handoff, w *World) {
			w.Self, w.Members.Members = "n2", w.Members.Members[:3]
			delete(w.Replicas, "stick")
		}, act: "rekey stick"},
		"it never had the new key": {step: machine.HandoffSealing, voters: "n1 n2 n3", with: func(_ *machine.Handoff, w *World) {
			w.Self, w.Members.Members, w.Rekeyed = "n2", w.Members.Members[:3], true
			delete(w.Replicas, "stick")
			change(w, "n1", func(s *Seen) { s.BackedUp = true })
			change(w, "n2", func(s *Seen) { s.BackedUp = true })
		}, waits: "node-3 backup: it is to write one under the new data key"},
		"a backup under the new key": {step: machine.HandoffSealing, voters: "n1 n2 n3", with: func(_ *machine.Handoff, w *World) {
			w.Self, w.Members.Members, w.Rekeyed = "n2", w.Members.Members[:3], true
			delete(w.Replicas, "stick")
			change(w, "n1", func(s *Seen) { s.Reachable = false })
			change(w, "n2", func(s *Seen) { s.BackedUp = true })
			change(w, "n3", func(s *Seen) { s.BackedUp = true })
		}, to: machine.HandoffDone},
		"nowhere a backup under the new key": {step: machine.HandoffSealing, voters: "n1 n2 n3", with: func(_ *machine.Handoff, w *World) {
			w.Self, w.Members.Members, w.Rekeyed = "n2", w.Members.Members[:3], true
			delete(w.Replicas, "stick")
			for _, id := range []string{"n1", "n2", "n3"} {
				change(w, id, func(s *Seen) { s.Reachable = false })
			}
		}, waits: "none of the nodes can be reached"},
		"the stick is destroyed and there all the same": {step: machine.HandoffSealing, voters: "n1 n2 n3 -stick", with: func(p *machine.Handoff, w *World) {
			w.Self, p.Lost = "n2", true
		}, act: "seal stick"},
		"there all the same, and does not take it": {step: machine.HandoffSealing, voters: "n1 n2 n3 -stick", with: func(p *machine.Handoff, w *World) {
			w.Self, p.Lost, w.Failed, w.FailedAt, w.Failures = "n2", true, Action{Seal, "stick", ""}, now, Tries
		}, act: "remove stick"},
		"destroyed before anything began, a node leads": {step: machine.HandoffPreflight, with: func(p *machine.Handoff, w *World) {
			p.Lost, p.Forward, w.Self = true, true, "n1"
		}, to: machine.HandoffDeploying},
		"destroyed with a vote": {step: machine.HandoffTransferring, voters: "n1 n2 n3", with: func(p *machine.Handoff, w *World) {
			p.Lost, p.Forward, w.Self = true, true, "n1"
			change(w, "stick", func(s *Seen) { s.Reachable = false })
		}, act: "demote stick"},
		"destroyed, and another state": {step: machine.HandoffCatchingUp, with: func(p *machine.Handoff, w *World) {
			p.Lost, p.Forward, w.Self = true, true, "n1"
			change(w, "n3", func(s *Seen) { s.OtherHash = true })
		}, waits: "another state"},
		"destroyed, and nothing moves": {step: machine.HandoffWatching, voters: "n1 n2 n3 -stick", with: func(p *machine.Handoff, w *World) {
			p.Lost, p.Forward, p.Moved, w.Self = true, true, now.Add(-24*time.Hour), "n1"
			w.Checks[0] = Check{Name: "dhcp", Text: "no answer", At: now}
		}, waits: "dhcp: no answer"},
		"forward, a voter is away": {step: machine.HandoffTransferring, voters: "n1 n2 n3", with: func(p *machine.Handoff, w *World) {
			p.Forward, w.Self = true, "n1"
			change(w, "n3", func(s *Seen) { s.Reachable, s.Proved = false, false })
		}, act: "demote n3"},
		"forward, and one came back": {step: machine.HandoffWatching, voters: "n1 n2 -n3 -stick", with: func(p *machine.Handoff, w *World) { p.Forward, w.Self = true, "n1" }, act: "promote n3"},
		"forward, and one never started": {step: machine.HandoffDeploying, with: func(p *machine.Handoff, w *World) {
			p.Forward, w.Self = true, "n1"
			delete(w.Replicas, "n3")
			w.Failed, w.FailedAt, w.Failures = Action{Deploy, "", "m-3"}, now, Tries
		}, to: machine.HandoffCatchingUp},
		"given up, a node leads": {step: machine.HandoffAborting, voters: "n1 n2 n3 -stick", with: func(_ *machine.Handoff, w *World) { w.Self = "n2" }, act: "promote stick"},
		"given up, both vote":    {step: machine.HandoffAborting, voters: "n1 n2 n3", with: func(_ *machine.Handoff, w *World) { w.Self = "n2" }, act: "transfer stick"},
		"given up, the stick is away": {step: machine.HandoffAborting, voters: "n1 n2 n3", with: func(_ *machine.Handoff, w *World) {
			w.Self = "n2"
			change(w, "stick", func(s *Seen) { s.Reachable = false })
		}, waits: "let the handoff go on"},
		"given up, one is dead":      {step: machine.HandoffAborting, voters: "n1 n2 n3", with: func(_ *machine.Handoff, w *World) { change(w, "n2", func(s *Seen) { s.Reachable = false }) }, act: "demote n2"},
		"given up, the others leave": {step: machine.HandoffAborting, voters: "n1", act: "demote n1"},
		"given up, no voters":        {step: machine.HandoffAborting, act: "remove n1"},
		"given up, no members":       {step: machine.HandoffAborting, with: func(_ *machine.Handoff, w *World) { w.Members.Members = w.Members.Members[3:] }, act: "leave n1"},
		"given up, one that proved nothing leads": {step: machine.HandoffAborting, voters: "n1 n2", with: func(p *machine.Handoff, w *World) {
			p.From, p.Targets, w.Self = "", p.Targets[1:2], "n2"
			change(w, "n2", func(s *Seen) { s.Proved = false })
			change(w, "stick", func(s *Seen) { s.Reachable = false })
		}, act: "transfer n1"},
		"given up, it leads, and no other is there": {step: machine.HandoffAborting, voters: "n2", with: func(p *machine.Handoff, w *World) {
			p.From, p.Targets, w.Self = "", p.Targets[1:2], "n2"
			change(w, "n2", func(s *Seen) { s.Proved = false })
			change(w, "stick", func(s *Seen) { s.Reachable = false })
		}, waits: "no voter that stays can be reached"},
		"one that proved nothing leads": {step: machine.HandoffPromoting, voters: "n1", with: func(_ *machine.Handoff, w *World) {
			w.Self = "n1"
			change(w, "n1", func(s *Seen) { s.Proved = false })
		}, act: "promote n1"},
		"given up": {step: machine.HandoffAborting, with: func(_ *machine.Handoff, w *World) {
			w.Members.Members = w.Members.Members[3:]
			w.Replicas = map[string]Seen{"stick": w.Replicas["stick"]}
		}, to: machine.HandoffAborted},
		"tried again too soon": {step: machine.HandoffPromoting, with: func(_ *machine.Handoff, w *World) {
			w.Failed, w.FailedAt, w.Failures = Action{Promote, "n1", "m-1"}, now.Add(-time.Second), 1
		}},
		"failed too often": {step: machine.HandoffPromoting, with: func(_ *machine.Handoff, w *World) {
			w.Failed, w.FailedAt, w.Failures = Action{Promote, "n1", "m-1"}, now.Add(-time.Second), Tries
		}, abort: "promote of replica n1 failed 6 times"},
		"stands still": {step: machine.HandoffPreflight, with: func(p *machine.Handoff, w *World) {
			p.Moved = now.Add(-Patience)
			w.Nodes["m-2"] = Node{Why: "its node is not Ready"}
		}, abort: "preflight stood still for 15m0s: node-2: its node is not Ready"},
		"stands still, on an emulated machine": {step: machine.HandoffPreflight, with: func(p *machine.Handoff, w *World) {
			p.Moved, w.Slower = now.Add(-Patience), 5
			w.Nodes["m-2"] = Node{Why: "its node is not Ready"}
		}, waits: "its node is not Ready"},
		"copies for long": {step: machine.HandoffCatchingUp, with: func(p *machine.Handoff, w *World) {
			p.Moved, w.Copied = now.Add(-time.Hour), now.Add(time.Second-Patience)
			change(w, "n3", func(s *Seen) { s.Missing, s.MissingBytes = 1, 1<<30 })
		}, waits: "node-3 images: 1 blobs with 1024 MiB"},
		"copies nothing any more": {step: machine.HandoffCatchingUp, with: func(p *machine.Handoff, w *World) {
			p.Moved, w.Copied = now.Add(-time.Hour), now.Add(-Patience)
			change(w, "n3", func(s *Seen) { s.Missing, s.MissingBytes = 1, 1<<30 })
		}, abort: "catching-up stood still for 15m0s: node-3 images"},
		"copies, as far as who just came to lead knows": {step: machine.HandoffCatchingUp, with: func(p *machine.Handoff, w *World) {
			p.Moved, w.Leads = now.Add(-time.Hour), now.Add(-time.Minute)
			change(w, "n3", func(s *Seen) { s.Close, s.Stored.Applied = time.Time{}, 20 })
		}, waits: "node-3 log: 480 entries behind"},
		"copied, and waits for something else": {step: machine.HandoffCatchingUp, with: func(p *machine.Handoff, w *World) {
			p.Moved, w.Copied = now.Add(-time.Hour), now.Add(-time.Second)
			change(w, "n3", func(s *Seen) { s.Skew = time.Hour })
		}, abort: "catching-up stood still for 15m0s: node-3 clock"},
		"an image is pushed while watching": {step: machine.HandoffWatching, voters: "n1 n2 n3 -stick", with: func(p *machine.Handoff, w *World) {
			p.Moved, w.Self, w.Copied = now.Add(-time.Hour), "n2", now
			change(w, "n1", func(s *Seen) { s.Missing, s.MissingBytes = 3, 4<<30 })
		}, waits: "node-1 images: 3 blobs"},
		"only forward": {step: machine.HandoffSealing, voters: "n1 n2 n3 -stick", with: func(p *machine.Handoff, w *World) {
			w.Self, p.Moved = "n2", now.Add(-24*time.Hour)
			change(w, "stick", func(s *Seen) { s.Reachable = false })
		}, waits: "appliance"},
		"forward without who is away": {step: machine.HandoffPromoting, voters: "n1 n2", with: func(p *machine.Handoff, w *World) {
			p.Forward, w.Self = true, "n1"
			change(w, "n3", func(s *Seen) { s.Reachable = false })
		}, to: machine.HandoffTransferring},
		"forward with nobody": {step: machine.HandoffPromoting, with: func(p *machine.Handoff, w *World) {
			p.Forward = true
			for _, id := range []string{"n1", "n2", "n3"} {
				change(w, id, func(s *Seen) { s.Reachable = false })
			}
		}, waits: "none of the nodes"},
		"over": {step: machine.HandoffDone},
	} {
		t.Run(name, func(t *testing.T) {
			p, w := scene(c.step, strings.Fields(c.voters)...)
			if c.with != nil {
				c.with(&p, &w)
			}
			d := Next(p, w)
			act := ""
			if d.Action != (Action{}) {
				act = string(d.Action.Kind) + " " + d.Action.Replica
			}
			if act != c.act || d.To != c.to {
				t.Errorf("does %q, goes to %q; wanted %q, %q; waits for %s", act, d.To, c.act, c.to, Waiting(d.Gates))
			}
			if (c.abort == "") != (d.Abort == "") || !strings.Contains(d.Abort, c.abort) {
				t.Errorf("gives up %q, wanted %q", d.Abort, c.abort)
			}
			if !strings.Contains(Waiting(d.Gates), c.waits) {
				t.Errorf("waits for %q, wanted %q", Waiting(d.Gates), c.waits)
			}
			// What holds does not read as if it did not.
			for _, g := range d.Gates {
				for _, no := range []string{"cannot", "must", "not ", "install a newer", "on their way"} {
					if g.OK && g.Name != "lead" && !strings.Contains(g.Name, "log") && g.Name != "appliance" && strings.Contains(g.Text, no) {
						t.Errorf("%s holds and says %q", g.Name, g.Text)
					}
				}
			}
		})
	}
}

// Something was copied if less is lacking than ever; new images begin anew.
func TestLacks(t *testing.T) {
	for name, c := range map[string]struct {
		looks  []lacks
		copied bool // at the last look
	}{
		"fewer bytes":            {[]lacks{{2, 100, 0}, {2, 99, 0}}, true},
		"as many":                {[]lacks{{2, 100, 0}, {2, 100, 0}}, false},
		"a new image":            {[]lacks{{0, 0, 0}, {3, 500, 0}}, false},
		"that comes":             {[]lacks{{0, 0, 0}, {3, 500, 0}, {3, 400, 0}}, true},
		"bytes that were spoilt": {[]lacks{{1, 100, 0}, {1, 50, 0}, {1, 100, 0}, {1, 60, 0}}, false},
		"nearer to the log":      {[]lacks{{0, 0, 900}, {0, 0, 800}}, true},
		"entries come and go":    {[]lacks{{0, 0, 100}, {0, 0, 0}, {0, 0, 90}, {0, 0, 70}}, false},
	} {
		least, copied := c.looks[0], false
		for _, now := range c.looks[1:] {
			least, copied = least.then(now)
		}
		if copied != c.copied {
			t.Errorf("%s: copied %v", name, copied)
		}
	}
	s := Seen{Stored: state.Stored{Applied: 100}}
	if near, far := lacksOf(s, 100+MaxLag), lacksOf(s, 101+MaxLag); near.entries != 0 || far.entries != 1+MaxLag {
		t.Errorf("%+v, %+v", near, far)
	}
}

// An image that no replica has holds nothing up, and is named at the gate.
func TestLostImageIsNamed(t *testing.T) {
	const lost = "image web:1 is on no replica: push it again"
	for step, voters := range map[machine.HandoffStep]string{machine.HandoffCatchingUp: "", machine.HandoffWatching: "n1 n2 n3 -stick"} {
		p, w := scene(step, strings.Fields(voters)...)
		if step == machine.HandoffWatching {
			w.Self = "n1"
		}
		change(&w, "n2", func(s *Seen) { s.Lost = lost })
		if d := Next(p, w); !slices.Contains(d.Gates, Gate{"node-2 images", true, lost}) {
			t.Errorf("%s: gates %v", step, d.Gates)
		}
	}
}
