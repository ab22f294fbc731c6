package bounded

import (
	"net"
	"net/netip"
	"testing"
)

func TestSource(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.1:80": "192.0.2.1", "[::ffff:192.0.2.1]:80": "192.0.2.1",
		"[2001:db8:1:2:3:4:5:6]:80": "2001:db8:1:2::", "[fe80::1%eth0]:80": "fe80::",
		"@": "invalid IP", "": "invalid IP",
	} {
		if got := Source(remote).String(); got != want {
			t.Errorf("%q: %s, want %s", remote, got, want)
		}
	}
}

// pipes is a listener whose connections come from addresses of the test's
// choice.
type pipes struct{ next chan net.Conn }

type pipe struct {
	net.Conn
	from string
}

func (p pipe) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(p.from))
}

func (p pipes) Accept() (net.Conn, error) {
	c, ok := <-p.next
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (p pipes) Close() error   { return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

func TestBoundedListener(t *testing.T) {
	p := pipes{make(chan net.Conn, 16)}
	l := Listen(p, 3, 2).(*listener)
	dial := func(from string) net.Conn {
		ours, theirs := net.Pipe()
		p.next <- pipe{theirs, from}
		return ours
	}
	accept := func() net.Conn {
		t.Helper()
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	dial("192.0.2.1:1")
	first := accept()
	dial("192.0.2.1:2")
	accept()
	tooMany := dial("192.0.2.1:3")
	dial("192.0.2.2:1")
	if c := accept(); c.RemoteAddr().String() != "192.0.2.2:1" {
		t.Errorf("accepted %s, a third of one source", c.RemoteAddr())
	}
	if _, err := tooMany.Read(make([]byte, 1)); err == nil {
		t.Error("the one too many was not closed")
	}
	full := dial("192.0.2.3:1")
	for range 2 { // closing twice gives one place back
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
	}
	go func() { _, _ = full.Read(make([]byte, 1)) }()
	// The queue still holds 192.0.2.3, which now fits, and then no more does.
	if c := accept(); c.RemoteAddr().String() != "192.0.2.3:1" {
		t.Errorf("accepted %s", c.RemoteAddr())
	}
	dial("192.0.2.4:1")
	close(p.next)
	if c, err := l.Accept(); err == nil {
		t.Errorf("accepted %s, a fourth of three", c.RemoteAddr())
	}
	if l.places.all != 3 || len(l.places.from) != 3 {
		t.Errorf("%d connections of %v", l.places.all, l.places.from)
	}
}
