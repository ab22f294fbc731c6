package bounded

import (
	"fmt"
	"testing"
	"time"
)

func TestRepeat(t *testing.T) {
	start := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	r := &Repeat{Pause: time.Minute, Most: 2}
	got := ""
	for _, c := range []struct {
		second int
		key    string
	}{{0, "a"}, {1, "a"}, {2, "b"}, {3, "c"}, {59, "a"}, {60, "c"}, {61, "a"}, {62, "a"}, {300, "a"}} {
		if r.Due(c.key, start.Add(time.Duration(c.second)*time.Second)) {
			got += fmt.Sprint(c.second, c.key, " ")
		}
	}
	if want := "0a 2b 60c 62a 300a "; got != want {
		t.Errorf("told %q, want %q", got, want)
	}
}
