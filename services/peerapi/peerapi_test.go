package peerapi

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/handoff"
	"github.com/rackseed/rackseed/services/keyring"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/peer"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/statetest"
)

// node is a replica on loopback, with its log on disk.
type node struct {
	t         testing.TB
	id        string
	store     *state.Store
	network   *peer.Network
	endpoint  string
	sealed    machine.Handoff
	authority []byte
	joinsAt   map[string]string // where the others are, before the log tells
	stop      func()
	answers   *Server
}

func (n *node) member(id string) bool {
	m := n.store.Membership()
	if len(m.Members) == 0 {
		_, told := n.joinsAt[id]
		return told
	}
	return m.Has(id)
}

func (n *node) where(id string) (string, error) {
	if r, ok := n.store.View().Replica(id); ok {
		return r.Endpoint, nil
	}
	if at := n.joinsAt[id]; at != "" {
		return at, nil
	}
	return "", fmt.Errorf("where replica %s is, is not known", id)
}

// run runs a replica with its identity. joins: an empty one.
func run(t testing.TB, l net.Listener, identity peer.Identity, joinsAt map[string]string, joins bool) *node {
	t.Helper()
	n := &node{t: t, id: identity.ID, endpoint: l.Addr().String(), joinsAt: joinsAt}
	server := &Server{Report: func() (handoff.Report, error) { return handoff.Report{Stored: n.store.Stored()}, nil }, Seal: func(h machine.Handoff) error { n.sealed = h; return nil },
		Try: func(_ context.Context, t Trial) ([]handoff.Check, error) {
			return []handoff.Check{{Name: "dhcp", OK: true, Text: fmt.Sprint(t.Service, t.Networks)}}, nil
		},
		Keys: func(string) ([]keyring.Key, error) { return nil, &state.Refusal{Text: "not now"} }}
	n.network = peer.New(peer.Config{
		Identity: identity, Member: func(id string) bool { return n.store != nil && n.member(id) }, Endpoint: n.where,
		Members: server.Members(), Joins: server.Joins(), Logger: slog.New(slog.DiscardHandler),
	})
	store, err := state.Open(state.Config{Dir: t.TempDir(), ID: n.id, Stream: n.network.Raft(), Peers: Client{n.network.Client()}, Joins: joins, Fresh: joins, Members: n.network.Recheck, Keys: statetest.Keys(),
		Slower: 4, // a busy machine is no dead replica
	})
	if err != nil {
		t.Fatal(err)
	}
	n.store, server.Store, n.answers = store, store, server
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.network.Serve(ctx, l) }()
	n.stop = func() {
		n.stop = func() {}
		cancel()
		err := <-done
		n.network.Close()
		if err := errors.Join(err, store.Close()); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(func() { n.stop() })
	return n
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func key(t testing.TB) (crypto.Signer, []byte) {
	t.Helper()
	private, pem, err := peer.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return private, pem
}

// first makes a cluster of one.
func first(t testing.TB) (*node, []byte) {
	t.Helper()
	authorityKey, authority, err := peer.NewAuthority("c-1", 1)
	if err != nil {
		t.Fatal(err)
	}
	a, err := peer.ParseAuthority(authorityKey, authority)
	if err != nil {
		t.Fatal(err)
	}
	private, pem := key(t)
	crt, err := a.Issue(peer.Name{Cluster: "c-1", Generation: 1, ID: "replica-stick"}, private.Public())
	if err != nil {
		t.Fatal(err)
	}
	identity, err := peer.ParseIdentity(pem, crt, authority)
	if err != nil {
		t.Fatal(err)
	}
	n := run(t, listen(t), identity, nil, false)
	n.must(state.ClusterCreate{ID: "c-1", Generation: 1, Secrets: map[string]keyring.Sealed{SecretKey: statetest.Seal(SecretKey, authorityKey), SecretCrt: statetest.Seal(SecretCrt, authority)}})
	n.must(state.ReplicaTell{ID: n.id, Name: "appliance", Endpoint: n.endpoint, Key: hashOf(pem), Release: "v1", Level: 1})
	return n, authority
}

func (n *node) must(c state.Command) state.Result {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	r, err := n.store.Propose(ctx, "test", c)
	if err != nil {
		n.t.Fatal(err)
	}
	return r
}

// invited is an invitation by a node, which names at as the replicas to ask.
func (n *node) invited(authority []byte, at ...string) peer.Invitation {
	n.t.Helper()
	token, c := NewInvitation("node", "")
	c.Expires = time.Now().Add(time.Minute)
	n.must(c)
	return peer.Invitation{Cluster: "c-1", Generation: 1, Authority: authority, Endpoints: at, Token: token}
}

// grow makes another replica, which joins by asking at.
func (n *node) grow(authority []byte, at ...string) *node {
	n.t.Helper()
	private, pem := key(n.t)
	l := listen(n.t)
	q := JoinRequest{Endpoint: l.Addr().String(), Release: "v1", Level: 1}
	invitation := n.invited(authority, at...)
	r, err := Join(n.t.Context(), invitation, private, q)
	if err != nil {
		n.t.Fatal(err)
	}
	// The answer was lost, and it asks again.
	again, err := Join(n.t.Context(), invitation, private, q)
	if err != nil || again.ID != r.ID {
		n.t.Errorf("asked again: %s, %v; want %s", again.ID, err, r.ID)
	}
	// Somebody else has seen the token.
	other, _ := key(n.t)
	_, err = Join(n.t.Context(), invitation, other, q)
	if refusal := (*state.Refusal)(nil); !errors.As(err, &refusal) || !strings.Contains(err.Error(), "was used already") {
		n.t.Errorf("a token twice: %v", err)
	}
	identity, err := peer.ParseIdentity(pem, r.Certificate, authority)
	if err != nil {
		n.t.Fatal(err)
	}
	where := map[string]string{}
	for _, x := range r.Replicas {
		where[x.ID] = x.Endpoint
	}
	m := run(n.t, l, identity, where, true)
	if err := n.store.Change(n.t.Context(), state.Add, m.id); err != nil {
		n.t.Fatal(err)
	}
	eventually(n.t, m.id+" has the log", func() bool { return m.store.View().Index() >= n.store.View().Index() })
	return m
}

func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: it did not come to be", what)
		}
	}
}

