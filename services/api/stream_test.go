package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/statetest"
)

// message is any message of the streams.
type message struct {
	Type      string        `json:"type"`
	LastEvent uint64        `json:"lastEvent"`
	Event     machine.Event `json:"event"`
	Machine   Machine       `json:"machine"`
	ID        machine.ID    `json:"id"`
	Discovery Discovery     `json:"discovery"`
	Expected  []Expected    `json:"expected"`
	Lines
}

// dial opens a stream.
func (r *rig) dial(path string, headers ...header) (*websocket.Conn, *http.Response, error) {
	h := http.Header{}
	for _, list := range headers {
		for k, v := range list {
			h.Set(k, v)
		}
	}
	d := websocket.Dialer{TLSClientConfig: r.tls(), HandshakeTimeout: 30 * time.Second}
	return d.DialContext(r.t.Context(), strings.Replace(r.http.URL, "https", "wss", 1)+path, h)
}

func (r *rig) open(path string, headers ...header) *websocket.Conn {
	r.t.Helper()
	conn, _, err := r.dial(path, headers...)
	if err != nil {
		r.t.Fatalf("%s: %v", path, err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(60 * time.Second)); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (r *rig) next(conn *websocket.Conn) message {
	r.t.Helper()
	var m message
	if err := conn.ReadJSON(&m); err != nil {
		r.t.Fatal(err)
	}
	return m
}

// begin reads what every stream of events and machines begins with.
func (r *rig) begin(conn *websocket.Conn) (hello message) {
	r.t.Helper()
	hello = r.next(conn)
	if m := r.next(conn); hello.Type != "hello" || m.Type != "discovery" || !m.Discovery.Open {
		r.t.Fatalf("a stream begins with %+v and %+v", hello, m)
	}
	if m := r.next(conn); m.Type != "expected" {
		r.t.Fatalf("after the discovery window: %+v", m)
	}
	return hello
}

// until reads up to the first message for which is holds.
func (r *rig) until(conn *websocket.Conn, is func(message) bool) message {
	r.t.Helper()
	for {
		if m := r.next(conn); is(m) {
			return m
		}
	}
}

func TestStreamsNeedATokenAndThisOrigin(t *testing.T) {
	r := newRig(t)
	r.Waiting(1)
	for _, path := range []string{"/api/stream", "/api/machines/m-00000001/output/stream"} {
		for name, c := range map[string]struct {
			h      header
			status int
		}{
			"no token":       {header{}, 401},
			"wrong token":    {bearer("x"), 401},
			"another origin": {header{"Authorization": "Bearer " + siteToken, "Origin": "https://evil.example"}, 403},
		} {
			conn, resp, err := r.dial(path, c.h)
			if err == nil {
				conn.Close()
				t.Errorf("%s with %s: connected", path, name)
			} else if resp == nil || resp.StatusCode != c.status {
				t.Errorf("%s with %s: %v, %v, want status %d", path, name, resp, err, c.status)
			}
		}
		r.open(path, bearer(siteToken), header{"Origin": r.http.URL})
	}
	if _, resp, err := r.dial("/api/stream?after=x", bearer(siteToken)); err == nil || resp.StatusCode != 422 {
		t.Errorf("after=x: %v", err)
	}
	if _, resp, err := r.dial("/api/machines/none/output/stream", bearer(siteToken)); err == nil || resp.StatusCode != 404 {
		t.Errorf("unknown machine: %v", err)
	}
}

// TestStreamResumes cuts a stream again and again while events are made, and
// counts: none may be missing, none may come twice.
func TestStreamResumes(t *testing.T) {
	r := newRig(t)
	const writers, each = 4, 150
	begin := r.View().LastEvent()
	failed := make(chan error, writers)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				_, err := r.Propose(ctx, "test", state.Note{What: "test", Severity: machine.Info, Text: fmt.Sprintf("%d of writer %d", i, w)})
				cancel()
				if err != nil {
					failed <- err
					return
				}
			}
		})
	}
	after, connections := begin, 0
	for after < begin+writers*each {
		conn := r.open(fmt.Sprintf("/api/stream?after=%d", after), bearer(siteToken))
		connections++
		if m := r.begin(conn); m.LastEvent < after {
			t.Fatalf("the first message is %+v after %d", m, after)
		}
		// A different number each time, so that the cut falls anywhere.
		for range 7 + connections%13 {
			if after == begin+writers*each {
				break
			}
			m := r.next(conn)
			if m.Type != "event" || m.Event.Seq != after+1 {
				t.Fatalf("connection %d: %s %d follows %d", connections, m.Type, m.Event.Seq, after)
			}
			after = m.Event.Seq
		}
		conn.Close()
	}
	wg.Wait()
	select {
	case err := <-failed:
		t.Fatal(err)
	default:
	}
	if connections < 10 {
		t.Errorf("only %d connections: nothing was resumed", connections)
	}
	if last := r.View().LastEvent(); last != after {
		t.Errorf("the state has %d events, %d came", last, after)
	}
}

