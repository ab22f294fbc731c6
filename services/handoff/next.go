// Package handoff decides how the boot service moves from the replica that it
// began on (the appliance) to replicas on the cluster's nodes: by changing the
// members of one replicated log, one at a time. Never two authorities, never a
// copy. What is to be done next is a pure function of the plan, which is in the
// log, and of what was seen; so whoever leads goes on, after any crash.
//
// docs/handoff.md tells the protocol and the story of a crash at every arrow.
package handoff

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/rackseed/rackseed/services/keyring"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
)

// Seen is a replica as the leader sees it now.
type Seen struct {
	ID        string
	Machine   machine.ID
	Reachable bool
	Stored    state.Stored
	// Level is the highest feature level that it supports.
	Level uint64
	// Proved says that it took part in a commit since it is a voter, and was seen
	// to have it.
	Proved bool
	// Away is since when it cannot be reached, as far as the leader knows; zero: it can.
	Away time.Time
	// Close is since when its log was never further behind than MaxLag; zero: it
	// is further behind now.
	Close time.Time
	// SameHash says that its state was found equal at some entry since it is a
	// member, and OtherHash that it was found different.
	SameHash, OtherHash bool
	// Missing blobs and bytes, of those that the state names. Known is false
	// before they were counted.
	Known        bool
	Missing      int
	MissingBytes int64
	// Lost names the images that no replica has; they are in none of both.
	Lost string
	// Sync is the median time that its disk takes for a write with its sync; 0:
	// not known yet.
	Sync time.Duration
	// Skew is its clock minus the leader's.
	Skew time.Duration
	// Keys says that it has the data keys that the state names, Protector what
	// protects them on its disk.
	Keys      bool
	Protector string
	// Unserved says in which of the site's networks with DHCP its node has no address;
	// "": it is in all of them.
	Unserved string
	// BackedUp says that it has a backup with the secrets as they are sealed now.
	BackedUp bool
	// Sealed says that it acknowledged, on its disk, that it is over for it.
	Sealed bool
}

// Node is a target's node.
type Node struct {
	Ready bool
	Why   string // it is not, or cannot carry a replica
}

// Check is one of the trials that the new replicas are put to while they serve.
type Check struct {
	Name string
	OK   bool
	Text string // what was seen, or what is wrong
	At   time.Time
}

// World is what the leader sees.
type World struct {
	Now      time.Time
	Self     string // the leader's server ID
	Members  state.Membership
	Index    uint64 // newest entry of the leader's log
	Level    uint64 // the cluster's feature level
	Replicas map[string]Seen
	Nodes    map[machine.ID]Node
	// Left are the machines of which a replica left since the step began.
	Left map[machine.ID]bool
	// Leads is since when the leader leads.
	Leads time.Time
	// Copied is when a target's replica last lacked less than before, of the blobs or
	// of the log; zero: not since the leader leads.
	Copied time.Time
	// Slower multiplies Patience and AwayFor, on emulated machines; 0 is 1.
	Slower int
	// Backup is the newest entry of a backup that was written to a target.
	Backup uint64
	// Rekeyed says that all secrets are sealed under a data key that the replica that
	// leaves never had.
	Rekeyed bool
	// Checks since the lead was handed over, the newest of each name.
	Checks []Check
	// Failed is the last action that failed, and when; the same is tried again
	// after Pause.
	Failed   Action
	FailedAt time.Time
	Failures int // of that action, in a row
}

// ActionKind is what is to be done.
type ActionKind string

// The actions.
const (
	Deploy   ActionKind = "deploy"   // have a target's node start a replica, which joins
	Add      ActionKind = "add"      // make it a member
	Promote  ActionKind = "promote"  // make it a voter, with proof
	Demote   ActionKind = "demote"   // make it no voter
	Remove   ActionKind = "remove"   // no member
	Transfer ActionKind = "transfer" // hand it the lead
	Seal     ActionKind = "seal"     // have it acknowledge that it is over, and destroy its data keys
	Rekey    ActionKind = "rekey"    // seal all secrets under a new data key
	Leave    ActionKind = "leave"    // note that it is removed, its ID never to be used again
	Backup   ActionKind = "backup"   // export the state
	Try      ActionKind = "check"    // put the service to its trials
)

