// Package rollout decides how the replicas on nodes come to run another image of
// the boot service: one after another, the one that leads last, each only once the
// one before is back and took part in a commit. What is to be done next is a pure
// function of the plan, which is in the log, and of what was seen; so whoever leads
// goes on with it.
package rollout

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rackseed/rackseed/services/handoff"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
)

// Within is how long a replica has to be back with a new image, where the order
// says nothing else: its node asks every 15 s, and pulls the image first. It is
// multiplied by the site's slowness.
const Within = 5 * time.Minute

// Seen is a replica as the leader sees it now.
type Seen struct {
	machine.Replica
	Reachable bool
	Voter     bool // by Raft's configuration
	Stored    state.Stored
}

// World is what the leader sees.
type World struct {
	Now      time.Time
	Self     string // the leader's server ID
	Index    uint64 // newest entry of the leader's log
	Replicas []Seen // in service, by name
	// Lacks is what of the image is not here, where the nodes pull it from; "":
	// nothing.
	Lacks string
}

// ActionKind is what is to be done.
type ActionKind string

// The actions.
const (
	Tell     ActionKind = "tell"     // have a replica's node told to run the image
	Prove    ActionKind = "prove"    // see it take part in a commit, and note that it is done
	Transfer ActionKind = "transfer" // hand it the lead
)

// Action is one thing to do, at a replica.
type Action struct {
	Kind    ActionKind
	Replica string
}

// Decision is what to do now. At most one of Action and Stop is set; none: the
// gates that are not OK are waited for.
type Decision struct {
	Action Action
	Stop   string // stop the rollout, and why
	Gates  []handoff.Gate
}

// gate notes a condition, and says whether it holds.
func (d *Decision) gate(name string, ok bool, text string, a ...any) bool {
	d.Gates = append(d.Gates, handoff.Gate{Name: name, OK: ok, Text: fmt.Sprintf(text, a...)})
	return ok
}

// behind is how many entries a replica has not applied.
func (w World) behind(s Seen) uint64 {
	if s.ID == w.Self || s.Stored.Applied >= w.Index {
		return 0
	}
	return w.Index - s.Stored.Applied
}

// well says whether a voter would do its part in a commit now.
func (w World) well(s Seen) bool {
	return s.Voter && (s.ID == w.Self || s.Reachable && w.behind(s) <= handoff.MaxLag)
}

// Next says what is to be done now.
func Next(p machine.Rollout, w World) (d Decision) {
	if p.Turn != "" {
		w.returning(p, &d)
		return d
	}
	left := w.left(p)
	if len(left) == 0 {
		return d // the state ends it
	}
	next := left[0]
	voters, stay := 0, 0
	for _, s := range w.Replicas {
		if s.Voter {
			voters++
			if s.ID != next.ID && w.well(s) {
				stay++
			}
		}
	}
	ok := d.gate("image", w.Lacks == "", "%s", cmp.Or(w.Lacks, "all of it is here"))
	if next.ID != w.Self {
		ok = d.gate(next.Name, next.Reachable, "%s", either(next.Reachable, "it is there", "it cannot be reached: bring its node back, or take it away (rackseed handoff remove "+next.Name+")")) && ok
	}
	// A voter that is alone may go: nobody else could serve meanwhile anyway.
	if voters > 1 {
		enough := !next.Voter || stay > voters/2
		ok = d.gate("majority", enough, "without %s %d of %d voters are reachable and no more than %d entries behind; %d must be", next.Name, stay, voters, handoff.MaxLag, voters/2+1) && ok
	}
	if !ok {
		return d
	}
	if next.ID == w.Self && voters > 1 {
		heir, found := w.heir(p)
		if d.gate("lead", found, "%s", either(found, heir.Name+" can take it", "no replica that runs the new image can take it")) {
			d.Action = Action{Transfer, heir.ID}
		}
		return d
	}
	d.Action = Action{Tell, next.ID}
	return d
}

