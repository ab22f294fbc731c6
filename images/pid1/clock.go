package pid1

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// BuildDate is when the program was built, RFC 3339; set by the linker
// (-X github.com/rackseed/rackseed/images/pid1.BuildDate=…).
var BuildDate = "2026-11-01T00:00:00Z"

// ChooseTime decides what the clock shall say: wanted, but never before built;
// and nothing (ok false) while the clock is within a second of that.
func ChooseTime(now, wanted, built time.Time) (t time.Time, ok bool) {
	t = wanted
	if t.Before(built) {
		t = built
	}
	if d := t.Sub(now); -time.Second < d && d < time.Second {
		return time.Time{}, false
	}
	return t, true
}

// SetClock sets the machine's clock to t, or to the build date if t is before
// it, and says whether it had to. SetClock(time.Now()) only corrects a clock
// from before the program was built.
func SetClock(t time.Time) (bool, error) {
	built, err := time.Parse(time.RFC3339, BuildDate)
	if err != nil {
		return false, fmt.Errorf("the build date that was linked in: %w", err)
	}
	t, ok := ChooseTime(time.Now(), t, built)
	if !ok {
		return false, nil
	}
	tv := unix.NsecToTimeval(t.UnixNano())
	if err := unix.Settimeofday(&tv); err != nil {
		return false, fmt.Errorf("setting the clock to %s: %w", t.UTC().Format(time.RFC3339), err)
	}
	return true, nil
}
