package handoff

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
)

// by is who proposes in the log.
const by = "handoff"

const (
	tick        = time.Second
	lookLimit   = 2 * time.Second  // for a replica to say how it is
	actionLimit = time.Minute      // for one action; longer on emulated machines
	checkPause  = 10 * time.Second // between comparisons of the states
)

// Store is what a plan needs of the state.
type Store interface {
	View() state.View
	Membership() state.Membership
	Leading() (bool, <-chan struct{})
	Stored() state.Stored
	Checked() (index uint64, hash string, err error)
	Propose(ctx context.Context, by string, c state.Command) (state.Result, error)
	Change(ctx context.Context, change state.ChangeKind, id string) error
	Transfer(ctx context.Context, id string) error
}

// Report is what a replica says of itself.
type Report struct {
	Stored state.Stored `json:"stored"`
	// Checked is the entry of the newest state.check that it applied, Hash its
	// state's there.
	Checked uint64 `json:"checked"`
	Hash    string `json:"hash"`
	// Counted says that its blobs were counted: Missing of those that the state
	// names are not there, MissingBytes large.
	Counted      bool  `json:"counted"`
	Missing      int   `json:"missing"`
	MissingBytes int64 `json:"missingBytes"`
	// Lost names the images that are on no replica, and what to do; "": there are none.
	Lost string `json:"lost,omitempty"`
	// Unserved says in which of the site's networks with DHCP its host has no address,
	// and what to do; "": it has one in each.
	Unserved string        `json:"unserved,omitempty"`
	Sync     time.Duration `json:"sync"`  // median of a write to its log
	Clock    time.Time     `json:"clock"` // what its clock shows
	Sealed   bool          `json:"sealed"`
	// Keys are the IDs of the data keys that it has, Protector what protects them on
	// its disk.
	Keys      []string `json:"keys"`
	Protector string   `json:"protector"`
	// Backup is the state.Keyring.Mark of the newest backup that it wrote.
	Backup string `json:"backup"`
}

// HasKeys says whether it has all those data keys.
func (r Report) HasKeys(ids ...string) bool {
	for _, id := range ids {
		if !slices.Contains(r.Keys, id) {
			return false
		}
	}
	return true
}

// Hands do what is outside of the log.
type Hands interface {
	// Look asks a replica how it is.
	Look(ctx context.Context, id string) (Report, error)
	// Node says whether a machine's node can carry a replica.
	Node(m machine.ID) Node
	// Deploy has a node start a replica, which joins. It is called again until it
	// has joined, and then must not start another one.
	Deploy(ctx context.Context, t machine.HandoffTarget) error
	// Seal has a replica write on its disk that it is over for it.
	Seal(ctx context.Context, id string, h machine.Handoff) error
	// Rekey makes a new data key and has all secrets sealed under it.
	Rekey(ctx context.Context, h machine.Handoff) error
	// Backup writes the state to where it outlives this replica, and says up to
	// which entry.
	Backup(ctx context.Context) (index uint64, err error)
	// Try puts the service to its trials.
	Try(ctx context.Context) []Check
}

// Loop carries the plan out while its replica leads.
type Loop struct {
	Store  Store
	Hands  Hands
	Self   string // this replica's server ID
	Now    func() time.Time
	Logger *slog.Logger
	Slower int // see World

	mu     sync.Mutex
	status Status

	// What was seen since this replica leads; it is not in the log.
	leads    time.Time
	close    map[string]time.Time
	same     map[string]bool
	took     map[string]uint64 // the entry that proves a voter, which it was seen to have
	other    map[string]bool
	away     map[string]time.Time
	lacks    map[string]lacks
	copied   time.Time
	moved    time.Time // when the plan last got on, as lacks goes by
	asked    time.Time // for a comparison of the states
	checks   []Check
	backup   uint64
	failed   Action
	failedAt time.Time
	failures int
	why      string // the last failure
}

// Status is how far a plan is, for people.
type Status struct {
	Handoff machine.Handoff
	Doing   string // the action that runs, in words; "": none
	Failed  string // the action that failed last and why; "": the last one did not
	Gates   []Gate
	// Replicas are as they were seen last.
	Replicas []Seen
	// Others are the other members, whether a plan is under way or not: reachable or not,
	// and what they have stored.
	Others []Seen
}

