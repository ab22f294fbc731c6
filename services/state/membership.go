package state

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// Member is a server of Raft's configuration.
type Member struct {
	ID    string
	Voter bool // it counts in majorities
}

// Membership is Raft's configuration: the fact that every plan is measured by.
type Membership struct {
	Members   []Member // of the newest configuration, which may not be committed yet; by ID
	Committed uint64   // the log entry of the newest committed one, as far as this replica knows
	Leader    string   // "" : none is known
	Leads     bool     // this replica leads, and its epoch is committed
	// Name is that of a member's node, which is what people are told; "": the state has
	// none. nil: members are told by their server IDs. It is looked up as it is told, so
	// nothing may be decided by it.
	Name func(id string) string
}

// Called is what people call a member: its node's name, or its server ID.
func (m Membership) Called(id string) string {
	if m.Name == nil {
		return id
	}
	return cmp.Or(m.Name(id), id)
}

// Has says whether a server is a member.
func (m Membership) Has(id string) bool {
	return slices.ContainsFunc(m.Members, func(x Member) bool { return x.ID == id })
}

// Voter says whether a server is a voter.
func (m Membership) Voter(id string) bool { return slices.Contains(m.Members, Member{id, true}) }

// Voters lists the voters' IDs.
func (m Membership) Voters() []string {
	var list []string
	for _, x := range m.Members {
		if x.Voter {
			list = append(list, x.ID)
		}
	}
	return list
}

func (m Membership) String() string {
	var list []string
	for _, x := range m.Members {
		name := m.Called(x.ID)
		if !x.Voter {
			name += " (no voter)"
		}
		list = append(list, name)
	}
	return strings.Join(list, ", ")
}

// ChangeKind is a change of the membership, of one server.
type ChangeKind string

// The changes.
const (
	Add     ChangeKind = "add"     // as no voter
	Promote ChangeKind = "promote" // to voter
	Demote  ChangeKind = "demote"
	Remove  ChangeKind = "remove"
)

// after is the membership after a change.
func (m Membership) after(change ChangeKind, id string) []Member {
	rest := slices.DeleteFunc(slices.Clone(m.Members), func(x Member) bool { return x.ID == id })
	if change != Remove {
		rest = append(rest, Member{id, change == Promote})
	}
	return rest
}

// Allowed says why a change must not be made, nil where it may: after it a
// majority of the voters must be reachable, else nothing could be committed any
// more, not even its undoing. leader makes it, and stays.
func (m Membership) Allowed(change ChangeKind, id, leader string, reachable func(id string) bool) error {
	refuse := func(why string, a ...any) error {
		return &Refusal{fmt.Sprintf("%s replica %s: %s", change, m.Called(id), fmt.Sprintf(why, a...))}
	}
	switch {
	case change == Add && m.Has(id):
		return refuse("it is a member already")
	case change != Add && !m.Has(id):
		return refuse("it is no member; members are %s", m)
	case change == Promote && m.Voter(id):
		return refuse("it is a voter already")
	case change == Demote && !m.Voter(id):
		return refuse("it is no voter")
	case id == leader && (change == Demote || change == Remove):
		return refuse("it leads: hand the lead to another one first")
	case change == Promote && !reachable(id):
		return refuse("it cannot be reached, and nothing could be committed without it")
	}
	voters, there := 0, 0
	var missing []string
	for _, x := range m.after(change, id) {
		if !x.Voter {
			continue
		}
		voters++
		if x.ID == leader || reachable(x.ID) {
			there++
		} else {
			missing = append(missing, m.Called(x.ID))
		}
	}
	if there <= voters/2 {
		slices.Sort(missing)
		return refuse("of the %d voters that there would be, %s cannot be reached: nothing could be committed any more; bring them back, or remove those that are lost first", voters, strings.Join(missing, ", "))
	}
	return nil
}

// configured is the newest committed configuration.
type configured struct {
	mu      sync.Mutex
	index   uint64
	changed func()
}

func (c *configured) set(index uint64) {
	c.mu.Lock()
	c.index = max(c.index, index)
	changed := c.changed
	c.mu.Unlock()
	if changed != nil {
		changed()
	}
}

