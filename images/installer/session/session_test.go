package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rackseed/rackseed/images/installer/client"
	"github.com/rackseed/rackseed/images/installer/journal"
	"github.com/rackseed/rackseed/images/installer/report"
	"github.com/rackseed/rackseed/services/wire"
)

// service is a small boot service: it hands out scripted answers to orders, the
// last one for ever, and keeps what it is told.
type service struct {
	mu       sync.Mutex
	t        *testing.T
	orders   []any // wire.Order, or an HTTP status
	sessions int
	reports  []string
	lines    map[string][]string
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _, err := wire.Verify(r)
	if err != nil {
		s.t.Errorf("%s: %v", r.URL, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	reply := func(v any) {
		if err := json.NewEncoder(w).Encode(v); err != nil {
			s.t.Error(err)
		}
	}
	switch r.URL.Path {
	case wire.PathSession:
		s.sessions++
		if s.sessions == 1 { // not known yet: the discovery window is closed
			w.WriteHeader(http.StatusForbidden)
			reply(wire.ErrorReply{Error: "the discovery window is closed"})
			return
		}
		reply(wire.SessionReply{Session: fmt.Sprint("s-", s.sessions), Machine: "m-1"})
	case wire.PathOrder:
		next := s.orders[0]
		if len(s.orders) > 1 {
			s.orders = s.orders[1:]
		}
		if status, ok := next.(int); ok {
			w.WriteHeader(status)
			return
		}
		reply(next)
	case wire.PathReport:
		var report wire.Report
		if err := json.Unmarshal(body, &report); err != nil {
			s.t.Error(err)
		}
		s.reports = append(s.reports, fmt.Sprintf("%d %s/%d %s %s", report.Number, report.Intent, report.Epoch, report.Step, report.Status))
		if report.Step == wire.StepPartition {
			w.WriteHeader(http.StatusConflict)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	case wire.PathOutput:
		var o wire.Output
		if err := json.Unmarshal(body, &o); err != nil {
			s.t.Error(err)
		}
		if o.First != uint64(len(s.lines[o.Stream]))+1 {
			s.t.Errorf("stream %s: line %d was sent, %d is next", o.Stream, o.First, len(s.lines[o.Stream])+1)
		}
		s.lines[o.Stream] = append(s.lines[o.Stream], o.Lines...)
		reply(wire.OutputReply{Next: uint64(len(s.lines[o.Stream])) + 1})
	}
}

func start(t *testing.T, s *service, install func(context.Context, wire.Order, func(wire.Report)) error) *Session {
	t.Helper()
	s.t, s.lines = t, map[string][]string{}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	sign, seal, err := wire.NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	j := journal.New(journal.Limit)
	log := slog.New(slog.NewTextHandler(writer(j.Append), nil))
	reports := report.New()
	return &Session{
		Client:  client.New(server.URL, sign, log),
		Request: wire.SessionRequest{SignKey: sign[32:], SealKey: seal.PublicKey().Bytes()},
		Journal: j, Reports: reports, Log: log, pace: time.Millisecond,
		Install: func(ctx context.Context, o wire.Order) error { return install(ctx, o, reports.Add) },
	}
}

type writer func(string)

func (w writer) Write(p []byte) (int, error) { w(string(p)); return len(p), nil }

// An install that fails, is tried again under a higher epoch, and ends well;
// before it the service forgets the session once.
func TestRun(t *testing.T) {
	order := func(epoch uint64) wire.Order {
		return wire.Order{Kind: wire.OrderInstall, Intent: "i-1", Epoch: epoch}
	}
	s := &service{orders: []any{wire.Order{Kind: wire.OrderWait, Reason: "not approved yet"}, http.StatusUnauthorized, order(1), order(1), order(2)}}
	var ran []uint64
	session := start(t, s, func(_ context.Context, o wire.Order, report func(wire.Report)) error {
		ran = append(ran, o.Epoch)
		if o.Epoch == 1 {
			report(wire.Report{Intent: o.Intent, Epoch: o.Epoch, Step: wire.StepDisk, Status: wire.StepFailed})
			return errors.New("no disk")
		}
		return nil
	})
	if err := session.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(ran) != "[1 2]" {
		t.Errorf("epochs %v were carried out; the same order must not be twice", ran)
	}
	if got := strings.Join(s.reports, ", "); got != "1 i-1/1 disk failed, 2 i-1/2 reboot done" {
		t.Errorf("reports: %s", got)
	}
	if s.sessions != 3 {
		t.Errorf("%d requests for a session", s.sessions)
	}
	log := strings.Join(append(s.lines["s-2"], s.lines["s-3"]...), "\n")
	for _, want := range []string{"the discovery window is closed", "waiting: not approved yet", "install ordered", "epoch=2"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %q:\n%s", want, log)
		}
	}
}

// A report that is refused on the way does not keep an installed machine in the
// installer: the boot service knows that it is done.
func TestRefusedReportDoesNotStopTheEnd(t *testing.T) {
	s := &service{orders: []any{wire.Order{Kind: wire.OrderInstall, Intent: "i-1", Epoch: 1}}}
	session := start(t, s, func(_ context.Context, o wire.Order, report func(wire.Report)) error {
		report(wire.Report{Intent: o.Intent, Epoch: o.Epoch, Step: wire.StepPartition, Status: wire.StepStarted})
		return nil
	})
	if err := session.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(s.reports, ", "); got != "1 i-1/1 partition started, 2 i-1/1 reboot done" {
		t.Errorf("reports: %s", got)
	}
}

func TestRevoked(t *testing.T) {
	s := &service{orders: []any{wire.Order{Kind: wire.OrderRevoked, Reason: "a newer session exists"}}}
	session := start(t, s, func(context.Context, wire.Order, func(wire.Report)) error {
		t.Error("an install ran")
		return nil
	})
	if err := session.Run(t.Context()); !errors.Is(err, ErrRevoked) || !strings.Contains(err.Error(), "a newer session exists") {
		t.Errorf("%v", err)
	}
}

// A machine that waits says until when, and goes when that has come.
func TestLeave(t *testing.T) {
	until := time.Date(2026, 11, 26, 12, 30, 0, 0, time.UTC)
	waiting := wire.Order{Kind: wire.OrderWait, Reason: "waiting for approval in the console", Until: until}
	s := &service{orders: []any{waiting, waiting, wire.Order{Kind: wire.OrderLeave, Reason: "nobody approved it within 30m"}}}
	session := start(t, s, func(context.Context, wire.Order, func(wire.Report)) error {
		t.Error("an install ran")
		return nil
	})
	if err := session.Run(t.Context()); !errors.Is(err, ErrLeft) || !strings.Contains(err.Error(), "nobody approved it within 30m") {
		t.Errorf("%v", err)
	}
	log := strings.Join(s.lines["s-2"], "\n")
	const told = "waiting for approval in the console; otherwise this machine goes back to its own disk at 2026-11-26 12:30:00 UTC"
	if strings.Count(log, told) != 1 || !strings.Contains(log, "restarts to its own disk") || !strings.Contains(log, "nobody approved it within 30m") {
		t.Errorf("the log:\n%s", log)
	}
}

// shell is a rescue shell.
type shell struct {
	told []string
	err  error
}

func (r *shell) Serve(keys []string) error {
	r.told = append(r.told, strings.Join(keys, "+"))
	return r.err
}
func (r *shell) Drain() { r.told = append(r.told, "drained") }

// The shell is told which keys log in, as often as they change, and ends before
// the session does. Nothing is installed.
func TestRescue(t *testing.T) {
	order := func(keys ...string) wire.Order {
		return wire.Order{Kind: wire.OrderRescue, Intent: "r-1", SSHKeys: keys}
	}
	s := &service{orders: []any{order("ann"), http.StatusServiceUnavailable, order("ann", "bob"), wire.Order{Kind: wire.OrderRevoked, Reason: "it restarted"}}}
	session := start(t, s, func(context.Context, wire.Order, func(wire.Report)) error {
		t.Error("an install ran")
		return nil
	})
	r := &shell{}
	session.Rescue = r
	if err := session.Run(t.Context()); !errors.Is(err, ErrRevoked) {
		t.Errorf("%v", err)
	}
	if got := strings.Join(r.told, ", "); got != "ann, ann+bob, drained" {
		t.Errorf("the shell was told: %s", got)
	}
}

func TestRescueThatDoesNotOpen(t *testing.T) {
	order := wire.Order{Kind: wire.OrderRescue, SSHKeys: []string{"ann"}}
	s := &service{orders: []any{order, order, wire.Order{Kind: wire.OrderRevoked}}}
	session := start(t, s, nil)
	session.Rescue = &shell{err: errors.New("address already in use")}
	if err := session.Run(t.Context()); !errors.Is(err, ErrRevoked) {
		t.Errorf("%v", err)
	}
	if log := strings.Join(s.lines["s-2"], "\n"); strings.Count(log, "address already in use") != 1 {
		t.Errorf("the log:\n%s", log)
	}
}

func TestDecide(t *testing.T) {
	install1 := wire.Order{Kind: wire.OrderInstall, Intent: "i-1", Epoch: 3}
	for _, c := range []struct {
		order wire.Order
		last  attempt
		want  action
	}{
		{wire.Order{Kind: wire.OrderWait}, attempt{}, wait},
		{wire.Order{Kind: wire.OrderRevoked}, attempt{}, stop},
		{wire.Order{Kind: "dance"}, attempt{}, wait},
		{wire.Order{Kind: wire.OrderLeave}, attempt{}, leave},
		{wire.Order{Kind: wire.OrderRescue}, attempt{"i-1", 3}, rescue},
		{wire.Order{Kind: wire.OrderInstall}, attempt{}, wait},
		{install1, attempt{}, install},
		{install1, attempt{"i-1", 3}, wait},
		{install1, attempt{"i-1", 2}, install},
		{install1, attempt{"i-1", 4}, wait},
		{install1, attempt{"i-0", 9}, install},
	} {
		if got := decide(c.order, c.last); got != c.want {
			t.Errorf("%+v after %+v: %d, want %d", c.order, c.last, got, c.want)
		}
	}
}

func TestSuperseded(t *testing.T) {
	running := wire.Order{Kind: wire.OrderInstall, Intent: "i-1", Epoch: 3}
	for _, c := range []struct {
		now  wire.Order
		want string
	}{
		{running, ""}, {wire.Order{Kind: wire.OrderWait}, ""},
		{wire.Order{Kind: wire.OrderRevoked, Reason: "r"}, "revoked by the boot service: r"},
		{wire.Order{Kind: wire.OrderInstall, Intent: "i-1", Epoch: 4}, "another order came: intent i-1, epoch 4"},
	} {
		err := superseded(running, c.now)
		if c.want == "" && err != nil || c.want != "" && (err == nil || err.Error() != c.want) {
			t.Errorf("%+v: %v, want %q", c.now, err, c.want)
		}
	}
}
