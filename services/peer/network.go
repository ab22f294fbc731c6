package peer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/rackseed/rackseed/services/bounded"
)

// PortNumber is where replicas listen for each other, and Port the same in words.
const (
	PortNumber = 8300
	Port       = "8300"
)

// What is spoken on the port, by TLS's ALPN (RFC 7301).
const (
	protocolRaft    = "rackseed-raft/1"
	protocolReplica = "rackseed-replica/1" // HTTP/1.1, between members
	protocolJoin    = "rackseed-join/1"    // HTTP/1.1, from who has no certificate yet
)

const (
	handshakeLimit = 5 * time.Second
	// Connections at once, in all and from one address. A replica needs a
	// handful: Raft's pool, requests, blobs.
	maxConns, maxConnsPerSource = 1024, 128
	headerLimit                 = 10 * time.Second // for the head of a request
	idleLimit                   = 2 * time.Minute
	keepAlive                   = 15 * time.Second
)

// Config is what a Network is made of. Everything but Dial is needed.
type Config struct {
	Identity Identity
	// Member says whether this replica talks to a server ID, which has a certificate
	// of the cluster.
	Member func(id string) bool
	// Endpoint is where a server ID listens, as host:port.
	Endpoint func(id string) (string, error)
	// Members serves other members (see From); Joins serves who has no
	// certificate, and checks what it is sent.
	Members, Joins http.Handler
	Logger         *slog.Logger
	Dial           func(ctx context.Context, network, address string) (net.Conn, error)
}

// Network is a replica's side of the connections between replicas.
type Network struct {
	Config
	raft    *queue
	members *queue
	joins   *queue
	servers []*http.Server
	serving sync.WaitGroup
	client  *http.Client
	closing context.Context
	stop    context.CancelFunc

	newer atomic.Pointer[newer]

	mu    sync.Mutex
	conns map[*conn]struct{}
}

// New makes a Network, which dials; it listens once Serve runs. Close ends it.
func New(c Config) *Network {
	if c.Dial == nil {
		c.Dial = (&net.Dialer{KeepAlive: keepAlive}).DialContext
	}
	n := &Network{Config: c, conns: map[*conn]struct{}{}}
	n.closing, n.stop = context.WithCancel(context.Background())
	n.raft, n.members, n.joins = newQueue(c.Identity.ID), newQueue(c.Identity.ID), newQueue(c.Identity.ID)
	for _, h := range []http.Handler{c.Members, c.Joins} {
		n.servers = append(n.servers, &http.Server{
			Handler: h, ReadHeaderTimeout: headerLimit, IdleTimeout: idleLimit,
			ErrorLog: slog.NewLogLogger(c.Logger.Handler(), slog.LevelDebug),
			ConnContext: func(ctx context.Context, c net.Conn) context.Context {
				if own, ok := c.(*conn); ok {
					return context.WithValue(ctx, fromKey{}, own.id)
				}
				return ctx
			},
		})
	}
	n.servers[1].ReadTimeout = headerLimit // strangers
	for i, q := range []*queue{n.members, n.joins} {
		n.serving.Go(func() { n.servers[i].Serve(q) }) //nolint // it ends with the queue, by Close
	}
	n.client = &http.Client{Transport: &http.Transport{
		DialTLSContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			id, _, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			return n.dial(ctx, id, protocolReplica)
		},
		MaxIdleConnsPerHost: 8, IdleConnTimeout: time.Minute, ResponseHeaderTimeout: time.Minute,
		DisableCompression: true,
	}}
	return n
}

type fromKey struct{}

// From is the server ID of the member that a request comes from.
func From(ctx context.Context) string {
	id, _ := ctx.Value(fromKey{}).(string)
	return id
}

// Client sends requests to members: to https://ID/….
func (n *Network) Client() *http.Client { return n.client }

// Raft is the connections between members that Raft speaks on. Addresses in it
// are server IDs.
func (n *Network) Raft() raft.StreamLayer { return stream{n} }

type stream struct{ n *Network }

func (s stream) Accept() (net.Conn, error) { return s.n.raft.Accept() }
func (s stream) Close() error              { return s.n.raft.Close() }
func (s stream) Addr() net.Addr            { return s.n.raft.Addr() }

func (s stream) Dial(id raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(s.n.closing, timeout)
	defer cancel()
	return s.n.dial(ctx, string(id), protocolRaft)
}

