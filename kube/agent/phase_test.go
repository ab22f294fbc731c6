package agent

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestPhase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p phase
		var told []string
		begun := time.Now()
		stop := p.tell(t.Context(), func(text string) { told = append(told, time.Since(begun).String()+" "+text) })
		for _, said := range []struct {
			after time.Duration
			line  string
		}{
			{0, "[init] Using Kubernetes version: v1.37.2"},
			{2 * time.Second, "[certs] Generating keys"},
			{2 * time.Second, "\t[WARNING Hostname]: hostname could not be reached"},
			{2 * time.Second, "[] nothing"},
			{30 * time.Second, "[wait-control-plane] Waiting for the kubelet"},
			{time.Minute, "[addons] Applied"},
		} {
			time.Sleep(said.after)
			p.read(said.line)
		}
		time.Sleep(phasePause)
		stop()
		p.read("[late] not told")
		time.Sleep(phasePause)
		want := []string{"15s certs: Generating keys", "45s wait-control-plane: Waiting for the kubelet", "1m45s addons: Applied"}
		if !slices.Equal(told, want) {
			t.Errorf("told %q, want %q", told, want)
		}
	})
}

// TestProgressIsBounded: how far kubeadm is never pushes a report out.
func TestProgressIsBounded(t *testing.T) {
	t.Parallel()
	s := newService(t)
	r, err := newReports(newClient(s.URL, testSeed), "boot-1", "a", t.TempDir()+"/progress", quiet())
	if err != nil {
		t.Fatal(err)
	}
	r.Progress("joining", "first")
	r.Progress("joining", "second")
	r.Send("failed", "because")
	r.Progress("joining", "late")
	start(t, func(ctx context.Context) error { return r.Run(ctx) })
	s.until("the reports", func() bool { return len(s.events) == 2 })
	if s.events[0].Text != "second" || s.events[1].Text != "because" {
		t.Errorf("%+v", s.events)
	}
}

func TestComplaint(t *testing.T) {
	const hint = "To see the stack trace of this error execute with --v=5 or higher"
	for want, lines := range map[string][]string{
		"[ERROR CRI]: no answer":            {"[preflight] Some fatal errors occurred:", "\t[ERROR CRI]: no answer", "\t[ERROR Swap]: on", "error: error execution phase preflight: checks failed", hint},
		"error execution phase certs: torn": {"[certs] Generating", "error: error execution phase certs: torn", hint},
		"killed":                            {"[certs] Generating", "killed", ""},
		"":                                  nil,
	} {
		var c complaint
		for _, l := range lines {
			c.read(l)
		}
		if c.String() != want {
			t.Errorf("%q, want %q", c, want)
		}
	}
}
