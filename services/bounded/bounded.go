// Package bounded keeps connections and the like within a number, in all and
// from each source, so that nobody's flood is another's outage.
package bounded

import (
	"io"
	"net"
	"net/netip"
	"sync"
)

// Places are a number of places, of which one source has only some.
type Places struct {
	most, each int

	mu   sync.Mutex
	all  int
	from map[netip.Addr]int
}

// NewPlaces makes most places, each for one source.
func NewPlaces(most, each int) *Places {
	return &Places{most: most, each: each, from: map[netip.Addr]int{}}
}

// Enter takes a place, or says that there is none. Who entered leaves, once.
func (p *Places) Enter(from netip.Addr) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all >= p.most || p.from[from] >= p.each {
		return false
	}
	p.all++
	p.from[from]++
	return true
}

// Leave gives a place back.
func (p *Places) Leave(from netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all--
	if p.from[from]--; p.from[from] == 0 {
		delete(p.from, from)
	}
}

// Source is who something is counted for, from a remote address as host:port:
// an IPv4 address, or an IPv6 /64, since a host has a whole one. The zero
// address stands for all that have none.
func Source(remote string) netip.Addr {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Addr{}
	}
	a := ap.Addr().Unmap().WithZone("")
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return a
}

// Listen bounds a listener's connections: most in all, each from one source.
// One too many is closed at once: its client tries again, and those that are
// served are not slowed down.
func Listen(l net.Listener, most, each int) net.Listener {
	return &listener{Listener: l, places: NewPlaces(most, each)}
}

type listener struct {
	net.Listener
	places *Places
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from := Source(c.RemoteAddr().String())
		if l.places.Enter(from) {
			return &conn{Conn: c, leave: sync.OnceFunc(func() { l.places.Leave(from) })}, nil
		}
		_ = c.Close() // there is nothing to lose on it
	}
}

type conn struct {
	net.Conn
	leave func()
}

func (c *conn) Close() error {
	c.leave()
	return c.Conn.Close()
}

// ReadFrom keeps the kernel's sendfile, which http looks for on the connection.
func (c *conn) ReadFrom(r io.Reader) (int64, error) { return io.Copy(c.Conn, r) }
