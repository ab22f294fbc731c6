package netboot

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"
)

func TestRates(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	r := newRates(Limits{Rate: 2, Burst: 4, Sources: 2}.filled())
	a, b, c := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.3")
	for i, step := range []struct {
		from  netip.Addr
		cost  float64
		after time.Duration
		want  bool
	}{
		{a, 4, 0, true},
		{a, 1, 0, false},
		{b, 1, 0, true},               // another's flood is not its outage
		{a, 1, time.Second, true},     // two came back
		{a, 2, 0, false},              // one is left
		{a, 1, -time.Hour, true},      // a clock that was set back gives nothing and takes nothing
		{a, 5, 24 * time.Hour, false}, // never more than the burst
		{a, 4, 0, true},
		{c, 4, 0, true}, // the table is full: b, silent longest, is forgotten
		{b, 4, 0, true}, // and begins anew, where a is forgotten
		{c, 1, 0, false},
	} {
		now = now.Add(step.after)
		if got := r.take(step.from, step.cost, now); got != step.want {
			t.Errorf("step %d: %v", i, got)
		}
		if len(r.buckets) != r.recent.Len() || len(r.buckets) > 2 {
			t.Fatalf("step %d: %d buckets, %d in order", i, len(r.buckets), r.recent.Len())
		}
	}
}

func TestSource(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.1:80": "192.0.2.1", "[::ffff:192.0.2.1]:80": "192.0.2.1",
		"[2001:db8:1:2:3:4:5:6]:80": "2001:db8:1:2::", "[fe80::1%eth0]:80": "fe80::",
		"@": "invalid IP", "": "invalid IP",
	} {
		if got := source(remote).String(); got != want {
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
	l := newBounded(p, Limits{Conns: 3, ConnsPerSource: 2}.filled())
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
	if l.all != 3 || len(l.from) != 3 {
		t.Errorf("%d connections of %v", l.all, l.from)
	}
}

// A server that is told to stop ends its long polls and returns.
func TestServeStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	lab := newLab(t)
	done := make(chan error, 1)
	go func() { done <- lab.server.Serve(ctx, l) }()
	lab.url = "http://" + l.Addr().String()
	k := lab.keys(t)
	lab.session(t, k, "52:54:00:00:00:01")
	lab.store.viewed = make(chan struct{}, 16)
	polling := make(chan error, 1)
	go func() {
		_, err := lab.raw(k.sign, "GET", "/v1/installer/order?wait=30s", nil)
		polling <- err
	}()
	for range 2 { // whose key it is, and whether there is an order
		<-lab.store.viewed
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	<-polling
	if _, err := lab.raw(k.sign, "GET", "/v1/time", nil); err == nil {
		t.Error("it still answers")
	}
}

// The wait of a long poll is bounded, whatever the request asks for.
func TestPollTime(t *testing.T) {
	for ask, want := range map[string]time.Duration{"": 0, "-5s": 0, "7s": 7 * time.Second, "1h": longestWait, "x": 0} {
		if got := pollTime(ask); got != want {
			t.Errorf("%q: %v, want %v", ask, got, want)
		}
	}
}
