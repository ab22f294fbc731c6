package approve

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
)

const (
	by             = "list" // who approves, in events
	proposeTimeout = 10 * time.Second
	settle         = 100 * time.Millisecond // a burst of changes is looked at once
	retryPause     = 2 * time.Second        // after a commit that failed
)

// Store is what the loop needs of the state.
type Store interface {
	Propose(ctx context.Context, by string, c state.Command) (state.Result, error)
	View() state.View
}

// Loop approves the machines that the site file lists with approve, as soon as
// they wait for it.
type Loop struct {
	Store  Store
	Logger *slog.Logger

	// told holds, for each machine that cannot be approved, the reason that
	// was told, so that it is told once. It holds known machines only.
	told map[machine.ID]string
}

// Run works until ctx ends, and then returns nil.
func (l *Loop) Run(ctx context.Context) error {
	l.told = map[machine.ID]string{}
	for {
		view := l.Store.View()
		changed := view.Changed("machines", "intents", "site", "images")
		var retry <-chan time.Time
		if !l.pass(ctx, view) {
			retry = time.After(retryPause)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-retry:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(settle):
		}
	}
}

// pass approves each machine that may be. It says whether all of it committed:
// if not, the same state must be looked at again.
func (l *Loop) pass(ctx context.Context, view state.View) bool {
	whole := true
	told := map[machine.ID]string{}
	for _, m := range view.Machines() {
		if seen := ByList(view, m); !seen.Approve && !seen.Person {
			continue
		}
		// A newer view, which has what was approved a moment ago.
		now := l.Store.View()
		m, ok := now.Machine(m.ID)
		if !ok {
			continue
		}
		verdict := ByList(now, m)
		if !verdict.Approve && !verdict.Person {
			continue
		}
		var command state.MachineApprove
		err := errors.New(verdict.Reason)
		if verdict.Approve {
			command, err = Decide(now, m, Wish{}, NewFresh())
		}
		if err != nil {
			told[m.ID] = err.Error()
			if l.told[m.ID] != err.Error() && !l.tell(ctx, m.ID, err) {
				delete(told, m.ID)
				whole = false
			}
			continue
		}
		if err := l.propose(ctx, command); err != nil {
			l.Logger.Warn("approval by the site file's list", "machine", m.ID, "error", err)
			// A refusal is answered by the change that caused it.
			var refused *state.Refusal
			whole = whole && errors.As(err, &refused)
		}
	}
	l.told = told
	return whole
}

// tell puts into the machine's timeline why the list does not approve it.
func (l *Loop) tell(ctx context.Context, id machine.ID, reason error) bool {
	l.Logger.Warn("listed, but it cannot be approved", "machine", id, "error", reason)
	err := l.propose(ctx, state.Note{
		Machine: id, What: "approve.impossible", Severity: machine.Warning,
		Text: "The site file approves it, but: " + reason.Error(),
	})
	if err != nil {
		l.Logger.Warn("telling why a machine cannot be approved", "machine", id, "error", err)
	}
	return err == nil
}

func (l *Loop) propose(ctx context.Context, c state.Command) error {
	ctx, cancel := context.WithTimeout(ctx, proposeTimeout)
	defer cancel()
	_, err := l.Store.Propose(ctx, by, c)
	return err
}
