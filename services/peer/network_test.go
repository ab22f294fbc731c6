package peer

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// lab is one cluster's replicas on loopback.
type lab struct {
	t         *testing.T
	cluster   string
	authority *Authority
	crt       []byte

	mu        sync.Mutex
	members   map[string]bool
	endpoints map[string]string
}

func newLab(t *testing.T, cluster string) *lab {
	t.Helper()
	key, crt, err := NewAuthority(cluster, 1)
	if err != nil {
		t.Fatal(err)
	}
	a, err := ParseAuthority(key, crt)
	if err != nil {
		t.Fatal(err)
	}
	return &lab{t: t, cluster: cluster, authority: a, crt: crt, members: map[string]bool{}, endpoints: map[string]string{}}
}

func (l *lab) identity(name Name) Identity {
	l.t.Helper()
	private, key, err := NewKey()
	if err != nil {
		l.t.Fatal(err)
	}
	crt, err := l.authority.Issue(name, private.Public())
	if err != nil {
		l.t.Fatal(err)
	}
	i, err := ParseIdentity(key, crt, l.crt)
	if err != nil {
		l.t.Fatal(err)
	}
	return i
}

func (l *lab) set(id string, member bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.members[id] = member
}

// start runs a replica, which is a member.
func (l *lab) start(id string) *Network {
	l.t.Helper()
	l.set(id, true)
	return l.startAs(l.identity(Name{l.cluster, 1, id}), id)
}

// startAs runs one with any identity, found at the endpoint of an ID.
func (l *lab) startAs(i Identity, at string) *Network {
	l.t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		l.t.Fatal(err)
	}
	l.mu.Lock()
	l.endpoints[at] = listener.Addr().String()
	l.mu.Unlock()
	n := New(Config{
		Identity: i, Logger: slog.New(slog.DiscardHandler),
		Member: func(id string) bool {
			l.mu.Lock()
			defer l.mu.Unlock()
			return l.members[id]
		},
		Endpoint: func(id string) (string, error) {
			l.mu.Lock()
			defer l.mu.Unlock()
			if at, known := l.endpoints[id]; known {
				return at, nil
			}
			return "", errors.New("its endpoint is not known")
		},
		Members: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "hello "+From(r.Context())) //nolint // the test reads it
		}),
		Joins: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "join"+From(r.Context())) //nolint // the test reads it
		}),
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Serve(ctx, listener) }()
	l.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			l.t.Error(err)
		}
		n.Close()
	})
	return n
}

// ask sends a request from one to another, and answers what came.
func ask(n *Network, id string) (string, error) {
	a, err := n.Client().Get("https://" + id + "/x")
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(a.Body)
	return string(b), errors.Join(err, a.Body.Close())
}

func wantError(t *testing.T, what string, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%s: %v, wanted %q in it", what, err, want)
	}
}

func TestMembersReachEachOther(t *testing.T) {
	l := newLab(t, "c-1")
	a, b := l.start("replica-a"), l.start("replica-b")
	if got, err := ask(a, "replica-b"); err != nil || got != "hello replica-a" {
		t.Errorf("%q, %v", got, err)
	}
	taken := make(chan string, 1)
	go func() {
		c, err := b.Raft().Accept()
		if err != nil {
			t.Error(err)
			return
		}
		got, _ := io.ReadAll(c) // what came before an error is looked at
		taken <- string(got)
	}()
	c, err := a.Raft().Dial("replica-b", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(c, "append") //nolint // seen on the other side
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if got := <-taken; got != "append" {
		t.Errorf("Raft got %q", got)
	}
	if got := a.Raft().Addr().String(); got != "replica-a" {
		t.Errorf("Raft's address is %s", got)
	}
}

func TestWhoIsRefused(t *testing.T) {
	l, other := newLab(t, "c-1"), newLab(t, "c-2")
	a := l.start("replica-a")
	l.start("replica-b")
	from := func(n *Network) error { _, err := ask(n, "replica-b"); return err }

	_, err := ask(a, "replica-nobody")
	wantError(t, "an ID that is in no configuration", err, "not in the configuration")
	l.set("replica-lost", true)
	_, err = ask(a, "replica-lost")
	wantError(t, "a member nobody knows where", err, "endpoint is not known")

	// Removed, and not told of it: its own list still has all.
	removed := l.startAs(l.identity(Name{"c-1", 1, "replica-x"}), "replica-x")
	if err := from(removed); !Refused(err) {
		t.Errorf("a removed replica: %v", err)
	}
	// Anybody can say no before it is proved who that is.
	anybody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer anybody.Close()
	go func() {
		for {
			c, err := anybody.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 1<<10))
			_, _ = c.Write([]byte{21, 3, 3, 0, 2, 2, 42}) // fatal: bad certificate
			_ = c.Close()
		}
	}()
	l.set("replica-y", true)
	l.mu.Lock()
	l.endpoints["replica-y"] = anybody.Addr().String()
	l.mu.Unlock()
	if _, err := ask(a, "replica-y"); err == nil || Refused(err) || !strings.Contains(err.Error(), "remote error") {
		t.Errorf("an alert of nobody known: %v", err)
	}
	wantError(t, "an older generation", from(l.startAs(l.identity(Name{"c-1", 7, "replica-a"}), "old")), "is no peer of")
	wantError(t, "a copy", from(l.startAs(l.identity(Name{"c-1", 1, "replica-b"}), "copy")), "its folder was copied")
	// Its own endpoints are those of the other cluster.
	stranger := other.start("replica-a")
	other.set("replica-b", true)
	other.mu.Lock()
	other.endpoints["replica-b"] = l.endpoints["replica-b"]
	other.mu.Unlock()
	wantError(t, "another cluster", from(stranger), "certificate signed by unknown authority")

	// Who answers is not who was asked.
	l.set("replica-c", true)
	l.mu.Lock()
	l.endpoints["replica-c"] = l.endpoints["replica-b"]
	l.mu.Unlock()
	_, err = ask(a, "replica-c")
	wantError(t, "another answers", err, "replica-b")
}

