package silence

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
)

func TestDecide(t *testing.T) {
	at := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	told := func(kind machine.BootKind) Boot { return Boot{Boot: state.Boot{Kind: kind, Decided: at}} }
	with := func(b Boot, f func(*Boot)) Boot { f(&b); return b }
	fetched := func(b *Boot) { b.Fetched = at.Add(time.Minute) }
	for name, c := range map[string]struct {
		boot  Boot
		after time.Duration
		want  string
	}{
		"told nothing":              {Boot{}, time.Hour, ""},
		"its own disk":              {told(machine.BootLocal), time.Hour, ""},
		"in time":                   {told(machine.BootDiscovery), Patience - 1, ""},
		"no kernel":                 {told(machine.BootDiscovery), Patience, "its kernel was never fetched"},
		"no kernel, install":        {told(machine.BootInstall), Patience, "Secure Boot"},
		"no kernel, rescue":         {told(machine.BootRescue), 5 * time.Minute, "silence for 5 min"},
		"kernel, in time":           {with(told(machine.BootDiscovery), fetched), Patience, ""},
		"kernel":                    {with(told(machine.BootDiscovery), fetched), Patience + time.Minute, "Kernel fetched, then silence for 3 min"},
		"kernel, causes":            {with(told(machine.BootDiscovery), fetched), Patience + time.Minute, "driver"},
		"heard of":                  {with(told(machine.BootDiscovery), func(b *Boot) { b.Session = at.Add(1) }), time.Hour, ""},
		"heard of before the boot":  {with(told(machine.BootDiscovery), func(b *Boot) { b.Session = at.Add(-1) }), time.Hour, "never fetched"},
		"its installer was refused": {with(told(machine.BootDiscovery), func(b *Boot) { b.Refused = true }), time.Hour, ""},
		"told already":              {with(told(machine.BootDiscovery), func(b *Boot) { b.Silent = true }), time.Hour, ""},
		"the clock went back":       {told(machine.BootDiscovery), -time.Hour, ""},
	} {
		got := Decide(c.boot, at.Add(c.after))
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// TestLoop: a silent machine is told of once, in its timeline and as its reason.
func TestLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, ctx, cancel := begin(t)
		const id, mac = "m-00000001", "52:54:00:00:00:01"
		must(t, store, state.DiscoveryWindow{Until: time.Now().Add(time.Hour)})
		must(t, store, state.MachineSee{ID: id, MAC: mac, Via: "dhcp.discover", Text: "DHCP discover"})
		must(t, store, state.BootDecide{Machine: id, Decision: machine.BootDecision{Kind: machine.BootDiscovery, Reason: "never seen"}})
		must(t, store, state.MachineSee{MAC: mac, Via: state.ViaKernel, Text: "Fetched the installer's kernel"})
		ended := make(chan error, 1)
		go func() { ended <- (&Loop{Store: store, Now: time.Now, Logger: slog.New(slog.DiscardHandler)}).Run(ctx) }()

		silences := func() (n int) {
			for _, e := range store.View().Events(0, id, 0) {
				if e.Kind == "boot.silent" {
					n++
				}
			}
			return n
		}
		time.Sleep(Patience - look)
		synctest.Wait()
		if n := silences(); n != 0 {
			t.Errorf("told %d times before its time", n)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := silences(); n != 1 {
			t.Errorf("told %d times", n)
		}
		if m, _ := store.View().Machine(id); !strings.Contains(m.Reason, "Kernel fetched, then silence") {
			t.Errorf("reason %q", m.Reason)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestLoopRefused: an installer that came, and was refused, is not silent.
func TestLoopRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, ctx, cancel := begin(t)
		const id, mac = "m-00000001", "52:54:00:00:00:01"
		must(t, store, state.DiscoveryWindow{Until: time.Now().Add(time.Hour)})
		must(t, store, state.MachineSee{ID: id, MAC: mac, Via: "dhcp.discover", Text: "DHCP discover"})
		must(t, store, state.BootDecide{Machine: id, Decision: machine.BootDecision{Kind: machine.BootDiscovery, Reason: "never seen"}})
		decided := store.View().Boot(id).Decided
		time.Sleep(time.Minute)
		must(t, store, state.SessionRefuse{MACs: []machine.MAC{mac}, Why: "its inventory is too large"})
		ended := make(chan error, 1)
		go func() { ended <- (&Loop{Store: store, Now: time.Now, Logger: slog.New(slog.DiscardHandler)}).Run(ctx) }()
		time.Sleep(time.Hour)
		synctest.Wait()
		var refused *state.Refusal
		if _, err := store.Propose(ctx, "test", state.MachineSilent{Machine: id, Decided: decided, Text: "silent"}); !errors.As(err, &refused) {
			t.Errorf("its silence was told: %v", err)
		}
		if m, _ := store.View().Machine(id); !strings.Contains(m.Reason, "was refused") {
			t.Errorf("reason %q", m.Reason)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestLoopEndsWaits: an installer that is gone cannot ask for the end of its wait.
func TestLoopEndsWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, ctx, end := begin(t)
		const id = "m-00000001"
		must(t, store, state.DiscoveryWindow{Until: time.Now().Add(time.Hour)})
		must(t, store, state.SessionOpen{NewID: id, Session: machine.Session{ID: "s-1", SignKey: make([]byte, 32), SealKey: make([]byte, 32), Opened: time.Now()},
			Inventory: machine.Inventory{NICs: []machine.NIC{{MAC: "52:54:00:00:00:01"}}}})
		phase := func() machine.Phase { m, _ := store.View().Machine(id); return m.Phase }
		ended := make(chan error, 1)
		go func() { ended <- (&Loop{Store: store, Now: time.Now, Logger: slog.New(slog.DiscardHandler)}).Run(ctx) }()
		time.Sleep(machine.DiscoveryWait - look)
		synctest.Wait()
		if p := phase(); p != machine.PhaseWaiting {
			t.Errorf("before its end: %s", p)
		}
		time.Sleep(2 * look)
		synctest.Wait()
		if p := phase(); p != machine.PhaseLocal {
			t.Errorf("after its end: %s", p)
		}
		end()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestLoopKeepsTheAlarm: a machine that waited restarts into the installer and
// hangs. The end of its old session's wait says nothing of that.
func TestLoopKeepsTheAlarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, ctx, end := begin(t)
		const id = "m-00000001"
		must(t, store, state.DiscoveryWindow{Until: time.Now().Add(10 * time.Hour)})
		must(t, store, state.SessionOpen{NewID: id, Session: machine.Session{ID: "s-1", SignKey: make([]byte, 32), SealKey: make([]byte, 32), Opened: time.Now()},
			Inventory: machine.Inventory{NICs: []machine.NIC{{MAC: "52:54:00:00:00:01"}}}})
		ended := make(chan error, 1)
		go func() { ended <- (&Loop{Store: store, Now: time.Now, Logger: slog.New(slog.DiscardHandler)}).Run(ctx) }()
		time.Sleep(time.Minute)
		must(t, store, state.BootDecide{Machine: id, Decision: machine.BootDecision{Kind: machine.BootDiscovery, Reason: "not installed yet"}})
		time.Sleep(2 * machine.DiscoveryWait)
		synctest.Wait()
		if m, _ := store.View().Machine(id); !strings.Contains(m.Reason, "never fetched") || !m.Session.Left.IsZero() {
			t.Errorf("%s, left %v: %s", m.Phase, m.Session.Left, m.Reason)
		}
		end()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
}

// begin opens a state that leads, with a context for the loop and its end.
func begin(t *testing.T) (*state.Store, context.Context, func()) {
	t.Helper()
	store, err := state.Open(state.Config{ID: "r-1", InMemory: true, Now: time.Now, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := store.WaitLeader(ctx); err != nil {
		t.Fatal(err)
	}
	return store, ctx, cancel
}

func must(t *testing.T, store *state.Store, c state.Command) {
	t.Helper()
	if _, err := store.Propose(t.Context(), "test", c); err != nil {
		t.Fatalf("%s: %v", c.Kind(), err)
	}
}
