package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rackseed/rackseed/services/wire"
)

// start runs f until the test ends, which fails if f does.
func start(t *testing.T, f func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestOutputGoesOnWhereAnEarlierAgentEnded(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.offset["node-x"] = 7
	// The first answer is lost, later one request and one refusal.
	s.refuse[wire.PathOutput] = []int{http.StatusServiceUnavailable}
	o := newOutput(newClient(s.URL, testSeed), "node-x", quiet())
	var want []string
	say := func(l string) { want = append(want, l); o.Print(l) }
	for i := range 2 * sendLines {
		say(fmt.Sprint("line ", i))
	}
	start(t, o.Run)
	s.until("the first lines", func() bool { return len(s.lines["node-x"]) == len(want) })
	s.mu.Lock()
	s.refuse[wire.PathOutput] = []int{http.StatusConflict}
	s.mu.Unlock()
	say("after a refusal")
	s.until("the last line", func() bool { return slices.Equal(s.lines["node-x"], want) })
}

func TestOutputIsBounded(t *testing.T) {
	t.Parallel()
	s := newService(t)
	o := newOutput(newClient(s.URL, testSeed), "node-x", quiet())
	for i := range maxLines + 10 {
		o.Print(fmt.Sprint("line ", i))
	}
	start(t, o.Run)
	s.until("all that was kept", func() bool { return len(s.lines["node-x"]) == maxLines })
	o.Print("later")
	s.until("the line after the gap", func() bool { return len(s.lines["node-x"]) == maxLines+2 })
	last := s.lines["node-x"][maxLines:]
	if !strings.Contains(last[0], "10 lines were not kept") || last[1] != "later" {
		t.Errorf("after the gap: %q", last)
	}
}

func TestReportsAreNumberedOnAfterARestart(t *testing.T) {
	t.Parallel()
	s := newService(t)
	file := filepath.Join(t.TempDir(), "run/agent.json")
	report := func(boot string, events ...wire.NodeEvent) (before wire.NodeEvent) {
		t.Helper()
		r, err := newReports(newClient(s.URL, testSeed), boot, "a", file, quiet())
		if err != nil {
			t.Fatal(err)
		}
		before = r.Last()
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		for _, e := range events {
			<-r.Send(e, "text of "+string(e))
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		return before
	}
	s.refuse[wire.PathNodeReport] = []int{http.StatusServiceUnavailable, http.StatusUnauthorized}
	if last := report("boot-1", wire.NodeBooted, wire.NodeJoining); last != "" {
		t.Errorf("a first boot remembers %q", last)
	}
	if last := report("boot-1", wire.NodeJoined); last != wire.NodeJoining {
		t.Errorf("a restarted agent remembers %q", last)
	}
	// Refused for good: it must not hold up the next.
	s.refuse[wire.PathNodeReport] = []int{http.StatusBadRequest}
	report("boot-2", wire.NodeBooted, wire.NodeReady)
	want := []wire.NodeReport{
		{BootID: "boot-1", Number: 1, Event: wire.NodeBooted, Text: "text of booted", Slot: "a"},
		{BootID: "boot-1", Number: 2, Event: wire.NodeJoining, Text: "text of joining", Slot: "a"},
		{BootID: "boot-1", Number: 3, Event: wire.NodeJoined, Text: "text of joined", Slot: "a"},
		{BootID: "boot-2", Number: 2, Event: wire.NodeReady, Text: "text of ready", Slot: "a"},
	}
	if !slices.Equal(s.events, want) {
		t.Errorf("got %+v", s.events)
	}
}

func TestReportsAreBounded(t *testing.T) {
	t.Parallel()
	r, err := newReports(nil, "boot", "a", filepath.Join(t.TempDir(), "agent.json"), quiet())
	if err != nil {
		t.Fatal(err)
	}
	first := r.Send(wire.NodeBooted, "")
	for range maxReports {
		r.Send(wire.NodeReady, "")
	}
	<-first // let go
	if len(r.queue) != maxReports {
		t.Errorf("%d reports wait", len(r.queue))
	}
	joined := r.Send(wire.NodeJoined, "")
	for range 2 * maxReports {
		r.Send(wire.NodeReady, "")
	}
	select {
	case <-joined:
		t.Error("that it joined is let go: nobody else could join")
	default:
	}
}

func TestARequestIsBounded(t *testing.T) {
	t.Parallel()
	o := newOutput(nil, "node-x", quiet())
	for range 200 {
		o.Print(strings.Repeat("<", maxLine))
	}
	body, err := json.Marshal(wire.Output{Stream: o.stream, First: 1, Lines: o.head()})
	if err != nil || len(body) > wire.MaxBody {
		t.Errorf("a request of %d bytes, error %v", len(body), err)
	}
	o.drop(len(o.head()))
	if got := len(o.head()); got == 0 {
		t.Error("nothing is left to send")
	}
}