// A member that is removed loses the connections that it has, and only that one.
// One of a generation that was recovered from is told so, and one that goes on
// knows whom it was that it left behind.
func TestOtherGeneration(t *testing.T) {
	l := newLab(t, "c-1")
	old := l.start("replica-1")
	key, crt, err := NewAuthority("c-1", 2)
	if err != nil {
		t.Fatal(err)
	}
	authority, err := ParseAuthority(key, crt)
	if err != nil {
		t.Fatal(err)
	}
	next := &lab{t: t, cluster: "c-1", authority: authority, crt: crt, members: l.members, endpoints: l.endpoints}
	l.set("replica-2", true)
	recovered := next.startAs(next.identity(Name{"c-1", 2, "replica-2"}), "replica-2")
	dial := func(from *Network, to string) (name Name) {
		t.Helper()
		_, err := from.Client().Get("https://" + to + "/")
		var other *OtherGenerationError
		if !errors.As(err, &other) {
			t.Fatalf("to %s: %v", to, err)
		}
		return other.There
	}
	if there := dial(old, "replica-2"); there.Generation != 2 || old.Newer() == nil || !strings.Contains(old.Newer().Error(), "is over; remove its folder") {
		t.Errorf("%+v, %v", there, old.Newer())
	}
	if there := dial(recovered, "replica-1"); there.Generation != 1 || recovered.Newer() != nil {
		t.Errorf("%+v, %v", there, recovered.Newer())
	}
}