func (c *configured) get() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.index
}

// StoreConfiguration implements raft.ConfigurationStore, without which Raft hands
// no configuration over: its own answer to which entry its configuration is from
// is always 0 (raft 1.8.0).
func (f *fsm) StoreConfiguration(index uint64, _ raft.Configuration) { f.configured.set(index) }

// Membership is what this replica knows of the members now.
func (s *Store) Membership() Membership {
	m := Membership{Committed: s.fsm.configured.get(), Leads: s.leading.is(), Name: s.nameOf}
	for _, x := range s.raft.GetConfiguration().Configuration().Servers { // no error: it only reads
		m.Members = append(m.Members, Member{string(x.ID), x.Suffrage == raft.Voter})
	}
	slices.SortFunc(m.Members, func(a, b Member) int { return strings.Compare(a.ID, b.ID) })
	_, leader := s.raft.LeaderWithID()
	m.Leader = string(leader)
	return m
}

// nameOf is the name of a replica's node; "": the state has none.
func (s *Store) nameOf(id string) string {
	r, _ := s.View().Replica(id) // zero: it has none
	return r.Name
}

// Leading says whether this replica leads with a committed epoch, and gives a
// channel that is closed when that changes.
func (s *Store) Leading() (bool, <-chan struct{}) { return s.leading.state() }

const (
	changeLimit = 10 * time.Second // for a change of the membership to be committed
	// Two questions that a new voter leaves open in a row undo it: together they
	// take less than the lease (500 ms), after which a leader that cannot reach a
	// majority is none any more, and could undo nothing.
	pingLimit = 150 * time.Millisecond
	pingPause = 50 * time.Millisecond
)

// Change changes the membership by one server. A voter has to prove itself (see
// promote).
func (s *Store) Change(ctx context.Context, change ChangeKind, id string) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	if change == Promote {
		return s.promote(ctx, id)
	}
	m, _, err := s.mayChange(ctx, change, id)
	if err != nil {
		return err
	}
	if err := s.change(ctx, change, id, m.Committed); err != nil {
		return fmt.Errorf("%s replica %s: %w", change, m.Called(id), err)
	}
	if change == Demote {
		s.unproveSoon(ctx, id)
	}
	return nil
}

// unprove takes back that a replica proved itself as a voter, if it did.
func (s *Store) unprove(ctx context.Context, id string) error {
	if r, ok := s.View().Replica(id); !ok || !r.InService() || r.Proved == 0 {
		return nil
	}
	_, err := s.propose(ctx, s.config.ID, ReplicaProve{ID: id, Undone: true})
	return err
}

// unproveSoon is unprove of one that lost its vote: after that, since with its
// vote nothing may be committed any more. If it fails here, promote makes up for it.
func (s *Store) unproveSoon(ctx context.Context, id string) {
	if err := s.unprove(ctx, id); err != nil {
		s.config.Logger.Warn("state: the proof of a replica without a vote stays for now", "replica", id, "error", err)
	}
}

// mayChange is the membership that a change may be made to, and which members
// are there.
func (s *Store) mayChange(ctx context.Context, change ChangeKind, id string) (m Membership, there map[string]bool, err error) {
	if m = s.Membership(); !m.Leads {
		return m, nil, fmt.Errorf("%s replica %s: %w", change, m.Called(id), ErrNotLeading)
	}
	there = s.reachable(ctx, m)
	return m, there, m.Allowed(change, id, s.config.ID, func(id string) bool { return there[id] })
}

// reachable asks all members at once which are there.
func (s *Store) reachable(ctx context.Context, m Membership) map[string]bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	var mu sync.Mutex
	there := map[string]bool{s.config.ID: true}
	var all sync.WaitGroup
	for _, x := range m.Members {
		if x.ID == s.config.ID || s.config.Peers == nil {
			continue
		}
		all.Go(func() {
			if _, err := s.config.Peers.Stored(ctx, x.ID); err == nil {
				mu.Lock()
				defer mu.Unlock()
				there[x.ID] = true
			}
		})
	}
	all.Wait()
	return there
}