// Moves says whether a plan got on by an action; what is only looked at again and
// again must not keep a plan from being given up.
func (k ActionKind) Moves() bool { return k != Backup && k != Try }

// Action is one thing to do, at a replica or a machine.
type Action struct {
	Kind    ActionKind
	Replica string
	Machine machine.ID
}

// Gate is something that must hold before the plan goes on, for people.
type Gate struct {
	Name string
	OK   bool
	Text string
}

// Decision is what to do now. At most one of Action, To and Abort is set; none:
// the gates that are not OK are waited for.
type Decision struct {
	Action Action
	To     machine.HandoffStep
	Abort  string
	Gates  []Gate
	copies bool // a target's replica lacks blobs or entries
}

const (
	// MaxLag is how many entries a replica may be behind to count as close: a
	// batch of Raft's.
	MaxLag = 64
	// CloseFor is how long it must have been close.
	CloseFor = 30 * time.Second
	// MaxSkew is how far clocks may differ: leases and windows are in real time.
	MaxSkew = time.Minute
	// Pause is the time before what failed is tried again, Tries how often.
	Pause = 5 * time.Second
	Tries = 6
	// Patience is how long a step may stand still, with nothing copied, before it is
	// given up; not in Sealing, which only goes forward.
	Patience = 15 * time.Minute
	// AwayFor is after what time one that joined, and is no member, is taken for lost
	// with its folder: it can never be invited again under its ID.
	AwayFor = 5 * time.Minute
	// WatchFor is how long the new leader serves before the old one is let go.
	WatchFor = time.Minute
	// FreshBackup is how many entries a backup may be behind.
	FreshBackup = 1000
)

// Trials are the names of the checks that must be OK while watching.
var Trials = []string{"dhcp", "boot script", "ignition", "console"}

// Next says what is to be done now.
func Next(p machine.Handoff, w World) Decision {
	d := next(p, w)
	if d.Action != (Action{}) && d.Action == w.Failed && d.Abort == "" {
		switch {
		case w.Failures >= Tries && mayAbort(p):
			return Decision{Abort: fmt.Sprintf("%s of replica %s failed %d times", d.Action.Kind, w.Members.Called(d.Action.Replica), w.Failures), Gates: d.Gates}
		case w.Now.Sub(w.FailedAt) < Pause:
			d.Action = Action{}
		}
	}
	if patience := w.slower(Patience); d.Action == (Action{}) && d.To == "" && d.Abort == "" && mayAbort(p) && w.still(p, d.copies) >= patience {
		d.Abort = fmt.Sprintf("%s stood still for %v: %s", p.Step, patience, Waiting(d.Gates))
	}
	return d
}

// mayAbort says whether a plan may still be given up by itself.
func mayAbort(p machine.Handoff) bool {
	switch p.Step {
	case machine.HandoffSealing, machine.HandoffAborting, machine.HandoffDone, machine.HandoffAborted:
		return false
	}
	return !p.Forward && !p.Lost
}

// Waiting is what a plan waits for, in words.
func Waiting(gates []Gate) string {
	var list []string
	for _, g := range gates {
		if !g.OK {
			list = append(list, g.Name+": "+g.Text)
		}
	}
	return cmp.Or(strings.Join(list, "; "), "nothing")
}

func next(p machine.Handoff, w World) Decision {
	n := &planner{p: p, w: w}
	if mayAbort(p) || p.Forward && p.Step != machine.HandoffAborting && p.Step != machine.HandoffSealing {
		if len(n.targets()) == 0 {
			n.gate("nodes", false, "none of the nodes that the boot service shall move to can be reached")
			return n.d
		}
	}
	switch p.Step {
	case machine.HandoffPreflight:
		n.preflight()
	case machine.HandoffDeploying:
		n.deploying()
	case machine.HandoffCatchingUp:
		n.catchingUp()
	case machine.HandoffPromoting:
		n.promoting()
	case machine.HandoffTransferring:
		n.transferring()
	case machine.HandoffWatching:
		n.watching()
	case machine.HandoffSealing:
		n.sealing()
	case machine.HandoffAborting:
		n.aborting()
	}
	return n.d
}

