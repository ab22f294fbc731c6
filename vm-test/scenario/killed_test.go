//go:build vm

package scenario

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/vm-test/rack"
)

// Power is cut in the middle of an install: the machine's, then the
// appliance's. The install ends all the same. Then the stick is written anew,
// and still knows everything.
func TestKilledInTheMiddle(t *testing.T) {
	r, _ := room(t, rack.Config{Machines: 1, Approve: true})
	console := open(t, r)
	if err := r.PowerOnMachine(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	const writing = "writing the node image"
	wait(t, console, 0, writing)
	if err := r.Machines[0].Kill(); err != nil {
		t.Fatal(err)
	}
	if err := r.PowerOnMachine(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	// The new session revokes the old one and is shown.
	second := wait(t, console, 0, "Installer session 2 opened")
	wait(t, console, second, writing)

	if err := r.Appliance.Kill(); err != nil {
		t.Fatal(err)
	}
	console = open(t, r)
	done := wait(t, console, second, "Installed: ")
	events, err := console.Events(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range events {
		if e.Seq != uint64(i+1) {
			t.Errorf("event %d has the number %d", i+1, e.Seq)
		}
	}
	if n := strings.Count(texts(events), "Permitted to write"); n != 2 {
		t.Errorf("%d permissions to write, want one a session:\n%s", n, texts(events))
	}

	before, err := console.Machines(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Appliance.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := r.RewriteStick(t.Context()); err != nil {
		t.Fatal(err)
	}
	console = open(t, r)
	after, err := console.Machines(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(before) != 1 || len(after) != 1 || after[0].ID != before[0].ID || after[0].Install == nil || after[0].Install.Status != machine.IntentDone {
		t.Errorf("before the stick was written anew: %+v, after it: %+v", before, after)
	}
	if now, err := console.Events(t.Context(), done); err != nil || len(now) == 0 {
		t.Errorf("events after the stick was written anew: %v, %v", now, err)
	}
}

// wait waits for an event whose text has a part, after a sequence number, and
// returns its own.
func wait(t *testing.T, console rack.Console, after uint64, part string) (seq uint64) {
	t.Helper()
	eventually(t, 5*time.Minute, fmt.Sprintf("an event %q", part), func() error {
		events, err := console.Events(t.Context(), after)
		if err != nil {
			return err
		}
		for _, e := range events {
			if strings.Contains(e.Text, part) {
				seq = e.Seq
				return nil
			}
		}
		return fmt.Errorf("events since %d:\n%s", after, texts(events))
	})
	t.Logf("event %d: %s", seq, part)
	return seq
}
