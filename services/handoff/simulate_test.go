package handoff

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
)

// The simulation runs whole handoffs in a model of the replicas, with crashes,
// cuts, lost disks, refusals, and actions whose outcome nobody learns, all from
// a seed:
//
//	go test ./services/handoff -run Simulation -seeds 100000
//	go test ./services/handoff -run Simulation -from 4711 -seeds 1 -v   # one again
var (
	seeds = flag.Uint64("seeds", 500, "how many handoffs are simulated")
	from  = flag.Uint64("from", 1, "the first seed")
)

// box is one replica of the model.
type box struct {
	id      string
	machine machine.ID
	up, cut bool
	lost    bool // for ever
	wiped   bool // with its folder only: its machine is there
	away    time.Time
	last    uint64
	proof   uint64 // the entry that the state says proves it
	took    uint64 // the proof that the leader saw it have
	sealed  bool
	left    bool
	leftAt  time.Time
	backed  bool // it wrote a backup under the new data key
	closeAt time.Time
}

func (b *box) there() bool { return b.up && !b.cut && !b.lost }

// model is the world of one handoff.
type model struct {
	t       *testing.T
	rng     *rand.Rand
	now     time.Time
	plan    machine.Handoff
	boxes   map[string]*box
	nodes   map[machine.ID]bool
	voters  map[string]bool // members, and whether they are voters
	old     map[string]bool // those that were members before the plan
	leader  string
	leads   time.Time
	index   uint64
	backup  uint64
	rekeyed bool
	checks  []Check
	failed  Action
	failAt  time.Time
	fails   int
	made    int
	faults  float64
	trace   []string
	stalled time.Time // since when an operator would act
}

func (m *model) say(format string, a ...any) {
	m.trace = append(m.trace, m.now.Format(time.TimeOnly)+" "+fmt.Sprintf(format, a...))
}

// newModel begins a plan: from the stick to nodes or, one in three, to nodes besides
// those that carry replicas already.
func newModel(t *testing.T, seed uint64) *model {
	m := &model{
		t: t, rng: rand.New(rand.NewPCG(seed, 7)), now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), index: 100,
		boxes: map[string]*box{}, nodes: map[machine.ID]bool{}, voters: map[string]bool{}, old: map[string]bool{},
	}
	m.leads = m.now
	m.plan = machine.Handoff{ID: "h", Step: machine.HandoffPreflight, Since: m.now, Moved: m.now}
	if m.chance(1. / 3) {
		there := []int{1, 1, 2, 3, 3}[m.rng.IntN(5)]
		for i := range there {
			m.member(&box{id: fmt.Sprintf("e-%d", i+1), machine: machine.ID(fmt.Sprintf("x-%d", i+1)), proof: uint64(i)}) // the founder proved nothing
		}
		m.leader = "e-1"
	} else {
		m.member(&box{id: "stick"})
		m.leader, m.plan.From = "stick", "stick"
	}
	for i := range []int{1, 2, 3, 3, 5}[m.rng.IntN(5)] {
		id := machine.ID(fmt.Sprintf("m-%d", i+1))
		m.nodes[id] = true
		m.plan.Targets = append(m.plan.Targets, machine.HandoffTarget{Machine: id, Name: fmt.Sprintf("node-%d", i+1)})
	}
	m.faults = []float64{0, 0.02, 0.1, 0.3}[m.rng.IntN(4)]
	return m
}

// member adds a replica that is a voter before the plan begins.
func (m *model) member(b *box) {
	b.up, b.last = true, m.index
	m.boxes[b.id], m.voters[b.id], m.old[b.id] = b, true, true
}

// stick is the replica that leaves; without one, none that is lost or sealed.
func (m *model) stick() *box {
	if b := m.boxes[m.plan.From]; b != nil {
		return b
	}
	return &box{}
}

func (m *model) chance(p float64) bool { return m.rng.Float64() < p }

func (m *model) membership() state.Membership {
	x := state.Membership{Leader: m.leader, Leads: true, Committed: m.index}
	for _, id := range slices.Sorted(maps.Keys(m.voters)) {
		x.Members = append(x.Members, state.Member{ID: id, Voter: m.voters[id]})
	}
	return x
}