// planner gathers one decision. The first action or step that is decided
// counts; gates are gathered on.
type planner struct {
	p machine.Handoff
	w World
	d Decision
}

func (n *planner) decided() bool {
	return n.d.Action != (Action{}) || n.d.To != "" || n.d.Abort != ""
}

func (n *planner) act(kind ActionKind, replica string, m machine.ID) {
	if !n.decided() {
		n.d.Action = Action{kind, replica, m}
	}
}

func (n *planner) to(step machine.HandoffStep) {
	if !n.decided() {
		n.d.To = step
	}
}

// either is what is said of a condition, once it holds and until then.
func either(ok bool, holds, lacks string) string {
	if ok {
		return holds
	}
	return lacks
}

// gate notes a condition, and says whether it holds.
func (n *planner) gate(name string, ok bool, text string, a ...any) bool {
	n.d.Gates = append(n.d.Gates, Gate{name, ok, fmt.Sprintf(text, a...)})
	return ok
}

// seen is a target's replica, once it joined.
func (n *planner) seen(t machine.HandoffTarget) (Seen, bool) {
	for _, id := range slices.Sorted(maps.Keys(n.w.Replicas)) { // in order: decided alike each time
		if s := n.w.Replicas[id]; s.Machine == t.Machine {
			return s, true
		}
	}
	return Seen{}, false
}

// targets are those that the plan waits for: all, or those that are there once
// an operator had it go forward. What no member is once all were told to start one
// comes too late for that, as does one whose node does not start any.
func (n *planner) targets() []machine.HandoffTarget {
	if !n.p.Forward {
		return n.p.Targets
	}
	starting := n.p.Step == machine.HandoffPreflight || n.p.Step == machine.HandoffDeploying
	var list []machine.HandoffTarget
	for _, t := range n.p.Targets {
		s, joined := n.seen(t)
		failed := n.w.Failed.Kind == Deploy && n.w.Failed.Machine == t.Machine && n.w.Failures >= Tries
		switch {
		case joined && s.Reachable && (starting || n.w.Members.Has(s.ID)), !joined && starting && n.w.Nodes[t.Machine].Ready && !failed:
			list = append(list, t)
		}
	}
	return list
}

// nodes is the gate of the targets' nodes.
func (n *planner) nodes() bool {
	all := true
	for _, t := range n.targets() {
		node := n.w.Nodes[t.Machine]
		all = n.gate(t.Name, node.Ready, "%s", cmp.Or(node.Why, "its node is Ready")) && all
	}
	return all
}

func (n *planner) preflight() {
	ok := n.nodes()
	if n.p.From != "" {
		leads := n.w.Self == n.p.From || n.p.Lost
		ok = n.gate("lead", leads, "%s", either(leads, either(n.p.Lost, "a node leads", "the appliance leads"), "the appliance must lead, and "+n.w.Self+" does")) && ok
	}
	if ok {
		n.to(machine.HandoffDeploying)
	}
}

// deploying starts the replicas one after another, and makes them members.
func (n *planner) deploying() {
	for _, t := range n.targets() {
		s, joined := n.seen(t)
		switch {
		case !joined:
			if n.gate(t.Name, n.w.Nodes[t.Machine].Ready, "%s", cmp.Or(n.w.Nodes[t.Machine].Why, "its node starts a replica")) {
				n.act(Deploy, "", t.Machine)
			}
			n.gate(t.Name, false, "its replica has not joined yet")
			return
		case !n.w.Members.Has(s.ID):
			if n.gate(t.Name, s.Reachable, "its replica %s joined and %s", s.ID, either(s.Reachable, "can be reached", "cannot be reached: is port 8300 open between the nodes?")) {
				n.act(Add, s.ID, t.Machine)
			} else if !s.Away.IsZero() && n.w.Now.Sub(s.Away) >= n.w.slower(AwayFor) && !n.w.Left[t.Machine] { // once: what lies between the nodes stays there
				n.act(Leave, s.ID, t.Machine)
			}
			return
		}
		n.gate(t.Name, true, "its replica %s is a member", s.ID)
	}
	n.to(machine.HandoffCatchingUp)
}