// change makes a change if the newest configuration is still that of entry
// previous; 0: whatever it is.
func (s *Store) change(ctx context.Context, change ChangeKind, id string, previous uint64) error {
	limit := changeLimit
	if deadline, ok := ctx.Deadline(); ok {
		limit = max(min(limit, time.Until(deadline)), time.Millisecond)
	}
	server, address := raft.ServerID(id), raft.ServerAddress(id)
	var f raft.IndexFuture
	switch change {
	case Add:
		f = s.raft.AddNonvoter(server, address, previous, limit)
	case Promote:
		f = s.raft.AddVoter(server, address, previous, limit)
	case Demote:
		f = s.raft.DemoteVoter(server, previous, limit)
	case Remove:
		f = s.raft.RemoveServer(server, previous, limit)
	}
	return s.await(ctx, f)
}

// await waits for one of Raft's futures, which know no context.
func (s *Store) await(ctx context.Context, f raft.Future) error {
	done := make(chan error, 1)
	go func() { done <- f.Error() }()
	select {
	case err := <-done:
		return err
	case <-s.stopping:
		return raft.ErrRaftShutdown
	case <-ctx.Done():
		return fmt.Errorf("no answer in time, it may come to be later: %w", ctx.Err())
	}
}

// promote makes a member a voter, and proves that it does a voter's part: it
// stored an entry that was committed while it counts, else it is a voter no more.
//
// Raft's own success proves nothing: from one voter to two it says so with the
// new one dead (raft 1.8.0). Then the old one alone has no majority, and within
// its lease it would lead no more, for ever: so the new one is asked all the
// while, and undone as soon as it is silent.
func (s *Store) promote(ctx context.Context, id string) error {
	m, there, err := s.mayChange(ctx, Promote, id)
	if err != nil {
		return err
	}
	failed := func(err error) error { return fmt.Errorf("%s replica %s: %w", Promote, m.Called(id), err) }
	if err := s.unprove(ctx, id); err != nil { // of a vote that it had before
		return failed(err)
	}
	if s.config.BeforeVote != nil {
		if err := s.config.BeforeVote(id); err != nil {
			return failed(err)
		}
	}
	proof, cancel := context.WithTimeout(ctx, changeLimit)
	defer cancel()
	proof, silent := context.WithCancelCause(proof)
	defer silent(nil)
	var watch sync.WaitGroup
	watch.Go(func() { silent(s.watchVoter(proof, id)) })
	err = s.change(proof, Promote, id, m.Committed)
	if err == nil {
		err = s.prove(proof, id, there)
	}
	if cause := context.Cause(proof); err != nil && cause != nil {
		err = cause
	}
	cancel()
	watch.Wait()
	if err == nil {
		return nil
	}
	// Whatever went wrong, a voter without proof is undone at once: this commits
	// by the voters that there were.
	undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), changeLimit)
	defer cancel()
	if undone := s.change(undo, Demote, id, 0); undone != nil {
		return failed(errors.Join(err, fmt.Errorf("and it could not be undone: %w", undone)))
	}
	s.unproveSoon(undo, id)
	return failed(fmt.Errorf("it did not do a voter's part, and is none again: %w", err))
}

// watchVoter asks a new voter again and again until ctx ends, and says when it
// is silent.
func (s *Store) watchVoter(ctx context.Context, id string) error {
	for silent := 0; ; {
		one, cancel := context.WithTimeout(ctx, pingLimit*s.config.slower())
		_, err := s.config.Peers.Stored(one, id)
		cancel()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			silent = 0
		default:
			if silent++; silent == 2 {
				return fmt.Errorf("it fell silent: %w", err)
			}
		}
		if err := s.pause(ctx, pingPause); err != nil {
			return err
		}
	}
}

// pause waits; its error is why nothing goes on.
func (s *Store) pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-s.stopping:
		return raft.ErrRaftShutdown
	case <-ctx.Done():
		return ctx.Err()
	}
}

