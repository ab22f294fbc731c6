package agent

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/wire"
)

var testSeed = make([]byte, ed25519.SeedSize)

// service is the boot service as the agent sees it: it checks signatures,
// keeps reports and output by their numbers, and fails when told.
type service struct {
	*httptest.Server
	t *testing.T

	impostor atomic.Bool // it has not the node's key

	mu      sync.Mutex
	cond    *sync.Cond
	order   wire.NodeOrder
	replica wire.ReplicaOrder
	access  wire.NodeAccess
	events  []wire.NodeReport
	lines   map[string][]string // by stream
	offset  map[string]uint64   // lines of the stream that an earlier agent sent
	refuse  map[string][]int    // statuses to answer with, by path, first first
	ordered int
	secret  wire.JoinSecret // what nodes join by
	asked   int             // how often it was asked for
}

func newService(t *testing.T) *service {
	s := &service{t: t, order: wire.NodeOrder{Kind: wire.NodeWait, Reason: "nothing to do"},
		lines: map[string][]string{}, offset: map[string]uint64{}, refuse: map[string][]int{}}
	s.cond = sync.NewCond(&s.mu)
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

// ServeHTTP answers as the boot service does: each reply with its code.
func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a := httptest.NewRecorder()
	s.serve(a, r)
	code, err := wire.ReplyCode(testSeed, r, a.Code, a.Body.Bytes())
	if err != nil {
		s.t.Error(err)
	}
	if !s.impostor.Load() {
		w.Header().Set(wire.HeaderReply, code)
	}
	w.WriteHeader(a.Code)
	_, _ = w.Write(a.Body.Bytes())
}

func (s *service) serve(w http.ResponseWriter, r *http.Request) {
	body, key, err := wire.Verify(r)
	if err != nil || !key.Equal(ed25519.NewKeyFromSeed(testSeed).Public()) {
		http.Error(w, "unsigned", http.StatusUnauthorized)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.cond.Broadcast()
	if statuses := s.refuse[r.URL.Path]; len(statuses) > 0 {
		s.refuse[r.URL.Path] = statuses[1:]
		w.WriteHeader(statuses[0])
		if err := json.NewEncoder(w).Encode(wire.ErrorReply{Error: "refused by the test"}); err != nil {
			s.t.Error(err)
		}
		return
	}
	var reply any
	switch r.Method + " " + r.URL.Path {
	case "POST " + wire.PathNodeReport:
		var report wire.NodeReport
		if err := json.Unmarshal(body, &report); err != nil {
			s.t.Error(err)
		}
		s.events = append(s.events, report)
		w.WriteHeader(http.StatusNoContent)
		return
	case "GET " + wire.PathNodeOrder:
		s.ordered++
		reply = s.order
	case "GET " + wire.PathNodeAccess:
		reply = s.access
	case "GET " + wire.PathNodeReplica:
		reply = s.replica
	case "POST " + wire.PathNodeJoin:
		var q wire.JoinRequest
		if err := json.Unmarshal(body, &q); err != nil {
			s.t.Error(err)
		}
		s.asked++
		s.secret.Epoch = uint64(s.asked)
		b, err := json.Marshal(s.secret)
		if err != nil {
			s.t.Error(err)
		}
		if reply, err = wire.Seal(q.SealKey, wire.JoinPurpose("m-1"), b); err != nil {
			s.t.Error(err)
		}
	case "POST " + wire.PathOutput:
		var o wire.Output
		if err := json.Unmarshal(body, &o); err != nil {
			s.t.Error(err)
		}
		next := s.offset[o.Stream] + uint64(len(s.lines[o.Stream])) + 1
		if o.First > next {
			s.t.Errorf("lines from %d on were sent, %d is next", o.First, next)
		}
		for i, l := range o.Lines {
			if o.First+uint64(i) == next {
				s.lines[o.Stream] = append(s.lines[o.Stream], l)
				next++
			}
		}
		reply = wire.OutputReply{Next: next}
	default:
		http.NotFound(w, r)
		return
	}
	if err := json.NewEncoder(w).Encode(reply); err != nil {
		s.t.Error(err)
	}
}

// until waits until found says so of what the service has, or the test's time
// is nearly up.
func (s *service) until(what string, found func() bool) {
	s.t.Helper()
	ctx := s.t.Context()
	if deadline, found := s.t.Deadline(); found {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline.Add(-5*time.Second))
		defer cancel()
	}
	stop := context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.cond.Broadcast()
	})
	defer stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for !found() {
		if ctx.Err() != nil {
			s.t.Fatalf("waiting for %s: have events %+v, lines %q", what, s.events, s.lines)
		}
		s.cond.Wait()
	}
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }
