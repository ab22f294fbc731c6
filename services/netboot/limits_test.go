package netboot

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rackseed/rackseed/services/wire"
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

// endless is a blob store whose blobs are large; it tells when one is closed.
type endless struct{ closed chan struct{} }

func (e endless) Open(context.Context, string) (io.ReadSeekCloser, error) {
	return endlessBlob{bytes.NewReader(make([]byte, 64<<20)), e.closed}, nil
}

func (e endless) Files(string) ([]wire.File, error) { return nil, nil }

type endlessBlob struct {
	*bytes.Reader
	closed chan struct{}
}

func (b endlessBlob) Close() error { b.closed <- struct{}{}; return nil }

// Who asks for a blob and does not read holds a turn for no longer than Stall.
func TestStalledTransferEnds(t *testing.T) {
	l := newLab(t)
	blobs := endless{make(chan struct{}, 1)}
	server := httptest.NewServer(New(Config{
		Store: l.store, Blobs: blobs, Output: l.server.Output, Ignition: l.server.Ignition,
		Limits: Limits{Stall: 10 * time.Millisecond}, Now: l.server.Now, Logger: l.server.Logger,
	}))
	defer server.Close()
	c, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := fmt.Fprintf(c, "GET /blobs/%s HTTP/1.1\r\nHost: x\r\n\r\n", digestFor("x")); err != nil {
		t.Fatal(err)
	}
	select {
	case <-blobs.closed:
	case <-time.After(20 * time.Second):
		t.Error("it still has its turn")
	}
}

// One address has only some of the transfers.
func TestTransfersOfOneSource(t *testing.T) {
	l := newLab(t).serve(t)
	from := netip.MustParseAddr("127.0.0.1")
	for range l.server.Limits.TransfersPerSource {
		l.server.receivers.Enter(from)
	}
	l.want(t, 503, "to this address", nil, "GET", "/blobs/"+digestFor(nodeRoot), nil)
	l.server.receivers.Leave(from)
	for range 2 { // the turn is given back
		l.want(t, 200, nodeRoot, nil, "GET", "/blobs/"+digestFor(nodeRoot), nil)
	}
}

// held is a body of which one byte came.
type held struct {
	first bool
	ended <-chan struct{}
}

func (b *held) Read(p []byte) (int, error) {
	if !b.first {
		b.first = true
		return copy(p, "{"), nil
	}
	<-b.ended
	return 0, io.ErrUnexpectedEOF
}

// One address that sends bodies and does not end them keeps nobody else from
// asking.
func TestBodiesOfOneSource(t *testing.T) {
	l := newLab(t)
	l.server = New(Config{
		Store: l.store, Blobs: l.blobs, Output: l.server.Output, Ignition: l.server.Ignition,
		Limits: Limits{Bodies: 8}, Now: l.server.Now, Logger: l.server.Logger,
	})
	answer := func(method, path, from string, body io.Reader) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, path, body)
		r.RemoteAddr = from + ":1024"
		w := httptest.NewRecorder()
		l.server.ServeHTTP(w, r)
		return w
	}
	const flood = 12
	ended, answers := make(chan struct{}), make(chan *httptest.ResponseRecorder, flood)
	for range flood {
		go func() { answers <- answer("POST", wire.PathClaim, "192.0.2.66", &held{ended: ended}) }()
	}
	for range flood - l.server.Limits.BodiesPerSource {
		if a := <-answers; a.Code != 503 || !strings.Contains(a.Body.String(), "from this address") {
			t.Errorf("%d %s", a.Code, a.Body)
		}
	}
	// It is read, and nobody signed it.
	if a := answer("POST", wire.PathClaim, "192.0.2.1", strings.NewReader("{}")); a.Code != 401 {
		t.Errorf("another's claim: %d %s", a.Code, a.Body)
	}
	// What has no body waits for no place, even where none is left.
	for len(l.server.bodies) < cap(l.server.bodies) {
		l.server.bodies <- struct{}{}
	}
	if a := answer("GET", wire.PathOrder, "192.0.2.1", nil); a.Code != 401 {
		t.Errorf("another asks for its order: %d %s", a.Code, a.Body)
	}
	for range cap(l.server.bodies) - l.server.Limits.BodiesPerSource {
		<-l.server.bodies
	}
	close(ended)
	for range l.server.Limits.BodiesPerSource {
		if a := <-answers; a.Code != 400 {
			t.Errorf("%d %s", a.Code, a.Body)
		}
	}
	// The places are given back.
	if a := answer("POST", wire.PathClaim, "192.0.2.66", strings.NewReader("{}")); a.Code != 401 || len(l.server.bodies) != 0 {
		t.Errorf("%d %s, %d bodies", a.Code, a.Body, len(l.server.bodies))
	}
}

// oneConn is a listener with one connection.
type oneConn struct {
	conn chan net.Conn
	done <-chan struct{}
}

func (l oneConn) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l oneConn) Close() error   { return nil }
func (l oneConn) Addr() net.Addr { return &net.TCPAddr{} }

// A body that does not come is waited for no longer than a few seconds, and one
// that is slow as long as its size is worth.
func TestSlowBodyEnds(t *testing.T) {
	l := newLab(t)
	for name, c := range map[string]struct {
		path string
		size int
		each time.Duration // between two pieces of 16 KiB; 0: only one byte comes
		want string
		most time.Duration
	}{
		"one byte":       {wire.PathClaim, 1000, 0, "400", 7 * time.Second},
		"slow":           {wire.PathOutput, 4 << 20, time.Second, "400", 8 * time.Second},
		"not that slow":  {wire.PathOutput, 2 << 20, 200 * time.Millisecond, "401", time.Minute},
		"stands still":   {wire.PathOutput, 1 << 20, 30 * time.Second, "400", 7 * time.Second},
		"all of a small": {wire.PathClaim, 1000, 10 * time.Millisecond, "401", time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := New(Config{Store: l.store, Blobs: l.blobs, Output: l.server.Output, Ignition: l.server.Ignition, Now: l.server.Now, Logger: l.server.Logger})
				ctx, stop := context.WithCancel(t.Context())
				near, far := net.Pipe()
				listener := oneConn{make(chan net.Conn, 1), ctx.Done()}
				listener.conn <- far
				served := make(chan error, 1)
				go func() { served <- (&http.Server{Handler: server}).Serve(listener) }()
				began := time.Now()
				sent := make(chan struct{})
				go func() {
					defer close(sent)
					// Errors are the server's hanging up.
					_, _ = fmt.Fprintf(near, "POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n", c.path, c.size)
					if c.each == 0 {
						_, _ = near.Write([]byte("{"))
						return
					}
					for left := c.size; left > 0; left -= 16 << 10 {
						time.Sleep(c.each) // of the bubble's clock
						if _, err := near.Write(make([]byte, min(left, 16<<10))); err != nil {
							return
						}
					}
				}()
				answer, err := io.ReadAll(near)
				if took := time.Since(began); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 "+c.want) || took > c.most {
					t.Errorf("after %s: %q, %v", took, answer, err)
				}
				_ = near.Close() // it may be closed from the other side
				<-sent
				if len(server.bodies) != 0 {
					t.Error("its place is still taken")
				}
				stop()
				<-served
			})
		})
	}
}