// majority says whether the voters that are there are enough, for a leader.
func (m *model) majority() bool {
	voters, there := 0, 0
	for id, voter := range m.voters {
		if voter {
			voters++
			if m.boxes[id].there() {
				there++
			}
		}
	}
	return there > voters/2
}

// elect makes a leader of a voter that has every committed entry.
func (m *model) elect() {
	if l := m.boxes[m.leader]; l != nil && l.there() && m.voters[m.leader] && m.majority() {
		return
	}
	if m.leader != "" {
		m.say("%s leads no more", m.leader)
	}
	m.leader, m.failed, m.fails, m.checks = "", Action{}, 0, nil
	for _, b := range m.boxes { // a new leader knows nothing of it
		b.took, b.away = 0, time.Time{}
	}
	if !m.majority() {
		return
	}
	var able []string
	for _, id := range slices.Sorted(maps.Keys(m.voters)) {
		if m.voters[id] && m.boxes[id].there() && m.boxes[id].last == m.index {
			able = append(able, id)
		}
	}
	if len(able) == 0 {
		return
	}
	m.leader, m.leads = able[m.rng.IntN(len(able))], m.now
	m.say("%s leads", m.leader)
	if m.boxes[m.leader].sealed {
		m.t.Errorf("a sealed replica leads")
	}
}

// commit adds an entry that a majority has; those that are there may lag.
func (m *model) commit(n uint64) {
	if m.leader == "" {
		return
	}
	m.index += n
	m.boxes[m.leader].last = m.index
	for _, id := range slices.Sorted(maps.Keys(m.voters)) {
		b := m.boxes[id]
		if !b.there() {
			b.closeAt = time.Time{}
			continue
		}
		// Who is a voter and there is needed more often than not: all of them here,
		// so that whoever is elected has everything.
		if m.voters[id] || m.chance(0.8) {
			b.last = m.index
		}
		if m.index-b.last > MaxLag {
			b.closeAt = time.Time{}
		} else if b.closeAt.IsZero() {
			b.closeAt = m.now
		}
	}
}

func (m *model) fault() {
	ids := slices.Sorted(maps.Keys(m.boxes))
	b := m.boxes[ids[m.rng.IntN(len(ids))]]
	switch m.rng.IntN(10) {
	case 0, 1, 2:
		b.up = false
		m.say("%s is down", b.id)
	case 3, 4:
		b.cut = true
		m.say("%s is cut off", b.id)
	case 5:
		if m.chance(0.3) && b.machine != "" && !m.old[b.id] {
			if _, member := m.voters[b.id]; !member && !b.left {
				b.lost, b.wiped = true, true
				m.say("the folder of %s is lost", b.id)
			}
		} else if m.chance(0.1) {
			b.lost = true
			m.say("%s is lost", b.id)
		}
	case 6:
		if b.machine != "" {
			m.nodes[b.machine] = false
			m.say("node %s is not Ready", b.machine)
		}
	default:
		m.heal()
	}
}

func (m *model) heal() {
	for _, b := range m.boxes {
		if b.lost {
			continue
		}
		if !b.up || b.cut {
			m.say("%s is back", b.id)
		}
		b.up, b.cut = true, false
	}
	for id := range m.nodes {
		m.nodes[id] = !m.lostMachine(id)
	}
}

func (m *model) lostMachine(id machine.ID) bool {
	for _, b := range m.boxes {
		if b.machine == id && b.lost && !b.wiped {
			return true
		}
	}
	return false
}

