package machine

import (
	"cmp"
	"slices"
	"time"
)

// HandoffStep is where a handoff stands. It is the intent; Raft's configuration
// is the fact.
type HandoffStep string

// The steps, in order; a handoff that is given up goes to HandoffAborting from
// any before HandoffSealing.
const (
	HandoffPreflight    HandoffStep = "preflight"    // is everything there?
	HandoffDeploying    HandoffStep = "deploying"    // replicas start on their nodes, and become members
	HandoffCatchingUp   HandoffStep = "catching-up"  // they fetch the log and every blob
	HandoffPromoting    HandoffStep = "promoting"    // one after another becomes a voter
	HandoffTransferring HandoffStep = "transferring" // one of them leads, the old one is no voter
	HandoffWatching     HandoffStep = "watching"     // do they serve as it did?
	HandoffSealing      HandoffStep = "sealing"      // the old one knows that it is over, and is removed
	HandoffDone         HandoffStep = "done"
	HandoffAborting     HandoffStep = "aborting" // the old one leads alone again
	HandoffAborted      HandoffStep = "aborted"
)

// Over says whether nothing is left to do.
func (s HandoffStep) Over() bool { return s == HandoffDone || s == HandoffAborted }

// handoffWords say what each step does.
var handoffWords = map[HandoffStep]string{
	HandoffPreflight:    "looks whether the nodes are Ready",
	HandoffDeploying:    "a replica starts on each node, and becomes a member without a vote",
	HandoffCatchingUp:   "the replicas fetch the log and the images",
	HandoffPromoting:    "one after another gets a vote, with proof",
	HandoffTransferring: "one of them takes the lead, and the appliance gives up its vote",
	HandoffWatching:     "they serve, and are put to their trials; the appliance can still take over",
	HandoffSealing:      "the appliance writes that it is over for it, and is removed",
	HandoffDone:         "the boot service has moved",
	HandoffAborting:     "it is given up, and the appliance leads alone again",
	HandoffAborted:      "it was given up, and all is as it was",
}

// joinWords are handoffWords where nobody leaves.
var joinWords = map[HandoffStep]string{
	HandoffDone:     "these nodes carry the boot service, too",
	HandoffAborting: "it is given up: the replicas that were added leave; those that had a vote already keep it, as long as their number is odd",
	HandoffAborted:  "it was given up: the replicas that were added left; those that had a vote already keep it, as long as their number is odd",
}

// Words are a plan's step for people.
func (h Handoff) Words() string {
	if h.From == "" {
		return cmp.Or(joinWords[h.Step], handoffWords[h.Step])
	}
	return handoffWords[h.Step]
}

// Handoff is a plan to move the boot service to other replicas, one log whose
// members change: kept in the log, gone on with by whoever leads.
type Handoff struct {
	ID   string      `json:"id"`
	Step HandoffStep `json:"step"`
	// Since is when the step began, and Moved when the plan last got on.
	Since time.Time `json:"since"`
	Moved time.Time `json:"moved"`
	// Targets are the nodes that the replicas shall run on, in the order in
	// which they become voters.
	Targets []HandoffTarget `json:"targets"`
	// From is the server ID of the replica that leaves in the end; "": none, the
	// targets join those that are there.
	From string `json:"from,omitempty"`
	By   string `json:"by"`
	// Reason says why it was given up.
	Reason string `json:"reason,omitempty"`
	// Forward says that an operator had a plan go on without the leaving replica:
	// targets that cannot be reached do not keep it.
	Forward bool `json:"forward,omitempty"`
	// Lost says that an operator declared the leaving replica destroyed: it
	// cannot acknowledge that it is over, and nothing can go back to it.
	Lost bool `json:"lost,omitempty"`
}

// HandoffTarget is one node of a handoff.
type HandoffTarget struct {
	Machine ID     `json:"machine"`
	Name    string `json:"name"`
}

// handoffOrder is the steps as they follow each other.
var handoffOrder = []HandoffStep{
	HandoffPreflight, HandoffDeploying, HandoffCatchingUp, HandoffPromoting,
	HandoffTransferring, HandoffWatching, HandoffSealing, HandoffDone,
}

// Leaving says whether a replica is being let go for good.
func (h Handoff) Leaving(replica string) bool {
	return h.Step == HandoffSealing && h.From == replica
}

// Wants says whether the plan has a replica start and run on a machine.
func (h Handoff) Wants(m ID) bool {
	if h.Step.Over() || h.Step == HandoffAborting || h.Step == HandoffPreflight {
		return false
	}
	return slices.ContainsFunc(h.Targets, func(t HandoffTarget) bool { return t.Machine == m })
}

// MayGo says whether a plan may go from one step to another: on by one, back
// from watching to transferring (the old one took the lead back), from promoting
// to the end where nobody leaves, and to aborting from any before sealing unless
// the old one is lost.
func (h Handoff) MayGo(to HandoffStep) bool {
	at := slices.Index(handoffOrder, h.Step)
	switch {
	case h.Step == HandoffAborting:
		return to == HandoffAborted
	case h.Step.Over() || at < 0:
		return false
	case to == HandoffAborting:
		return h.Step != HandoffSealing && !h.Lost
	case h.Step == HandoffWatching && to == HandoffTransferring:
		return true
	case h.Step == HandoffPromoting && to == HandoffDone:
		return h.From == ""
	}
	return handoffOrder[at+1] == to
}