// prove has an entry committed while a new voter counts, and waits until every
// voter that is there has it: of more than two voters others could have
// committed it, and one that has not heard of the new voter would refuse it its
// vote (raft 1.8.0), so that without the leader nobody could be elected.
func (s *Store) prove(ctx context.Context, id string, there map[string]bool) error {
	r, err := s.propose(ctx, s.config.ID, ReplicaProve{ID: id})
	if err != nil {
		return err
	}
	m := s.Membership()
	for _, voter := range m.Voters() {
		if voter == s.config.ID || !there[voter] {
			continue
		}
		for {
			has, err := s.config.Peers.Stored(ctx, voter)
			if err == nil && has.Last >= r.Index && (voter != id || has.Voter) {
				break
			}
			if over := s.pause(ctx, pingPause); over != nil {
				return fmt.Errorf("replica %s did not store entry %d: %w", m.Called(voter), r.Index, errors.Join(err, over))
			}
		}
	}
	return nil
}

// Stored is what a replica has on its own disk.
type Stored struct {
	Last    uint64 `json:"last"`    // the newest entry of its log
	Applied uint64 `json:"applied"` // the newest one in its state
	Voter   bool   `json:"voter"`   // it is a voter, as far as it knows
	Epoch   uint64 `json:"epoch"`   // of its state
}

// Stored is what this replica has.
func (s *Store) Stored() Stored {
	return Stored{
		Last: s.raft.LastIndex(), Applied: s.raft.AppliedIndex(), Voter: s.Membership().Voter(s.config.ID),
		Epoch: s.View().t.cluster().Epoch,
	}
}

// Transfer hands the lead to another voter. It returns once this replica does
// not lead; whether the other one does shows in its epoch, which Raft's answer
// says nothing of (raft 1.8.0: nil means that the lead was lost, to anybody).
func (s *Store) Transfer(ctx context.Context, id string) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	m := s.Membership()
	switch {
	case !m.Leads:
		return fmt.Errorf("handing the lead to replica %s: %w", m.Called(id), ErrNotLeading)
	case id == s.config.ID || !m.Voter(id):
		// Raft itself would depose the leader for one that can never lead.
		return &Refusal{fmt.Sprintf("handing the lead to replica %s: it is no other voter; members are %s", m.Called(id), m)}
	}
	if err := s.await(ctx, s.raft.LeadershipTransferToServer(raft.ServerID(id), raft.ServerAddress(id))); err != nil {
		return fmt.Errorf("handing the lead to replica %s: %w", m.Called(id), err)
	}
	// Raft knows it before this package was told.
	for {
		leads, changed := s.leading.state()
		if !leads {
			return nil
		}
		select {
		case <-changed:
		case <-s.stopping:
			return raft.ErrRaftShutdown
		case <-ctx.Done():
			return fmt.Errorf("handing the lead to replica %s: %w", m.Called(id), ctx.Err())
		}
	}
}

// Checked is the entry of the newest StateCheck that this replica applied since
// its start, and its state's hash there; 0 without one.
func (s *Store) Checked() (index uint64, hashed string, err error) {
	v := s.fsm.checked.Load()
	if v == nil {
		return 0, "", nil
	}
	s.hashing.Lock() // a large state takes a while, and is asked for each second
	defer s.hashing.Unlock()
	if s.hashedIndex != v.index {
		if s.hashed, err = hash(v.txn); err != nil {
			return v.index, "", err
		}
		s.hashedIndex = v.index
	}
	return v.index, s.hashed, nil
}

// catchUpPause is between two questions of one that has to catch up.
const catchUpPause = 200 * time.Millisecond

// CatchUp waits until this replica has in its state what the leader had when it was
// asked. What a start finds may be a snapshot's, which is old: nothing must be
// removed by it.
func (s *Store) CatchUp(ctx context.Context) error {
	for {
		m := s.Membership()
		switch {
		case m.Leads:
			return nil
		case m.Leader != "" && m.Leader != s.config.ID && s.config.Peers != nil:
			if at, err := s.config.Peers.Stored(ctx, m.Leader); err == nil {
				return s.fsm.await(ctx, at.Applied, s.stopping)
			}
		}
		if err := s.pause(ctx, catchUpPause); err != nil {
			return fmt.Errorf("waiting for a leader, which knows what is committed: %w", err)
		}
	}
}