func TestStreamOfAnotherCluster(t *testing.T) {
	r := newRig(t)
	conn := r.open("/api/stream?after=1000000", bearer(siteToken))
	hello := r.begin(conn)
	if hello.LastEvent >= 1000000 {
		t.Fatalf("%+v", hello)
	}
	r.Must(state.Note{What: "test", Severity: machine.Info, Text: "new"})
	if m := r.next(conn); m.Type != "event" || m.Event.Seq != hello.LastEvent+1 {
		t.Errorf("%+v, want event %d", m, hello.LastEvent+1)
	}
}

func TestStreamOfMachines(t *testing.T) {
	r := newRig(t)
	r.Image()
	one := r.Waiting(1)
	conn := r.open(fmt.Sprintf("/api/stream?after=%d", r.View().LastEvent()), bearer(siteToken))
	r.begin(conn)
	if m := r.next(conn); m.Type != "machine" || m.Machine.ID != one || !m.Machine.Actions[0].Allowed {
		t.Fatalf("after hello: %+v", m)
	}
	site, _ := r.View().Site()
	site.Machines = []machine.ListedMachine{{MAC: statetest.MAC(2)}}
	r.Must(state.SiteApply{Site: site})
	if m := r.until(conn, func(m message) bool { return m.Type == "expected" }); len(m.Expected) != 1 || m.Expected[0].MAC != statetest.MAC(2) {
		t.Errorf("listed, and not seen: %+v", m.Expected)
	}
	two := r.Waiting(2)
	if m := r.until(conn, func(m message) bool { return m.Type == "expected" }); len(m.Expected) != 0 {
		t.Errorf("seen: %+v", m.Expected)
	}
	// The first machine did not change: it is not sent again.
	if m := r.until(conn, func(m message) bool { return m.Type == "machine" }); m.Machine.ID != two {
		t.Errorf("%s changed, %s was sent", two, m.Machine.ID)
	}
	r.want(200, "POST", "/api/machines/"+string(one)+"/approve", "", bearer(siteToken))
	m := r.until(conn, func(m message) bool { return m.Type == "machine" })
	if m.Machine.ID != one || m.Machine.Install == nil || m.Machine.Phase != machine.PhaseApproved {
		t.Errorf("after the approval: %+v", m.Machine)
	}
	r.want(204, "POST", "/api/machines/"+string(two)+"/forget", "", bearer(siteToken))
	if m := r.until(conn, func(m message) bool { return m.Type == "forgotten" }); m.ID != two {
		t.Errorf("%s was forgotten, %s is told", two, m.ID)
	}
}

func TestOutputStream(t *testing.T) {
	r := newRig(t)
	id := r.Waiting(1)
	chunk := func(first uint64) {
		r.Must(state.OutputStore{Chunk: machine.Chunk{
			Machine: id, Stream: "s-00000001", First: first, Last: first + 9, Digest: fmt.Sprintf("sha256:%064x", first), Size: 10,
		}})
	}
	chunk(1)
	chunk(11)
	path := "/api/machines/" + string(id) + "/output/stream"
	conn := r.open(path, bearer(siteToken))
	for seq := uint64(1); seq <= 2; seq++ {
		if m := r.next(conn); m.Type != "lines" || m.Seq != seq || m.First != 10*seq-9 || len(m.Lines.Lines) != 1 {
			t.Errorf("chunk %d: %+v", seq, m)
		}
	}
	conn.Close()
	chunk(21)
	conn = r.open(path+"?after=2", bearer(siteToken))
	if m := r.next(conn); m.Seq != 3 {
		t.Errorf("after 2 comes %d", m.Seq)
	}
	chunk(31)
	if m := r.next(conn); m.Seq != 4 {
		t.Errorf("after 3 comes %d", m.Seq)
	}
	r.want(204, "POST", "/api/machines/"+string(id)+"/forget", "", bearer(siteToken))
	_, _, err := conn.ReadMessage()
	if !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
		t.Errorf("the machine was forgotten: %v", err)
	}
}

