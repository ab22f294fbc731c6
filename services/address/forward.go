package address

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"
)

const (
	dialTime = 2 * time.Second
	// badTime is how long a target that could not be reached is tried last.
	badTime = 10 * time.Second
	// halfOpenTime is how long the other direction may go on after one ended.
	halfOpenTime = 10 * time.Minute
	acceptPause  = 100 * time.Millisecond
	// complaintPause is between messages about refused connections.
	complaintPause = 10 * time.Second
)

// Forward listens at listen (host:port) and connects each client with one of
// targets (host:port), which is asked anew for each: they take turns, those
// that could not be reached a moment ago last. It returns nil when ctx ends,
// having closed all connections, and fails if it cannot listen. limit is how
// many connections are open at once; one more is closed at once.
func Forward(ctx context.Context, listen string, limit int, targets func() []string) error {
	return NewForwarder(listen, limit, &turns{targets: targets, bad: map[string]time.Time{}}).Run(ctx)
}

// Chooser says where a Forwarder's clients are led.
type Chooser interface {
	// Order gives the targets (host:port) for one client, in the order in which
	// they are tried.
	Order() []string
	// Note tells what became of an attempt to reach one; nil: it was reached.
	Note(target string, err error)
}

// Forwarder connects clients with targets.
type Forwarder struct {
	listen  string
	chooser Chooser
	log     *slog.Logger
	slots   chan struct{}

	mu        sync.Mutex
	open      map[*net.TCPConn]string // connections with targets → which one
	complaint time.Time
}

// NewForwarder makes a Forwarder that listens at listen (host:port). limit is how
// many connections are open at once; one more is closed at once.
func NewForwarder(listen string, limit int, chooser Chooser) *Forwarder {
	return &Forwarder{
		listen: listen, chooser: chooser, log: slog.Default().With("listen", listen),
		slots: make(chan struct{}, limit), open: map[*net.TCPConn]string{},
	}
}

// Run returns nil when ctx ends, having closed all connections, and fails if it
// cannot listen.
func (f *Forwarder) Run(ctx context.Context) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", f.listen)
	if err != nil {
		return fmt.Errorf("forwarding: %w", err)
	}
	return f.serve(ctx, l)
}

// Open counts the connections with each target.
func (f *Forwarder) Open() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	count := map[string]int{}
	for _, target := range f.open {
		count[target]++
	}
	return count
}

// Cut closes all connections with a target: its clients connect anew.
func (f *Forwarder) Cut(target string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c, t := range f.open {
		if t == target {
			f.close(c)
		}
	}
}

func (f *Forwarder) serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	closed := make(chan error, 1)
	go func() {
		<-ctx.Done()
		closed <- l.Close()
	}()
	var open sync.WaitGroup
	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			if err == nil {
				f.close(c)
			}
			break
		}
		if err != nil { // out of file descriptors: some will be free again
			f.complain("connection not accepted", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(acceptPause):
			}
			continue
		}
		select {
		case f.slots <- struct{}{}:
			open.Go(func() {
				defer func() { <-f.slots }()
				f.forward(ctx, c.(*net.TCPConn))
			})
		default:
			f.complain("connection refused: too many are open", "client", c.RemoteAddr().String(), "limit", cap(f.slots))
			f.close(c)
		}
	}
	cancel()
	open.Wait()
	return <-closed
}

func (f *Forwarder) forward(ctx context.Context, client *net.TCPConn) {
	defer f.close(client)
	server, target, err := f.dial(ctx)
	if err != nil {
		f.complain("connection ended", "client", client.RemoteAddr().String(), "error", err)
		return
	}
	f.mu.Lock()
	f.open[server] = target
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		delete(f.open, server)
		f.mu.Unlock()
		f.close(server)
	}()
	stop := context.AfterFunc(ctx, func() { // ends both copies
		f.close(client)
		f.close(server)
	})
	defer stop()
	up := make(chan error, 1)
	go func() { up <- pass(server, client) }()
	down := pass(client, server)
	if err := errors.Join(<-up, down); err != nil && ctx.Err() == nil {
		f.log.Debug("connection broke", "client", client.RemoteAddr().String(), "target", target, "error", err)
	}
}

// pass copies from one to the other and hands on the end. A broken direction
// ends the other one at once, an ended one lets it go on for a while.
func pass(to, from *net.TCPConn) error {
	_, err := io.Copy(to, from)
	if err == nil {
		err = to.CloseWrite()
	}
	rest := time.Now()
	if err == nil {
		rest = rest.Add(halfOpenTime)
	}
	return errors.Join(err, ignoreClosed(to.SetReadDeadline(rest)), ignoreClosed(from.SetWriteDeadline(rest)))
}

// dial reaches one of the targets, and says which.
func (f *Forwarder) dial(ctx context.Context) (*net.TCPConn, string, error) {
	list := f.chooser.Order()
	if len(list) == 0 {
		return nil, "", errors.New("there is nothing to forward to yet")
	}
	dialer := net.Dialer{Timeout: dialTime}
	var failed []error
	for _, target := range list {
		c, err := dialer.DialContext(ctx, "tcp", target)
		if ctx.Err() != nil {
			if err == nil {
				f.close(c)
			}
			return nil, "", ctx.Err()
		}
		f.chooser.Note(target, err)
		if err == nil {
			return c.(*net.TCPConn), target, nil
		}
		failed = append(failed, err)
	}
	return nil, "", fmt.Errorf("no target could be reached: %w", errors.Join(failed...))
}

// turns is the Chooser by which targets take turns.
type turns struct {
	targets func() []string

	mu   sync.Mutex
	last []string // the targets, as they were asked for last
	turn uint64
	bad  map[string]time.Time // target → when it could not be reached
}

func (t *turns) Order() []string {
	targets := t.targets()
	if len(targets) == 0 {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = targets
	t.turn++
	return order(targets, t.turn, t.bad, time.Now())
}

// order lets the targets take turns, those that were bad a moment ago last.
func order(targets []string, turn uint64, bad map[string]time.Time, now time.Time) []string {
	var good, last []string
	for i := range targets {
		t := targets[(uint64(i)+turn)%uint64(len(targets))]
		if at, ok := bad[t]; ok && now.Sub(at) < badTime {
			last = append(last, t)
		} else {
			good = append(good, t)
		}
	}
	return append(good, last...)
}

// Note remembers what became of a target, and forgets those that are no more.
func (t *turns) Note(target string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.bad, target)
	if err != nil {
		t.bad[target] = time.Now()
	}
	if len(t.bad) > len(t.last) {
		clear(t.bad)
	}
}

// complain warns, but not for each connection of a flood.
func (f *Forwarder) complain(text string, args ...any) {
	f.mu.Lock()
	loud := time.Since(f.complaint) >= complaintPause
	if loud {
		f.complaint = time.Now()
	}
	f.mu.Unlock()
	if loud {
		f.log.Warn(text, args...)
	} else {
		f.log.Debug(text, args...)
	}
}

// close closes a connection that may be closed already.
func (f *Forwarder) close(c net.Conn) {
	if err := ignoreClosed(c.Close()); err != nil {
		f.log.Debug("closing a connection", "error", err)
	}
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
