package address

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
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
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", listen)
	if err != nil {
		return fmt.Errorf("forwarding: %w", err)
	}
	f := &forwarder{targets: targets, log: slog.Default().With("listen", listen), bad: map[string]time.Time{}, slots: make(chan struct{}, limit)}
	return f.serve(ctx, l)
}

type forwarder struct {
	targets func() []string
	log     *slog.Logger
	slots   chan struct{}
	turn    atomic.Uint64

	mu        sync.Mutex
	bad       map[string]time.Time // target → when it could not be reached
	complaint time.Time
}

func (f *forwarder) serve(ctx context.Context, l net.Listener) error {
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

func (f *forwarder) forward(ctx context.Context, client *net.TCPConn) {
	defer f.close(client)
	server, err := f.dial(ctx)
	if err != nil {
		f.complain("connection ended", "client", client.RemoteAddr().String(), "error", err)
		return
	}
	defer f.close(server)
	stop := context.AfterFunc(ctx, func() { // ends both copies
		f.close(client)
		f.close(server)
	})
	defer stop()
	up := make(chan error, 1)
	go func() { up <- pass(server, client) }()
	down := pass(client, server)
	if err := errors.Join(<-up, down); err != nil && ctx.Err() == nil {
		f.log.Debug("connection broke", "client", client.RemoteAddr().String(), "target", server.RemoteAddr().String(), "error", err)
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

// dial reaches one of the targets.
func (f *forwarder) dial(ctx context.Context) (*net.TCPConn, error) {
	targets := f.targets()
	if len(targets) == 0 {
		return nil, errors.New("there is nothing to forward to yet")
	}
	f.mu.Lock()
	list := order(targets, f.turn.Add(1), f.bad, time.Now())
	f.mu.Unlock()
	dialer := net.Dialer{Timeout: dialTime}
	var failed []error
	for _, target := range list {
		c, err := dialer.DialContext(ctx, "tcp", target)
		if ctx.Err() != nil {
			if err == nil {
				f.close(c)
			}
			return nil, ctx.Err()
		}
		f.note(targets, target, err)
		if err == nil {
			return c.(*net.TCPConn), nil
		}
		failed = append(failed, err)
	}
	return nil, fmt.Errorf("no target could be reached: %w", errors.Join(failed...))
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

// note remembers what became of a target, and forgets those that are no more.
func (f *forwarder) note(targets []string, target string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.bad, target)
	if err != nil {
		f.bad[target] = time.Now()
	}
	if len(f.bad) > len(targets) {
		clear(f.bad)
	}
}

// complain warns, but not for each connection of a flood.
func (f *forwarder) complain(text string, args ...any) {
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
func (f *forwarder) close(c net.Conn) {
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