// ready is the gate before a replica may be a voter.
func (n *planner) ready(t machine.HandoffTarget) bool {
	s, ok := n.seen(t)
	if !ok || !n.w.Members.Has(s.ID) {
		return n.gate(t.Name, false, "its replica is no member")
	}
	if !n.gate(t.Name, s.Reachable, "replica %s %s", s.ID, either(s.Reachable, "can be reached", "cannot be reached")) {
		return false
	}
	if s.OtherHash {
		other := fmt.Sprintf("replica %s has another state than the leader at the same entry: that must never be; make a support bundle, and do not go on", s.ID)
		if n.p.Lost { // nothing to go back to
			return n.gate(t.Name, false, "%s", other)
		}
		n.d.Abort = other
		return false
	}
	lag := uint64(0)
	if n.w.Index > s.Stored.Applied {
		lag = n.w.Index - s.Stored.Applied
	}
	n.d.copies = n.d.copies || lag > MaxLag
	ok = n.gate(t.Name+" log", !s.Close.IsZero() && n.w.Now.Sub(s.Close) >= CloseFor, "%d entries behind; it must be within %d for %v", lag, MaxLag, CloseFor)
	ok = n.gate(t.Name+" state", s.SameHash, "%s", either(s.SameHash, "its state is the leader's at the same entry", "its state was not compared yet")) && ok
	ok = n.images(t, s) && ok
	if s.Unserved != "" {
		ok = n.gate(t.Name+" networks", false, "%s", s.Unserved)
	}
	ok = n.gate(t.Name+" secrets", s.Keys, "%s", either(s.Keys, "it has the data keys; on its disk: "+protected(s.Protector), "it has not fetched the data keys yet")) && ok
	ok = n.gate(t.Name+" disk", s.Sync > 0, "%s", either(s.Sync > 0, fmt.Sprintf("a write takes %v", s.Sync.Round(10*time.Microsecond)), "how long its disk takes is not known yet")) && ok
	ok = n.gate(t.Name+" clock", s.Skew.Abs() <= MaxSkew, "%s", n.clocks(s)) && ok
	level := s.Level >= n.w.Level
	return n.gate(t.Name+" release", level, "it supports feature level %d and the cluster is at %d%s", s.Level, n.w.Level, either(level, "", ": install a newer release there")) && ok
}

// clocks compares a replica's clock with the leader's, which may be the wrong one.
func (n *planner) clocks(s Seen) string {
	if s.Skew.Abs() <= MaxSkew {
		return fmt.Sprintf("its clock differs by %v; at most %v", s.Skew.Round(time.Second), MaxSkew)
	}
	show := func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }
	return fmt.Sprintf("its clock shows %s, and that of the replica that leads (%s) %s: set the one that is wrong, to within %v: a node's as root (date -s, hwclock -w), the appliance's in the setup of its firmware, and boot it again",
		show(n.w.Now.Add(s.Skew)), cmp.Or(n.name(n.w.Self), "the appliance"), show(n.w.Now), MaxSkew)
}

// name is a node's whose replica that is; "": it is none of the targets'.
func (n *planner) name(id string) string {
	for _, t := range n.p.Targets {
		if s, ok := n.seen(t); ok && s.ID == id {
			return t.Name
		}
	}
	return ""
}

// protected says how safe a replica's secrets are on its disk.
func protected(protector string) string {
	return either(protector == keyring.NamePlaintext, "not protected (plaintext)", "protected by "+protector)
}