func (m *model) world() World {
	w := World{
		Rekeyed: m.rekeyed,
		Now:     m.now, Self: m.leader, Members: m.membership(), Index: m.index, Level: 1, Replicas: map[string]Seen{}, Nodes: map[machine.ID]Node{}, Left: map[machine.ID]bool{},
		Leads: m.leads, Backup: m.backup, Checks: m.checks, Failed: m.failed, FailedAt: m.failAt, Failures: m.fails,
	}
	for id, b := range m.boxes {
		if b.left {
			if b.machine != "" && !b.leftAt.Before(m.plan.Since) {
				w.Left[b.machine] = true
			}
			continue
		}
		switch {
		case b.there():
			b.away = time.Time{}
		case b.away.IsZero():
			b.away = m.now
		}
		if b.there() && Took(machine.Replica{Proved: b.proof}, state.Stored{Last: b.last, Voter: m.voters[id]}) {
			b.took = b.proof
		}
		w.Replicas[id] = Seen{
			ID: id, Machine: b.machine, Reachable: b.there(), Away: b.away, Stored: state.Stored{Last: b.last, Applied: b.last, Voter: m.voters[id]},
			Level: 1, Proved: b.proof > 0 && b.took == b.proof, Close: b.closeAt, SameHash: true, Known: true, Keys: true, Sync: time.Millisecond, Sealed: b.sealed,
			BackedUp: m.rekeyed && b.backed,
		}
	}
	for id, ready := range m.nodes {
		w.Nodes[id] = Node{Ready: ready, Why: map[bool]string{false: "its node is not Ready"}[ready]}
	}
	return w
}

// do carries an action out, as the store does: what must not be is refused.
func (m *model) do(a Action) error {
	there := func(id string) bool { return m.boxes[id] != nil && m.boxes[id].there() }
	change := func(kind state.ChangeKind) error {
		return m.membership().Allowed(kind, a.Replica, m.leader, there)
	}
	switch a.Kind {
	case Deploy:
		if !m.nodes[a.Machine] {
			return fmt.Errorf("node %s does nothing", a.Machine)
		}
		m.made++
		id := fmt.Sprintf("r-%d", m.made)
		m.boxes[id] = &box{id: id, machine: a.Machine, up: true}
	case Add:
		if err := change(state.Add); err != nil {
			return err
		}
		m.voters[a.Replica] = false
	case Promote: // as Loop.promote does
		if a.Replica == m.leader {
			m.commit(1)
			m.boxes[a.Replica].proof = m.index
			return nil
		}
		if m.voters[a.Replica] { // left by a leader that died
			if err := change(state.Demote); err != nil {
				return err
			}
			m.voters[a.Replica], m.boxes[a.Replica].proof = false, 0
			if m.chance(m.faults / 4) {
				m.boxes[m.leader].up = false
				m.say("%s dies before %s has its vote again", m.leader, a.Replica)
				return nil
			}
		}
		if err := change(state.Promote); err != nil {
			return err
		}
		b := m.boxes[a.Replica]
		m.voters[a.Replica], b.last, b.proof = true, m.index, 0
		switch {
		case m.chance(m.faults / 4): // the leader dies before the proof
			m.boxes[m.leader].up = false
			m.say("%s dies before %s is proved", m.leader, a.Replica)
			return nil
		case m.chance(m.faults / 4): // the others commit it, and then the leader dies
			if b.up = false; m.majority() {
				m.commit(1)
				b.proof = m.index
			}
			b.up, m.boxes[m.leader].up = true, false
			m.say("%s dies before %s has its proof", m.leader, a.Replica)
			return nil
		}
		m.commit(1)
		b.last, b.proof = m.index, m.index
	case Demote:
		if err := change(state.Demote); err != nil {
			return err
		}
		m.voters[a.Replica], m.boxes[a.Replica].proof = false, 0
		if m.chance(m.faults / 4) { // the leader dies before it takes the proof back
			m.boxes[a.Replica].proof = 1
		}
	case Remove:
		if err := change(state.Remove); err != nil {
			return err
		}
		if m.old[a.Replica] && !m.boxes[a.Replica].sealed && !m.plan.Lost {
			m.t.Errorf("%s is removed, and was not told", a.Replica)
		}
		delete(m.voters, a.Replica)
	case Transfer:
		if !there(a.Replica) || !m.voters[a.Replica] {
			return fmt.Errorf("%s cannot lead", a.Replica)
		}
		if b := m.boxes[a.Replica]; !m.old[a.Replica] && (b.proof == 0 || b.last < b.proof) {
			m.t.Errorf("%s shall lead, and proved nothing", a.Replica)
		}
		m.leader, m.leads, m.checks = a.Replica, m.now, nil
	case Seal:
		if !there(a.Replica) {
			return fmt.Errorf("%s is away", a.Replica)
		}
		if m.voters[a.Replica] {
			m.t.Errorf("a voter is sealed")
		}
		m.boxes[a.Replica].sealed = true
	case Leave:
		if _, member := m.voters[a.Replica]; member {
			m.t.Errorf("%s leaves as a member", a.Replica)
		}
		m.boxes[a.Replica].left, m.boxes[a.Replica].leftAt = true, m.now
	case Rekey:
		if !m.boxes[a.Replica].left {
			m.t.Errorf("a new data key while %s could have it", a.Replica)
		}
		m.rekeyed = true
	case Backup:
		m.backup = m.index
	case Try:
		m.checks = nil
		for _, name := range Trials {
			m.checks = append(m.checks, Check{Name: name, OK: !m.chance(m.faults), At: m.now})
		}
	default:
		m.t.Errorf("action %q", a.Kind)
	}
	return nil
}