// Status is how far the plan is, as far as this replica knows: only the leader
// does.
func (l *Loop) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.status
}

// Run carries plans out until ctx ends.
func (l *Loop) Run(ctx context.Context) error {
	pulse := time.NewTicker(tick)
	defer pulse.Stop()
	l.forget(false)
	for {
		leads, changed := l.Store.Leading()
		view := l.Store.View()
		h, ok := view.Handoff()
		if !leads || !ok || h.Step.Over() {
			l.forget(leads)
			select {
			case <-changed:
			case <-view.Changed("handoff"):
			case <-ctx.Done():
				return nil
			}
			continue
		}
		if l.leads.IsZero() {
			l.leads = l.Now()
		}
		l.once(ctx, h)
		select {
		case <-pulse.C:
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// forget drops what was seen.
func (l *Loop) forget(leads bool) {
	if !leads {
		l.leads = time.Time{}
	}
	l.close, l.same, l.other, l.checks = map[string]time.Time{}, map[string]bool{}, map[string]bool{}, nil
	l.away = map[string]time.Time{}
	l.took, l.lacks, l.copied = map[string]uint64{}, map[string]lacks{}, time.Time{}
	l.failed, l.failures, l.why, l.asked, l.backup = Action{}, 0, "", time.Time{}, 0
	l.mu.Lock()
	defer l.mu.Unlock()
	l.status = Status{} // another one knows better now
}

// once looks, decides, and does one thing.
func (l *Loop) once(ctx context.Context, h machine.Handoff) {
	w := l.world(ctx, h)
	d := Next(h, w)
	l.show(h, w, d)
	switch {
	case d.Abort != "":
		if l.why != "" {
			d.Abort += ": " + l.why
		}
		l.propose(ctx, state.HandoffMove{ID: h.ID, From: h.Step, To: machine.HandoffAborting, Reason: d.Abort})
	case d.To != "":
		l.propose(ctx, state.HandoffMove{ID: h.ID, From: h.Step, To: d.To})
	case d.Action != (Action{}):
		l.act(ctx, h, d.Action)
	}
}

func (l *Loop) propose(ctx context.Context, c state.Command) {
	ctx, cancel := context.WithTimeout(ctx, actionLimit)
	defer cancel()
	if _, err := l.Store.Propose(ctx, by, c); err != nil && ctx.Err() == nil {
		l.Logger.Warn("handoff: not committed, it is tried again", "command", c.Kind(), "error", err)
	}
}

// act does one thing. Its outcome may be unknown: what comes next is decided by
// what is seen then.
func (l *Loop) act(ctx context.Context, h machine.Handoff, a Action) {
	ctx, cancel := context.WithTimeout(ctx, actionLimit*time.Duration(max(l.Slower, 1)))
	defer cancel()
	err := l.do(ctx, h, a)
	if err != nil {
		if l.failed != a {
			l.failures = 0
		}
		l.failed, l.failedAt, l.why = a, l.Now(), err.Error()
		l.failures++
		l.Logger.Warn("handoff: an action failed", "action", a.Kind, "replica", a.Replica, "machine", a.Machine, "error", err)
		return
	}
	l.failed, l.failures, l.why = Action{}, 0, ""
	if a.Kind.Moves() {
		l.propose(ctx, state.HandoffDid{ID: h.ID, Text: a.words(h)})
	}
}

func (l *Loop) do(ctx context.Context, h machine.Handoff, a Action) error {
	switch a.Kind {
	case Deploy:
		for _, t := range h.Targets {
			if t.Machine == a.Machine {
				return l.Hands.Deploy(ctx, t)
			}
		}
		return fmt.Errorf("machine %s is no target", a.Machine)
	case Add:
		return l.Store.Change(ctx, state.Add, a.Replica)
	case Demote:
		return l.Store.Change(ctx, state.Demote, a.Replica)
	case Remove:
		return l.Store.Change(ctx, state.Remove, a.Replica)
	case Promote:
		return l.promote(ctx, a.Replica)
	case Transfer:
		return l.Store.Transfer(ctx, a.Replica)
	case Seal:
		return l.Hands.Seal(ctx, a.Replica, h)
	case Rekey:
		return l.Hands.Rekey(ctx, h)
	case Leave:
		_, err := l.Store.Propose(ctx, by, state.ReplicaLeave{ID: a.Replica, Reason: "the handoff is " + string(h.Step)})
		return err
	case Backup:
		index, err := l.Hands.Backup(ctx)
		if err == nil {
			l.backup = index
		}
		return err
	case Try:
		l.checks = l.Hands.Try(ctx)
		return nil
	}
	return fmt.Errorf("there is no action %q", a.Kind)
}

// promote gives a vote with proof. A voter without proof is one that an earlier
// leader made, who died over it: its vote is taken back first. If that voter leads, it
// did a voter's part by then: its epoch is committed.
func (l *Loop) promote(ctx context.Context, id string) error {
	if id == l.Self {
		_, err := l.Store.Propose(ctx, by, state.ReplicaProve{ID: id})
		return err
	}
	if l.Store.Membership().Voter(id) {
		if err := l.Store.Change(ctx, state.Demote, id); err != nil {
			return err
		}
	}
	return l.Store.Change(ctx, state.Promote, id)
}

// words are what was done, for the log.
func (a Action) words(h machine.Handoff) string {
	return fmt.Sprintf(map[ActionKind]string{
		Deploy: "%s is told to start a replica", Add: "the replica of %s is a member, without a vote", Promote: "%s has a vote, and proved it",
		Demote: "%s has no vote any more", Remove: "%s is no member any more", Transfer: "the lead was handed to %s",
		Seal: "%s wrote that it is over for it", Leave: "%s left for good",
		Rekey: "all secrets are sealed under a new data key, which %s never had",
	}[a.Kind], a.at(h))
}

// aim is what is to be done, for people who watch.
func (a Action) aim(h machine.Handoff) string {
	switch a.Kind {
	case Backup:
		return "writing a backup"
	case Try:
		return "putting the service to its trials"
	}
	return fmt.Sprintf(map[ActionKind]string{
		Deploy: "telling %s to start a replica", Add: "making the replica of %s a member", Promote: "giving %s a vote, with proof",
		Demote: "taking the vote from %s", Remove: "removing %s from the members", Transfer: "handing the lead to %s",
		Seal: "having %s write that it is over for it", Leave: "noting that %s left for good",
		Rekey: "sealing all secrets under a new data key, which %s never had",
	}[a.Kind], a.at(h))
}

// at is what an action's replica is called.
func (a Action) at(h machine.Handoff) string {
	name := a.Replica
	for _, t := range h.Targets {
		if t.Machine == a.Machine && a.Machine != "" {
			name = t.Name
		}
	}
	if a.Replica == h.From && h.From != "" {
		name = "the appliance"
	}
	return name
}

func (l *Loop) show(h machine.Handoff, w World, d Decision) {
	s := Status{Handoff: h, Gates: d.Gates}
	if d.Action != (Action{}) {
		s.Doing = d.Action.aim(h)
	}
	if l.failed != (Action{}) {
		s.Failed = l.failed.aim(h) + ": " + l.why
	}
	for _, r := range w.Replicas {
		s.Replicas = append(s.Replicas, r)
	}
	slices.SortFunc(s.Replicas, func(a, b Seen) int { return strings.Compare(a.ID, b.ID) })
	l.mu.Lock()
	defer l.mu.Unlock()
	l.status = s
}

// Took says whether a voter stored the entry that proves it. That it was committed
// is not enough: of more than two voters the others could do so, and the leader
// that waited for it may have died.
func Took(r machine.Replica, has state.Stored) bool {
	return r.Proved > 0 && has.Voter && has.Last >= r.Proved
}

// rekeyed says whether all secrets are sealed under a data key that was made at the
// end of a plan.
func rekeyed(k state.Keyring, h machine.Handoff) bool {
	return k.For == h.ID && k.Next == "" && k.Old == ""
}

// world asks every replica how it is.
func (l *Loop) world(ctx context.Context, h machine.Handoff) World {
	view := l.Store.View()
	cluster, _ := view.Cluster()
	w := World{
		Now: l.Now(), Self: l.Self, Members: l.Store.Membership(), Index: l.Store.Stored().Last, Level: cluster.FeatureLevel,
		Rekeyed:  rekeyed(view.Keyring(), h),
		Replicas: map[string]Seen{}, Nodes: map[machine.ID]Node{}, Left: map[machine.ID]bool{},
		Leads: l.leads, Backup: l.backup, Checks: l.checks, Failed: l.failed, FailedAt: l.failedAt, Failures: l.failures,
		Slower: l.Slower,
	}
	if !h.Moved.Equal(l.moved) { // the log's end is another one by now
		l.lacks, l.moved = map[string]lacks{}, h.Moved
	}
	for _, t := range h.Targets {
		w.Nodes[t.Machine] = l.Hands.Node(t.Machine)
		for _, id := range view.LeftReplicas(t.Machine) {
			if r, _ := view.Replica(id); !r.Left.Before(h.Since) {
				w.Left[t.Machine] = true
			}
		}
	}
	checked, hash, err := l.Store.Checked()
	if err != nil {
		l.Logger.Error("handoff: the state's hash", "error", err)
	}
	if w.Now.Sub(l.asked) >= checkPause {
		l.asked = w.Now
		l.propose(ctx, state.StateCheck{})
	}
	type answer struct {
		id     string
		report Report
		err    error
	}
	list := view.Replicas()
	answers := make(chan answer, len(list))
	for _, r := range list {
		go func() {
			ctx, cancel := context.WithTimeout(ctx, lookLimit)
			defer cancel()
			report, err := l.Hands.Look(ctx, r.ID)
			answers <- answer{r.ID, report, err}
		}()
	}
	reports := map[string]answer{}
	for range list {
		a := <-answers
		reports[a.id] = a
	}
	w.Index = l.Store.Stored().Last // after the reports: nobody is ahead of it
	for _, r := range list {
		a := reports[r.ID]
		s := Seen{ID: r.ID, Machine: r.Machine, Level: r.Level}
		if a.err == nil {
			if Took(r, a.report.Stored) {
				l.took[r.ID] = r.Proved
			}
			x := a.report
			s.Reachable, s.Stored, s.Known, s.Missing, s.MissingBytes = true, x.Stored, x.Counted, x.Missing, x.MissingBytes
			s.Lost = x.Lost
			s.Sync, s.Skew, s.Sealed = x.Sync, x.Clock.Sub(w.Now), x.Sealed
			s.Unserved = x.Unserved
			s.Keys, s.Protector = x.HasKeys(view.Keyring().Keys()...), x.Protector
			s.BackedUp = x.Backup != "" && x.Backup == view.Keyring().Mark()
			if checked != 0 && x.Checked == checked {
				l.same[r.ID], l.other[r.ID] = x.Hash == hash, x.Hash != hash
			}
		}
		if a.err != nil || s.Stored.Applied+MaxLag < w.Index {
			delete(l.close, r.ID)
		} else if l.close[r.ID].IsZero() {
			l.close[r.ID] = w.Now
		}
		if a.err == nil {
			delete(l.away, r.ID)
		} else if l.away[r.ID].IsZero() {
			l.away[r.ID] = w.Now
		}
		s.Away = l.away[r.ID]
		s.Proved = r.Proved > 0 && l.took[r.ID] == r.Proved
		s.Close, s.SameHash, s.OtherHash = l.close[r.ID], l.same[r.ID], l.other[r.ID]
		w.Replicas[r.ID] = s
		if _, target := w.Nodes[r.Machine]; target && s.Known {
			now, copied := lacksOf(s, w.Index), false
			if before, seen := l.lacks[r.ID]; seen {
				now, copied = before.then(now)
			}
			if l.lacks[r.ID] = now; copied {
				l.copied = w.Now
			}
		}
	}
	w.Copied = l.copied
	return w
}
