package netboot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// stopTime is what answers on their way get when the server stops.
const stopTime = 3 * time.Second

// Serve answers machines on l until ctx ends, and then returns nil. It closes
// l.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		// Long polls end with ctx.
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    slog.NewLogLogger(s.Logger.Handler(), slog.LevelDebug),
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(newBounded(l, s.Limits)) }()
	select {
	case err := <-failed:
		return fmt.Errorf("machines' HTTP server on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
	defer cancel()
	if err := server.Shutdown(stop); err != nil {
		// Long transfers are cut; machines go on by Range.
		if err := server.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("machines' HTTP server on %s: %w", l.Addr(), err)
		}
	}
	<-failed
	return nil
}

// bounded is a listener with a limit on connections, in all and from each
// source. One too many is closed at once: its client tries again, and those
// that are served are not slowed down.
type bounded struct {
	net.Listener
	limits Limits

	mu   sync.Mutex
	all  int
	from map[netip.Addr]int
}

func newBounded(l net.Listener, limits Limits) *bounded {
	return &bounded{Listener: l, limits: limits, from: map[netip.Addr]int{}}
}

func (b *bounded) Accept() (net.Conn, error) {
	for {
		c, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from := source(c.RemoteAddr().String())
		if b.enter(from) {
			return &boundedConn{Conn: c, leave: sync.OnceFunc(func() { b.leave(from) })}, nil
		}
		_ = c.Close() // there is nothing to lose on it
	}
}

func (b *bounded) enter(from netip.Addr) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.all >= b.limits.Conns || b.from[from] >= b.limits.ConnsPerSource {
		return false
	}
	b.all++
	b.from[from]++
	return true
}

func (b *bounded) leave(from netip.Addr) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all--
	if b.from[from]--; b.from[from] == 0 {
		delete(b.from, from)
	}
}

type boundedConn struct {
	net.Conn
	leave func()
}

func (c *boundedConn) Close() error {
	c.leave()
	return c.Conn.Close()
}

// ReadFrom keeps the kernel's sendfile for blobs, which http looks for on the
// connection.
func (c *boundedConn) ReadFrom(r io.Reader) (int64, error) { return io.Copy(c.Conn, r) }