func (m *model) move(step machine.HandoffStep) {
	m.plan.Step, m.plan.Since, m.plan.Moved = step, m.now, m.now
	m.commit(1)
}

// step lets some seconds pass.
func (m *model) step() {
	m.now = m.now.Add(time.Duration(1+m.rng.IntN(5)) * time.Second)
	if m.chance(m.faults) {
		m.fault()
	}
	m.elect()
	if m.leader == "" {
		return
	}
	m.commit(uint64(m.rng.IntN(20)))
	for _, id := range slices.Sorted(maps.Keys(m.boxes)) {
		if b := m.boxes[id]; m.rekeyed && b.there() && m.chance(0.5) {
			b.backed = true
		}
	}
	// Now and then rightly, and now and then though it comes back, and may lead again.
	if m.chance(m.faults / 50) {
		m.declareLost()
	}
	w := m.world()
	d := Next(m.plan, w)
	decided := 0
	for _, set := range []bool{d.Action != (Action{}), d.To != "", d.Abort != ""} {
		if set {
			decided++
		}
	}
	if decided > 1 {
		m.t.Errorf("several decisions at once: %+v", d)
	}
	switch {
	case m.chance(m.faults / 4): // the leader dies before it acts
		m.boxes[m.leader].up = false
		m.say("%s dies", m.leader)
	case d.Abort != "":
		m.say("abort: %s", d.Abort)
		if m.stick().sealed {
			m.t.Errorf("given up after the stick was told that it is over")
		}
		if m.plan.Lost {
			m.t.Errorf("given up with nothing to go back to")
		}
		m.plan.Reason = d.Abort
		m.move(machine.HandoffAborting)
	case d.To != "":
		m.say("to %s", d.To)
		m.move(d.To)
	case d.Action != (Action{}):
		var err error
		if m.chance(m.faults / 2) {
			err = fmt.Errorf("refused")
		} else {
			err = m.do(d.Action)
		}
		// Done, and the leader dies before it knows, or is told that it failed.
		lied := err == nil && m.chance(m.faults/4)
		m.say("%s %s %s: %v%s", d.Action.Kind, d.Action.Replica, d.Action.Machine, err, map[bool]string{true: " (and nobody knows)"}[lied])
		switch {
		case err != nil || lied:
			if m.failed != d.Action {
				m.fails = 0
			}
			m.failed, m.failAt = d.Action, m.now
			m.fails++
		default:
			m.failed, m.fails = Action{}, 0
			if d.Action.Kind.Moves() {
				m.plan.Moved = m.now
			}
		}
		m.stalled = time.Time{}
		return
	default:
		m.operator(d)
		return
	}
	m.stalled = time.Time{}
}

// operator does what the gates tell, after half an hour.
func (m *model) operator(d Decision) {
	if m.stalled.IsZero() {
		m.stalled = m.now
	}
	if m.now.Sub(m.stalled) < 30*time.Minute || !m.stick().lost {
		return
	}
	if m.plan.Step == machine.HandoffAborting && m.chance(0.5) {
		m.say("operator: go on")
		m.plan.Forward, m.plan.Reason = true, ""
		m.move(machine.HandoffDeploying)
	} else {
		m.declareLost()
	}
	m.stalled = time.Time{}
}