// images is the gate of the blobs that a replica must have.
func (n *planner) images(t machine.HandoffTarget, s Seen) bool {
	switch {
	case !s.Known:
		return n.gate(t.Name+" images", false, "they were not counted yet")
	case s.Missing > 0:
		n.d.copies = true
		return n.gate(t.Name+" images", false, "%d blobs with %d MiB are on their way", s.Missing, s.MissingBytes>>20)
	}
	return n.gate(t.Name+" images", true, "%s", cmp.Or(s.Lost, "all are there"))
}

func (n *planner) catchingUp() {
	ok := true
	for _, t := range n.targets() {
		ok = n.ready(t) && ok
	}
	if ok && !n.decided() {
		n.to(machine.HandoffPromoting)
	}
}

// promoting makes the targets voters in turn. The step from one voter to two is
// the fragile one, since then both are needed: it is passed only while the next
// one is ready, too.
func (n *planner) promoting() {
	if !n.voters() {
		return
	}
	if n.p.From == "" {
		n.to(machine.HandoffDone)
		return
	}
	if len(n.targets()) == 1 {
		// Afterwards there is no other replica: what the one has must be all there
		// is, and be somewhere else, too.
		s, _ := n.seen(n.targets()[0])
		matched := n.gate("log", s.Stored.Last >= n.w.Index, "replica %s has entry %d of %d", s.ID, s.Stored.Last, n.w.Index)
		fresh := n.backedUp()
		if !fresh {
			n.act(Backup, s.ID, s.Machine)
		}
		if !matched || !fresh {
			return
		}
	}
	n.to(machine.HandoffTransferring)
}

// voters makes the targets proved voters, one at a time, and says whether all are.
func (n *planner) voters() bool {
	ready := true
	for _, t := range n.targets() {
		if s, ok := n.seen(t); !ok || !n.w.Members.Voter(s.ID) {
			ready = n.ready(t) && ready
		}
	}
	if n.d.Abort != "" {
		return false
	}
	for _, t := range n.targets() {
		s, _ := n.seen(t)
		votes := n.w.Members.Voter(s.ID)
		switch {
		case votes && s.Proved:
			continue
		case votes, ready: // a vote by a leader that is gone: prove it, or undo it
			n.act(Promote, s.ID, t.Machine)
		}
		return false
	}
	return true
}

// backedUp is the gate of a backup that is not too old.
func (n *planner) backedUp() bool {
	fresh := n.w.Backup > 0 && n.w.Backup+FreshBackup >= n.w.Index
	return n.gate("backup", fresh, "the newest backup has entry %d of %d", n.w.Backup, n.w.Index)
}

// best is the target that should lead: the one whose disk takes least.
func (n *planner) best() (Seen, bool) {
	var all []Seen
	for _, t := range n.targets() {
		if s, ok := n.seen(t); ok && s.Reachable && s.Proved && n.w.Members.Voter(s.ID) {
			all = append(all, s)
		}
	}
	if len(all) == 0 {
		return Seen{}, false
	}
	return slices.MinFunc(all, func(a, b Seen) int {
		return cmp.Or(cmp.Compare(a.Sync, b.Sync), cmp.Compare(a.ID, b.ID))
	}), true
}

// transferring hands the lead to a target, which then takes the vote from the
// old one.
func (n *planner) transferring() {
	if n.w.Self == n.p.From {
		best, ok := n.best()
		if n.gate("lead", ok, "%s", either(ok, "replica "+best.ID+" can take it", "no node can take it")) {
			n.act(Transfer, best.ID, best.Machine)
		}
		return
	}
	if n.w.Members.Voter(n.p.From) {
		n.release()
		return
	}
	n.to(machine.HandoffWatching)
}

// release takes the vote from the old one. When an operator had the plan go forward,
// targets that are away lose theirs first: while they count, the old one is needed.
func (n *planner) release() {
	for _, t := range n.p.Targets {
		if s, ok := n.seen(t); n.p.Forward && ok && !s.Reachable && n.w.Members.Voter(s.ID) {
			n.act(Demote, s.ID, t.Machine)
		}
	}
	n.act(Demote, n.p.From, "")
}

