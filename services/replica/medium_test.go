package replica

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rackseed/rackseed/services/state"
)

func TestMedium(t *testing.T) {
	fast := state.Medium{Median: 2 * time.Millisecond, Longest: time.Second}
	slow := state.Medium{Median: 500 * time.Millisecond, Longest: 1900 * time.Millisecond, Slow: true}
	full := state.Medium{Failed: fmt.Errorf("%w: %w", state.ErrUnwritable, unix.ENOSPC)}
	for name, test := range map[string]struct {
		before, now state.Medium
		ok          bool
		health      string
		event       string // "": none
	}{
		"the first look": {state.Medium{}, fast, true, "takes writes", ""},
		"slow":           {fast, slow, false, "the stick is slow: a commit takes 0.5 s, at the longest 1.9 s", "storage.slow"},
		"still slow":     {slow, slow, false, "the stick is slow", ""},
		"fast again":     {slow, fast, true, "takes writes", "storage.fast"},
		"full":           {fast, full, false, "no space left on device; free space", ""},
		"room again":     {full, fast, true, "takes writes", "storage.writable"},
		"room, but slow": {full, slow, false, "the stick is slow", "storage.writable"},
	} {
		t.Run(name, func(t *testing.T) {
			if ok, text := mediumHealth(test.now); ok != test.ok || !strings.Contains(text, test.health) {
				t.Errorf("health %v, %q", ok, text)
			}
			note, ok := mediumNote(test.before, test.now)
			if ok != (test.event != "") || note.What != test.event {
				t.Errorf("event %+v", note)
			}
		})
	}
}
