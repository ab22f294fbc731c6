package replica

import (
	"context"
	"fmt"
	"time"

	"github.com/rackseed/rackseed/services/api"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
)

// watchMedium tells how the medium of the data does: on the screen always, and
// as an event when it begins or ceases to be slow, or takes writes again.
func (r *replica) watchMedium(ctx context.Context, tell report) error {
	store := r.store.Load()
	var before state.Medium
	for {
		now, change := store.Medium()
		ok, text := mediumHealth(now)
		kind := api.HealthFault
		if now.Failed == nil && now.Slow {
			kind = api.HealthSlow
		}
		tell(ok, text, kind)
		if note, ok := mediumNote(before, now); ok {
			// It waits on what it tells of; what it cannot say now, the screen does.
			commit, cancel := context.WithTimeout(ctx, commitTimeout)
			_, err := store.Propose(commit, by, note)
			cancel()
			if err != nil && ctx.Err() == nil {
				r.Logger.Warn("replica: an event about the data's medium is not committed", "event", note.Text, "error", err)
			}
		}
		before = now
		select {
		case <-change:
		case <-ctx.Done():
			return nil
		}
	}
}

// mediumHealth says how the medium does.
func mediumHealth(m state.Medium) (ok bool, text string) {
	switch {
	case m.Failed != nil:
		return false, fmt.Sprintf("nothing new is served, what was committed stays: %v; free space, or replace the stick or disk. It goes on by itself when it can be written", m.Failed)
	case m.Slow:
		return false, fmt.Sprintf("the stick is slow: a commit takes %s, at the longest %s; machines are served, with delays; use a faster stick or disk",
			seconds(m.Median), seconds(m.Longest))
	}
	return true, "the data partition takes writes"
}

// mediumNote is the event of a change; not ok: there is none, or it cannot be
// committed.
func mediumNote(before, now state.Medium) (n state.Note, ok bool) {
	_, text := mediumHealth(now)
	switch {
	case now.Failed != nil:
		return state.Note{}, false
	case before.Failed != nil:
		return state.Note{What: "storage.writable", Severity: machine.Warning, Text: fmt.Sprintf("The data partition takes writes again; before: %v", before.Failed)}, true
	case now.Slow && !before.Slow:
		return state.Note{What: "storage.slow", Severity: machine.Warning, Text: "Storage: " + text}, true
	case before.Slow && !now.Slow:
		return state.Note{What: "storage.fast", Severity: machine.Info, Text: fmt.Sprintf("The stick is no longer slow: a commit takes %s", seconds(now.Median))}, true
	}
	return state.Note{}, false
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