// Three replicas join over TLS with their logs on disk, the lead goes to one of
// them, the first one is sealed and removed, and is cut off from then on.
func TestReplicasOverTLS(t *testing.T) {
	stick, authority := first(t)
	var nodes []*node
	asks := []string{"127.0.0.1:1", stick.endpoint} // nobody is at the first
	for range 3 {
		n := stick.grow(authority, asks...)
		if err := stick.store.Change(t.Context(), state.Promote, n.id); err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, n)
		asks = []string{n.endpoint} // a follower says where the leader is
	}
	// A follower's proposal, and the rules' no, go through the leader.
	r := nodes[2].must(state.Note{What: "note", Severity: machine.Info, Text: "by a follower"})
	if got := nodes[2].store.View().Events(r.Events[0].Seq-1, "", 1); len(got) != 1 || got[0].Text != "by a follower" {
		t.Errorf("in its own view: %v", got)
	}
	_, err := nodes[1].store.Propose(t.Context(), "test", state.ReplicaLeave{ID: "replica-none"})
	if refusal := (*state.Refusal)(nil); !errors.As(err, &refusal) {
		t.Errorf("a refusal through the leader: %v", err)
	}
	client := Client{nodes[1].network.Client()}
	if err := client.Seal(t.Context(), stick.id, machine.Handoff{ID: "h-1"}); err == nil || stick.sealed.ID != "" {
		t.Errorf("one that does not lead ended another: %v", err)
	}
	if report, err := client.Report(t.Context(), nodes[2].id); err != nil || report.Stored.Last == 0 || !report.Stored.Voter {
		t.Errorf("%+v, %v", report, err)
	}
	trial := Trial{Service: netip.MustParseAddr("10.77.0.3"), Networks: []netip.Prefix{netip.MustParsePrefix("10.77.0.0/16")}}
	if checks, err := client.Try(t.Context(), nodes[2].id, trial); err != nil || len(checks) != 1 || !checks[0].OK || checks[0].Text != "10.77.0.3 [10.77.0.0/16]" {
		t.Errorf("%+v, %v", checks, err)
	}

	if err := stick.store.Transfer(t.Context(), nodes[1].id); err != nil {
		t.Fatal(err)
	}
	leader := nodes[1]
	eventually(t, "the new leader's epoch", func() bool { leads, _ := leader.store.Leading(); return leads })
	if err := leader.store.Change(t.Context(), state.Demote, stick.id); err != nil {
		t.Fatal(err)
	}
	if err := client.Seal(t.Context(), stick.id, machine.Handoff{ID: "h-1"}); err != nil || stick.sealed.ID != "h-1" {
		t.Errorf("sealed %q, %v", stick.sealed.ID, err)
	}
	if err := leader.store.Change(t.Context(), state.Remove, stick.id); err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		eventually(t, n.id+" cuts the removed one", func() bool { return !slices.Contains(n.network.Connected(), stick.id) })
		if _, err := (Client{stick.network.Client()}).Stored(t.Context(), n.id); err == nil {
			t.Errorf("the removed one is answered by %s", n.id)
		}
	}
	// One more is lost, and two go on.
	nodes[0].stop()
	leader.must(state.Note{What: "note", Severity: machine.Info, Text: "two of three"})
}

func TestJoinIsRefused(t *testing.T) {
	stick, authority := first(t)
	private, _ := key(t)
	q := JoinRequest{Endpoint: "127.0.0.1:8300", Release: "v1", Level: 1}
	bad := stick.invited(authority, stick.endpoint)
	bad.Token = strings.Repeat("0", 64)
	_, err := Join(t.Context(), bad, private, q)
	if err == nil || !strings.Contains(err.Error(), "was not issued here") {
		t.Errorf("a made-up token: %v", err)
	}
	foreign := stick.invited(authority, stick.endpoint)
	foreign.Cluster = "c-2"
	if _, err := Join(t.Context(), foreign, private, q); err == nil || !strings.Contains(err.Error(), "c-2") {
		t.Errorf("another cluster's: %v", err)
	}
	q.Level = 0
	if _, err := Join(t.Context(), stick.invited(authority, stick.endpoint), private, q); err == nil || !strings.Contains(err.Error(), "feature level") {
		t.Errorf("an older release: %v", err)
	}
	// The plan that wanted it was given up.
	stick.answers.Expects = func(machine.ID) error { return &state.Refusal{Text: "no handoff wants it"} }
	q.Level = 1
	if _, err := Join(t.Context(), stick.invited(authority, stick.endpoint), private, q); err == nil || !strings.Contains(err.Error(), "no handoff wants it") {
		t.Errorf("nobody wants it: %v", err)
	}
	if list := stick.store.View().Replicas(); len(list) != 1 {
		t.Errorf("%d replicas", len(list))
	}
}