// dial connects with a member.
func (n *Network) dial(ctx context.Context, id, protocol string) (net.Conn, error) {
	failed := func(err error) (net.Conn, error) {
		return nil, fmt.Errorf("replica %s: %w", id, err)
	}
	if !n.Member(id) {
		return failed(ErrNoMember)
	}
	at, err := n.Endpoint(id)
	if err != nil {
		return failed(err)
	}
	plain, err := n.Dial(ctx, "tcp", at)
	if err != nil {
		return failed(err)
	}
	secure := tls.Client(plain, &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{n.Identity.pair},
		ServerName: id, NextProtos: []string{protocol},
		InsecureSkipVerify: true, // in VerifyConnection instead, which can say more
		VerifyConnection: func(s tls.ConnectionState) error {
			if s.NegotiatedProtocol != protocol {
				return fmt.Errorf("%s: it does not speak %s: another release, or another program on that port", at, protocol)
			}
			if err := n.verify(s, id); err != nil {
				return err
			}
			_, err := n.admit(s.PeerCertificates[0], id)
			return err
		},
	})
	ctx, cancel := context.WithTimeout(ctx, handshakeLimit)
	defer cancel()
	if err := secure.HandshakeContext(ctx); err != nil {
		err = errors.Join(err, plain.Close())
		if Refused(err) { // by anybody: who that is was not proved yet
			err = errors.New(err.Error())
		}
		return failed(fmt.Errorf("%s: %w", at, err))
	}
	if newer := n.newer.Load(); newer != nil && newer.at == id {
		n.newer.Store(nil) // what answered there before was somebody else
	}
	return n.keep(secure, id)
}

// Refused says whether an error is another member's no to who this replica is: with
// TLS 1.3 it comes once that has proved who it is itself.
func Refused(err error) bool {
	var remote *net.OpError // of crypto/tls, for an alert
	return errors.As(err, &remote) && remote.Op == "remote error"
}

// ErrNoMember says that a replica is none that this one talks to.
var ErrNoMember = errors.New("it is not in the configuration (it was removed, or is not added yet)")

// OtherGenerationError says that the cluster was recovered: who answers has a
// certificate of another generation. It is not proved: the other generation's
// authority is not known here.
type OtherGenerationError struct {
	There, Own Name
}

func (e *OtherGenerationError) Error() string {
	if e.There.Generation > e.Own.Generation {
		return fmt.Sprintf("cluster %s was recovered, and is at generation %d: this replica, of generation %d, is over; remove its folder, and let a new one join",
			e.Own.Cluster, e.There.Generation, e.Own.Generation)
	}
	return fmt.Sprintf("%s was left behind when the cluster was recovered as generation %d", e.There, e.Own.Generation)
}

// newer is another generation's certificate where a server ID should answer.
type newer struct {
	at string
	*OtherGenerationError
}

// verify checks the certificate of who answers where a server ID should.
func (n *Network) verify(s tls.ConnectionState, id string) error {
	leaf := s.PeerCertificates[0] // a TLS server has one
	_, err := leaf.Verify(x509.VerifyOptions{Roots: n.Identity.roots, DNSName: id})
	if err == nil {
		return nil
	}
	if name, unnamed := nameOf(leaf); unnamed == nil && name.Cluster == n.Identity.Cluster && name.Generation != n.Identity.Generation {
		other := &OtherGenerationError{name, n.Identity.Name}
		if name.Generation > n.Identity.Generation {
			n.newer.Store(&newer{id, other})
		}
		return other
	}
	return err
}

// Newer is that the cluster was recovered without this replica, as somebody's
// certificate said; nil: nobody's did.
func (n *Network) Newer() error {
	if e := n.newer.Load(); e != nil {
		return e.OtherGenerationError
	}
	return nil
}

// admit says who has a certificate of the authority, and whether it may talk to
// this replica.
func (n *Network) admit(leaf *x509.Certificate, want string) (string, error) {
	name, err := nameOf(leaf)
	switch own := n.Identity.Name; {
	case err != nil:
		return "", err
	case name.Cluster != own.Cluster || name.Generation != own.Generation:
		return "", fmt.Errorf("%s is no peer of %s", name, own)
	case want != "" && name.ID != want:
		return "", fmt.Errorf("%s answers where %s should", name.ID, want)
	case name.ID == own.ID:
		return "", fmt.Errorf("it says that it is %s, as this replica: its folder was copied, and one of them must not run", name.ID)
	case !n.Member(name.ID):
		return "", fmt.Errorf("%s: %w", name.ID, ErrNoMember)
	}
	return name.ID, nil
}

// Serve listens until ctx ends. What is connected then stays so: it may listen
// somewhere else next.
func (n *Network) Serve(ctx context.Context, l net.Listener) error {
	l = bounded.Listen(l, maxConns, maxConnsPerSource)
	var all sync.WaitGroup
	defer all.Wait()
	for _, ended := range []context.Context{ctx, n.closing} {
		defer context.AfterFunc(ended, func() { l.Close() })()
	}
	for {
		plain, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil || n.closing.Err() != nil {
				return nil
			}
			return errors.Join(err, l.Close())
		}
		all.Go(func() { n.accept(plain) })
	}
}