// TestLogoutEndsStreams is there because a stream outlives the request that
// opened it.
func TestLogoutEndsStreams(t *testing.T) {
	r := newRig(t)
	a := r.want(200, "POST", "/api/setup", `{"code":"ABCD-EFGH-JKMN-PQRS","name":"bob","password":"correct horse"}`)
	auth := bearer(decode[Login](t, a.body).Token)
	conn := r.open("/api/stream", auth)
	r.next(conn)
	r.want(204, "POST", "/api/logout", "", auth)
	for {
		_, _, err := conn.ReadMessage()
		if err == nil {
			continue
		}
		var end *websocket.CloseError
		if !errors.As(err, &end) || end.Code != websocket.ClosePolicyViolation || !strings.Contains(end.Text, "log in") {
			t.Errorf("ended by %v", err)
		}
		return
	}
}

// TestSlowReaderIsCut: one that does not read is cut by the write deadline,
// holds up nobody else meanwhile, and gets the rest when it comes back.
func TestSlowReaderIsCut(t *testing.T) {
	r := newRig(t)
	r.server.timing.write = 100 * time.Millisecond
	r.ended = make(chan string, 1000)
	begin := r.View().LastEvent()
	slow, _, err := r.dial(fmt.Sprintf("/api/stream?after=%d", begin), bearer(siteToken))
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	// More than any socket's buffers hold.
	const events, bytes = 4000, 4 << 10
	text := strings.Repeat("x", 900)
	data := map[string]string{}
	for i := range bytes/len(text) + 1 {
		data[fmt.Sprint(i)] = text
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range events / 8 {
				r.Must(state.Note{What: "test", Severity: machine.Info, Text: text, Data: data})
			}
		})
	}
	wg.Wait()
	select {
	case <-r.ended: // its stream, while it has read nothing
	case <-t.Context().Done():
		t.Fatal("the slow reader is never cut")
	}
	after := begin
	if err := slow.SetReadDeadline(time.Now().Add(60 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for {
		var m message
		if err = slow.ReadJSON(&m); err != nil {
			break
		}
		if m.Type == "event" {
			if m.Event.Seq != after+1 {
				t.Fatalf("%d follows %d", m.Event.Seq, after)
			}
			after = m.Event.Seq
		}
	}
	if after >= begin+events {
		t.Fatal("it got everything: it was not slow enough to prove anything")
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		t.Fatalf("it was not cut: %v", err)
	}
	// With so short a deadline it may be cut again on a busy host.
	for tries := 0; after < begin+events; tries++ {
		if tries == 100 {
			t.Fatalf("after %d connections it has %d of %d events", tries, after-begin, events)
		}
		again := r.open(fmt.Sprintf("/api/stream?after=%d", after), bearer(siteToken))
		for m := (message{}); after < begin+events && again.ReadJSON(&m) == nil; m = (message{}) {
			if m.Type == "event" {
				if m.Event.Seq != after+1 {
					t.Fatalf("after coming back: %d follows %d", m.Event.Seq, after)
				}
				after = m.Event.Seq
			}
		}
		again.Close()
	}
}

func TestStreamsAreLimited(t *testing.T) {
	r := newRig(t)
	r.server.streams = make(chan struct{}, 1)
	first := r.open("/api/stream", bearer(siteToken))
	r.next(first)
	_, resp, err := r.dial("/api/stream", bearer(siteToken))
	if err == nil || resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a second of one: %v", err)
	}
}