// declareLost is an operator who declares the stick destroyed, as the state takes
// it.
func (m *model) declareLost() {
	if m.plan.From == "" || m.leader == m.plan.From || m.plan.Lost {
		return
	}
	m.say("operator: the stick is destroyed, at %s", m.plan.Step)
	m.plan.Lost, m.plan.Forward, m.plan.Moved = true, true, m.now
	if m.plan.Step == machine.HandoffAborting {
		m.plan.Reason = ""
		m.move(machine.HandoffDeploying)
	}
}

// TestSimulation runs many handoffs: each ends in Done, or clean as it was, or
// its voters were lost for ever.
func TestSimulation(t *testing.T) {
	ends, added := map[string]int{}, 0
	for seed := *from; seed < *from+*seeds && !t.Failed(); seed++ {
		m := newModel(t, seed)
		for n := 0; !m.plan.Step.Over() && n < 20_000; n++ {
			if n == 400 { // faults cease, and what is not lost comes back
				m.faults = 0
				m.heal()
			}
			m.step()
			if t.Failed() {
				break
			}
		}
		end := string(m.plan.Step)
		if !m.plan.Step.Over() {
			end = "stuck"
			m.heal()
			if m.elect(); m.leader == "" {
				end = "majority lost for ever"
			}
		}
		if m.plan.From == "" {
			added++
		}
		ends[end]++
		m.check(end)
		if t.Failed() {
			t.Fatalf("seed %d ended in %s: %v\n%s", seed, end, m.membership(), strings.Join(m.trace[max(0, len(m.trace)-60):], "\n"))
		}
	}
	t.Logf("%d handoffs, %d of them beside others: %v", *seeds, added, ends)
	if *seeds >= 500 && (ends["done"] == 0 || ends["aborted"] == 0) {
		t.Errorf("nothing was tried: %v", ends)
	}
}

// check holds the end to what it must be.
func (m *model) check(end string) {
	switch end {
	case "done":
		if _, member := m.voters["stick"]; m.plan.From != "" && (member || !m.stick().left) {
			m.t.Errorf("done, and the stick is still there")
		}
		backed := slices.ContainsFunc(slices.Collect(maps.Values(m.boxes)), func(b *box) bool { return b.machine != "" && b.backed })
		if m.plan.From != "" && !backed {
			m.t.Errorf("done, and no node has a backup that opens")
		}
		want := len(m.plan.Targets)
		if m.plan.From == "" {
			want += len(m.old)
		}
		if len(m.voters) != want && !m.plan.Forward {
			m.t.Errorf("done with %d members, not %d", len(m.voters), want)
		}
		for id, voter := range m.voters {
			if b := m.boxes[id]; (!voter || !m.old[id] && (b.proof == 0 || b.last < b.proof)) && !m.plan.Forward {
				m.t.Errorf("done, and %s is no proved voter", id)
			}
		}
	case "aborted":
		if m.plan.From != "" && (m.leader != "stick" || len(m.voters) != 1) {
			m.t.Errorf("given up, and the stick does not lead alone")
		}
		voters, added := 0, false
		for id, voter := range m.voters {
			if voter {
				voters, added = voters+1, added || !m.old[id]
			}
		}
		if added && voters%2 == 0 {
			m.t.Errorf("given up, and %d voters are left, one of them added", voters)
		}
		for id, b := range m.boxes {
			switch voter, member := m.voters[id]; {
			case m.old[id] && !voter:
				m.t.Errorf("given up, and %s has no vote any more", id)
			case m.old[id], m.plan.From == "" && voter && b.proof != 0: // it stays
			case member || !b.left:
				m.t.Errorf("given up, and %s did not leave", id)
			}
		}
	case "majority lost for ever":
		lost, voters := 0, 0
		for id, voter := range m.voters {
			if voter {
				voters++
				if m.boxes[id].lost {
					lost++
				}
			}
		}
		if 2*lost < voters {
			m.t.Errorf("nobody can be elected, though %d of %d voters are lost only", lost, voters)
		}
	case "stuck":
		m.t.Errorf("it stands still for ever: %s", Waiting(Next(m.plan, m.world()).Gates))
	}
}