// accept finds out who it is that connected, and hands the connection on.
func (n *Network) accept(plain net.Conn) {
	if c, ok := plain.(interface{ SetKeepAlivePeriod(time.Duration) error }); ok {
		_ = c.SetKeepAlivePeriod(keepAlive) // without it a dead peer is noticed later
	}
	id := ""
	secure := tls.Server(plain, &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{n.Identity.pair},
		ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: n.Identity.roots,
		NextProtos:             []string{protocolRaft, protocolReplica, protocolJoin},
		SessionTicketsDisabled: true, // a resumed session would not ask again who it is
		VerifyConnection: func(s tls.ConnectionState) (err error) {
			if s.NegotiatedProtocol == protocolJoin {
				return nil
			}
			if len(s.VerifiedChains) == 0 {
				return errors.New("it has no certificate")
			}
			id, err = n.admit(s.PeerCertificates[0], "")
			return err
		},
	})
	ctx, cancel := context.WithTimeout(n.closing, handshakeLimit)
	defer cancel()
	to := map[string]*queue{protocolRaft: n.raft, protocolReplica: n.members, protocolJoin: n.joins}
	err := secure.HandshakeContext(ctx)
	q := to[secure.ConnectionState().NegotiatedProtocol]
	if err == nil && q == nil {
		err = errors.New("it speaks nothing that replicas speak")
	}
	var c net.Conn
	if err == nil {
		c, err = n.keep(secure, id)
	}
	if err == nil && !q.put(ctx, c) {
		err = errors.Join(net.ErrClosed, c.Close()) // it is kept among those that are open
	}
	if err != nil {
		n.Logger.Debug("peer: a connection was refused", "from", plain.RemoteAddr(), "error", err)
		plain.Close() // it is given up
	}
}

// conn is a connection whose other side is known; id is "" for who joins.
type conn struct {
	*tls.Conn
	id string
	n  *Network
}

func (c *conn) Close() error {
	c.n.mu.Lock()
	delete(c.n.conns, c)
	c.n.mu.Unlock()
	return c.Conn.Close()
}

// may says whether the other side may still speak: who joins always.
func (c *conn) may() bool {
	return c.id == "" || c.n.Member(c.id)
}

// cut closes without the farewell, which would wait for a peer that hangs.
func (c *conn) cut() { c.Conn.NetConn().Close() }

func (n *Network) keep(secure *tls.Conn, id string) (net.Conn, error) {
	c := &conn{secure, id, n}
	n.mu.Lock()
	n.conns[c] = struct{}{}
	n.mu.Unlock()
	// After it is in the list: a removal from the configuration or a Close that
	// came between finds it here.
	if n.closing.Err() != nil || !c.may() {
		c.Close() // nobody has it yet
		return nil, ErrNoMember
	}
	return c, nil
}

// Recheck cuts who is not a member any more. It is to be called after each
// change of the configuration.
func (n *Network) Recheck() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.conns {
		if !c.may() {
			c.cut()
			delete(n.conns, c) // whoever has it may not look at it for long
		}
	}
}

// Connected lists the server IDs of members with a connection, in order.
func (n *Network) Connected() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var list []string
	for c := range n.conns {
		if c.id != "" && !slices.Contains(list, c.id) {
			list = append(list, c.id)
		}
	}
	slices.Sort(list)
	return list
}

// Close cuts every connection, and lets none come to be any more.
func (n *Network) Close() {
	n.stop()
	for _, s := range n.servers {
		s.Close() // it has no listener of its own to fail at
	}
	for _, q := range []*queue{n.raft, n.members, n.joins} {
		q.Close() // never fails
	}
	n.client.CloseIdleConnections()
	n.mu.Lock()
	for c := range n.conns {
		c.cut()
	}
	n.mu.Unlock()
	n.serving.Wait()
}

// queue is a listener for connections that were accepted elsewhere. Its address
// is a server ID.
type queue struct {
	id     string
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newQueue(id string) *queue {
	return &queue{id: id, conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (q *queue) put(ctx context.Context, c net.Conn) bool {
	select {
	case q.conns <- c:
		return true
	case <-q.closed:
		return false
	case <-ctx.Done():
		return false
	}
}

func (q *queue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.closed:
		return nil, net.ErrClosed
	}
}

func (q *queue) Close() error {
	q.once.Do(func() { close(q.closed) })
	return nil
}

func (q *queue) Addr() net.Addr { return address(q.id) }

// address is a server ID as an address.
type address string

func (address) Network() string  { return "replica" }
func (a address) String() string { return string(a) }