func TestRemovedIsCut(t *testing.T) {
	l := newLab(t, "c-1")
	a, b := l.start("replica-a"), l.start("replica-b")
	c := l.start("replica-c")
	accept := func() net.Conn {
		conn, err := a.Raft().Accept()
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	dial := func(n *Network) net.Conn {
		conn, err := n.Raft().Dial("replica-a", time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	fromB := dial(b)
	atB := accept()
	fromC := dial(c)
	atC := accept()
	l.set("replica-b", false)
	a.Recheck()
	if _, err := atB.Read(make([]byte, 1)); err == nil {
		t.Error("what a removed one sends is still read")
	}
	if _, err := fromB.Read(make([]byte, 1)); err == nil {
		t.Error("a removed one is still connected")
	}
	if _, err := b.Raft().Dial("replica-a", time.Minute); err == nil {
		// TLS 1.3's client hears of a refusal at its first read.
		t.Log("dialled; the refusal comes with the first read")
	}
	go fromC.Write([]byte("x")) //nolint // read below
	if _, err := atC.Read(make([]byte, 1)); err != nil {
		t.Errorf("the other one was cut, too: %v", err)
	}
}

func TestInvitation(t *testing.T) {
	l := newLab(t, "c-1")
	n := l.start("replica-a")
	l.start("replica-b")
	at := l.endpoints["replica-a"]
	get := func(i Invitation) (string, error) {
		client, err := i.Client()
		if err != nil {
			return "", err
		}
		a, err := client.Get("https://" + at + "/join")
		if err != nil {
			return "", err
		}
		b, err := io.ReadAll(a.Body)
		return string(b), errors.Join(err, a.Body.Close())
	}
	good := Invitation{Cluster: "c-1", Generation: 1, Authority: l.crt, Endpoints: []string{at}, Token: "t"}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	if got, err := get(good); err != nil || got != "join" {
		t.Errorf("%q, %v", got, err)
	}
	bad := good
	bad.Authority = newLab(t, "c-1").crt
	_, err := get(bad)
	wantError(t, "another authority", err, "no replica of cluster c-1")
	bad = good
	bad.Generation = 2
	_, err = get(bad)
	wantError(t, "another generation", err, "is not of cluster c-1, generation 2")
	for what, change := range map[string]func(*Invitation){
		"authority": func(i *Invitation) { i.Authority = []byte("x") },
		"endpoints": func(i *Invitation) { i.Endpoints = nil },
		"token":     func(i *Invitation) { i.Token = "" },
	} {
		bad := good
		change(&bad)
		if bad.Check() == nil {
			t.Errorf("an invitation without %s", what)
		}
	}

	// Without a certificate nothing but joining is spoken.
	for _, protocol := range []string{protocolRaft, protocolReplica} {
		c, err := tls.Dial("tcp", at, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}})
		if err == nil {
			_, err = c.Read(make([]byte, 1))
		}
		if err == nil {
			t.Errorf("%s is spoken with anybody", protocol)
		}
	}
	// A broken connection of who says nothing leaves nothing behind.
	if got := n.Connected(); len(got) != 0 {
		t.Errorf("connected with %v", got)
	}
}

func TestClosedIsSilent(t *testing.T) {
	l := newLab(t, "c-1")
	a, b := l.start("replica-a"), l.start("replica-b")
	c, err := a.Raft().Dial("replica-b", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	a.Close()
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("a connection outlives its network")
	}
	if _, err := a.Raft().Dial("replica-b", time.Minute); err == nil {
		t.Error("a closed network dials")
	}
	if _, err := a.Raft().Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a closed network accepts: %v", err)
	}
	if _, err := ask(b, "replica-a"); err == nil {
		t.Error("a closed network answers")
	}
}

// A clock that stands at 1970 or far ahead locks nobody out.
func TestClocks(t *testing.T) {
	l := newLab(t, "c-1")
	leaf := l.identity(Name{"c-1", 1, "replica-a"}).pair.Leaf
	for _, now := range []time.Time{time.Unix(0, 0), time.Date(2106, 2, 7, 0, 0, 0, 0, time.UTC)} {
		for _, c := range []struct{ from, to time.Time }{{leaf.NotBefore, leaf.NotAfter}, {l.authority.crt.NotBefore, l.authority.crt.NotAfter}} {
			if now.Before(c.from) || now.After(c.to) {
				t.Errorf("%v is outside of %v to %v", now, c.from, c.to)
			}
		}
	}
}

func TestIdentityIsCompared(t *testing.T) {
	l, other := newLab(t, "c-1"), newLab(t, "c-1")
	private, key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	crt, err := l.authority.Issue(Name{"c-1", 1, "replica-a"}, private.Public())
	if err != nil {
		t.Fatal(err)
	}
	_, another, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	for what, parts := range map[string][3][]byte{
		"another key":       {another, crt, l.crt},
		"another authority": {key, crt, other.crt},
		"an authority":      {key, l.crt, l.crt},
		"nothing":           {nil, nil, nil},
	} {
		if _, err := ParseIdentity(parts[0], parts[1], parts[2]); err == nil {
			t.Errorf("%s is taken", what)
		}
	}
	for _, bad := range []Name{{"c-1", 1, ""}, {"", 1, "a"}, {"c-1", 1, "A"}, {"c-1", 1, "a/b"}, {"c-1", 1, strings.Repeat("a", 64)}} {
		if _, err := l.authority.Issue(bad, private.Public()); err == nil {
			t.Errorf("%v got a certificate", bad)
		}
	}
	if _, err := ParseAuthority(key, crt); err == nil {
		t.Error("a replica's certificate is taken for an authority")
	}
	if i, err := ParseIdentity(key, crt, l.crt); err != nil || i.Name != (Name{"c-1", 1, "replica-a"}) {
		t.Errorf("%v, %v", i.Name, err)
	}
	if bytes.Contains(crt, []byte("PRIVATE")) {
		t.Error("a certificate has the key")
	}
}

var _ raft.StreamLayer = stream{}