// returning waits for the replica that was told.
func (w World) returning(p machine.Rollout, d *Decision) {
	i := slices.IndexFunc(w.Replicas, func(s Seen) bool { return s.ID == p.Turn })
	if i < 0 {
		return // it left just now: the state goes on without it
	}
	s := w.Replicas[i]
	runs := s.Image == p.Image
	ok := d.gate(s.Name+" image", runs, "%s", either(runs, "it runs release "+s.Release, "it was told to run the new image, and its node pulls and starts it"))
	there := s.ID == w.Self || s.Reachable
	ok = d.gate(s.Name, there, "%s", either(there, "it is there", "it cannot be reached just now")) && ok
	if there {
		lag := w.behind(s)
		ok = d.gate(s.Name+" log", lag <= handoff.MaxLag, "%d entries behind; it must be within %d", lag, handoff.MaxLag) && ok
	}
	limit, since := time.Duration(p.Within), w.Now.Sub(p.Told)
	switch {
	case ok && since < 2*limit: // as much again for the commit
		d.Action = Action{Prove, s.ID}
	case since >= limit:
		d.Stop = fmt.Sprintf("replica %s was not back with the new image within %v: %s", s.Name, limit, cmp.Or(waiting(d.Gates), "it took part in no commit"))
	}
}

// left are the replicas whose turn comes, in order: those that follow by name, and
// last the one that leads.
func (w World) left(p machine.Rollout) (list []Seen) {
	var leader []Seen
	for _, s := range w.Replicas {
		switch {
		case s.Machine == "" || slices.Contains(p.Done, s.ID):
		case s.ID == w.Self:
			leader = append(leader, s)
		default:
			list = append(list, s)
		}
	}
	return append(list, leader...)
}

// heir is who may lead while the leader's own turn is: one that is done.
func (w World) heir(p machine.Rollout) (Seen, bool) {
	for _, s := range w.Replicas {
		if s.ID != w.Self && slices.Contains(p.Done, s.ID) && s.Image == p.Image && w.well(s) {
			return s, true
		}
	}
	return Seen{}, false
}

// waiting is what is waited for, in words; "": nothing.
func waiting(gates []handoff.Gate) string {
	var list []string
	for _, g := range gates {
		if !g.OK {
			list = append(list, g.Text)
		}
	}
	return strings.Join(list, "; ")
}

// either is what is said of a condition, once it holds and until then.
func either(ok bool, holds, lacks string) string {
	if ok {
		return holds
	}
	return lacks
}

// Plan is the rollout of an image that is published under a ref; "": the boot
// service's own. within is how long a replica has to be back; 0: Within.
func Plan(v state.View, m state.Membership, id, operator, ref string, within time.Duration) (machine.Rollout, error) {
	refuse := func(text string, a ...any) (machine.Rollout, error) {
		return machine.Rollout{}, &state.Refusal{Text: fmt.Sprintf(text, a...)}
	}
	published, ok := v.Image(cmp.Or(ref, state.ServiceRef))
	on := slices.DeleteFunc(v.Replicas(), func(r machine.Replica) bool { return r.Machine == "" })
	h, planned := v.Handoff()
	p, rolling := v.Rollout()
	switch {
	case rolling && !p.Step.Over():
		return refuse("a rollout is under way")
	case planned && !h.Step.Over():
		return refuse("a handoff is under way (%s): wait for its end, or give it up (rackseed handoff abort)", h.Step)
	case len(on) == 0:
		return refuse("no replica of the boot service runs on a node: a newer stick renews the appliance")
	case !ok:
		return refuse("%s is not published: push it first (rackseed image push)", cmp.Or(ref, "the boot service's own image"))
	case !slices.ContainsFunc(on, func(r machine.Replica) bool { return r.Image != published.Digest || r.Ordered != published.Digest }):
		return refuse("every replica on a node runs it already")
	case len(m.Voters()) == 2:
		return refuse("of two voters both are always needed, and one would be restarted: add a replica (rackseed handoff start --node NAME), or take one away (rackseed handoff remove NAME) first")
	}
	site, _ := v.Site()
	within = cmp.Or(within, Within*time.Duration(max(site.Slower(), 1)))
	return machine.Rollout{ID: id, Image: published.Digest, By: operator, Within: machine.Duration(within)}, nil
}
