// Package silence notices machines that were given something to boot and were
// not heard of since, and says what is likely the cause: from a rack, a machine
// that hangs in its kernel looks like one that was never switched on. It also
// ends the wait of those whose installer is gone without having asked for that.
package silence

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
)

const (
	by = "silence"
	// Patience is how long a machine may take from its boot decision, or from
	// its kernel, until its installer reports. Firmware is done by then.
	Patience       = 3 * time.Minute
	look           = 15 * time.Second // between two looks
	proposeTimeout = 10 * time.Second
)

// Boot is what one machine was told to boot, as far as its silence depends on
// it; state.Boot with the time of its newest session (zero: it has none).
type Boot struct {
	state.Boot
	Session time.Time
	Refused bool // its installer came since, and was refused
}

// restarts says whether the machine was told to boot the installer after its
// newest session was opened: the next one is on its way, or the machine hangs, and
// that old session has no say in it any more.
func (b Boot) restarts() bool {
	return b.Kind != "" && b.Kind != machine.BootLocal && !b.Session.IsZero() && b.Decided.After(b.Session)
}

// Decide says what to tell of a machine that was silent since it was told what
// to boot; "" while there is nothing to tell.
func Decide(b Boot, now time.Time) string {
	heard := b.Session.After(b.Decided)
	if b.Kind == "" || b.Kind == machine.BootLocal || b.Silent || b.Refused || heard {
		return ""
	}
	since := b.Decided
	if b.Fetched.After(since) {
		since = b.Fetched
	}
	if now.Sub(since) < Patience {
		return ""
	}
	causes := strings.Join(Causes(b.Boot), "; ")
	if b.Fetched.IsZero() {
		return fmt.Sprintf("Told to boot the installer, then silence for %s: its kernel was never fetched. Likely causes: %s. Look at its screen", short(now.Sub(since)), causes)
	}
	return fmt.Sprintf("Kernel fetched, then silence for %s: the installer did not come up or has no network. Likely causes: %s. Look at its screen", short(now.Sub(since)), causes)
}

// Causes are likely reasons for the silence of a machine that was told to boot
// the installer, the likeliest first.
func Causes(b state.Boot) []string {
	if b.Fetched.IsZero() {
		return []string{
			"it was switched off",
			"its firmware stopped (Secure Boot is on and the site file says netboot.uefi: ipxe)",
			"HTTP, port 80, is blocked between it and the service address",
		}
	}
	return []string{
		"a missing driver or firmware for its network card",
		"the cable is in another port than the one it netbooted from",
		"the switch port takes long to forward after a restart of the link (spanning tree without portfast)",
		"too little memory (2 GiB are needed)",
	}
}

func short(d time.Duration) string {
	return fmt.Sprintf("%d min", int(d/time.Minute))
}

// Store is what the loop needs of the state.
type Store interface {
	Propose(ctx context.Context, by string, c state.Command) (state.Result, error)
	View() state.View
}

// Loop tells of silent machines.
type Loop struct {
	Store  Store
	Now    func() time.Time
	Logger *slog.Logger
}

// Run works until ctx ends, and then returns nil.
func (l *Loop) Run(ctx context.Context) error {
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			l.pass(ctx)
		}
	}
}

// pass tells of each machine that is silent now, and ends waits that are over.
// What could not be committed is by the next pass.
func (l *Loop) pass(ctx context.Context) {
	view, now := l.Store.View(), l.Now()
	site, _ := view.Site()
	for _, m := range view.Machines() {
		b := Boot{Boot: view.Boot(m.ID)}
		b.Refused = m.RefusedSince(b.Decided)
		if m.Session != nil {
			b.Session = m.Session.Opened
		}
		if text := Decide(b, now); text != "" && l.propose(ctx, m.ID, state.MachineSilent{Machine: m.ID, Decided: b.Decided, Text: text}) {
			l.Logger.Warn("silent machine", "machine", m.ID, "told", b.Kind, "text", text)
		}
		ends := m.WaitEnds(view.InstallIntent(m.ID), site.Discovery.WaitTime())
		if !ends.IsZero() && !now.Before(ends) && !b.restarts() {
			l.propose(ctx, m.ID, state.SessionLeave{Machine: m.ID, Session: m.Session.ID})
		}
	}
}

// propose says whether a command was committed. A refusal is none that anybody
// must know of: the machine was heard of, or approved, in this moment.
func (l *Loop) propose(ctx context.Context, id machine.ID, c state.Command) bool {
	ctx, cancel := context.WithTimeout(ctx, proposeTimeout)
	defer cancel()
	_, err := l.Store.Propose(ctx, by, c)
	var refused *state.Refusal
	if err != nil && !errors.As(err, &refused) {
		l.Logger.Warn("telling of a machine", "machine", id, "command", c.Kind(), "error", err)
	}
	return err == nil
}