// watching puts the new replicas to their trials while the old one can still
// take the lead back.
func (n *planner) watching() {
	if n.w.Self == n.p.From || n.w.Members.Voter(n.p.From) { // it took it back meanwhile
		n.to(machine.HandoffTransferring)
		return
	}
	// Who came back after it was gone forward without.
	ok := !n.p.Forward || n.voters()
	for _, t := range n.targets() {
		s, _ := n.seen(t)
		votes := s.Reachable && s.Proved && n.w.Members.Voter(s.ID)
		ok = n.gate(t.Name, votes, "its replica %s %s a voter that can be reached", s.ID, either(votes, "is", "must be")) && ok
	}
	leads := n.w.Now.Sub(n.w.Leads)
	ok = n.gate("lead", leads >= WatchFor, "replica %s leads for %v; it must for %v", n.w.Members.Called(n.w.Self), leads.Round(time.Second), WatchFor) && ok
	for _, name := range Trials {
		c := Check{Text: "not tried yet"}
		for _, x := range n.w.Checks {
			if x.Name == name {
				c = x
			}
		}
		if !n.gate(name, c.OK, "%s", c.Text) {
			ok = false
			if n.w.Now.Sub(c.At) >= Pause {
				n.act(Try, "", "")
			}
		}
	}
	// What came since the vote: the old one may be the only one that has it.
	for _, t := range n.targets() {
		s, _ := n.seen(t)
		ok = n.images(t, s) && ok
		if s.Unserved != "" {
			ok = n.gate(t.Name+" networks", false, "%s", s.Unserved)
		}
	}
	fresh := n.backedUp()
	switch {
	case ok && fresh:
		n.to(machine.HandoffSealing)
	case ok:
		n.act(Backup, n.w.Self, "")
	}
}

// sealing lets the old replica go: it must have acknowledged that it is over
// before it is removed, since a removed one is told nothing.
func (n *planner) sealing() {
	old, known := n.w.Replicas[n.p.From]
	switch {
	case n.w.Self == n.p.From:
		n.gate("lead", false, "the appliance leads again, and must not: hand the lead to a node")
		if best, ok := n.best(); ok {
			n.act(Transfer, best.ID, best.Machine)
		}
	case n.w.Members.Voter(n.p.From):
		n.release()
	case n.w.Members.Has(n.p.From) && !old.Sealed && n.p.Lost && old.Reachable && n.w.Failures < Tries: // it is there all the same
		n.act(Seal, n.p.From, "")
	case n.w.Members.Has(n.p.From) && !old.Sealed && !n.p.Lost:
		if n.gate("appliance", old.Reachable, "it must acknowledge that it is over for it%s", either(old.Reachable, "", ", and cannot be reached: plug it in and boot it again, or, if it is gone for good, declare it destroyed (rackseed handoff lost)")) {
			n.act(Seal, n.p.From, "")
		}
	case n.w.Members.Has(n.p.From):
		n.act(Remove, n.p.From, "")
	case known:
		n.act(Leave, n.p.From, "")
	case !n.gate("secrets", n.w.Rekeyed, "%s", either(n.w.Rekeyed, "all are sealed under a new data key", "they are to be sealed under a new data key, once a majority has it")):
		n.act(Rekey, n.p.From, "")
	case !n.newBackups():
	default:
		n.to(machine.HandoffDone)
	}
}

// newBackups is the gate of the backups that replace those from before the new data key:
// nobody has the old one any more. Who is away writes one once it is back.
func (n *planner) newBackups() bool {
	there, ok := 0, true
	for _, t := range n.targets() {
		if s, joined := n.seen(t); joined && s.Reachable {
			there++
			ok = n.gate(t.Name+" backup", s.BackedUp, "%s", either(s.BackedUp, "it has one under the new data key", "it is to write one under the new data key")) && ok
		}
	}
	return ok && (there > 0 || n.gate("backup", false, "none of the nodes can be reached, one of which is to have a backup under the new data key"))
}
