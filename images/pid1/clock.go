package pid1

import (
	"errors"
	"fmt"
	"os"
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

// SetRTC writes the clock to the machine's battery-backed one, so that the next
// boot begins with it. A machine without one is no error.
func SetRTC(t time.Time) (err error) {
	f, err := os.OpenFile("/dev/rtc0", os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("the machine's clock: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	t = t.UTC()
	rtc := unix.RTCTime{Sec: int32(t.Second()), Min: int32(t.Minute()), Hour: int32(t.Hour()),
		Mday: int32(t.Day()), Mon: int32(t.Month()) - 1, Year: int32(t.Year()) - 1900}
	if err := unix.IoctlSetRTCTime(int(f.Fd()), &rtc); err != nil {
		return fmt.Errorf("setting the machine's clock: %w", err)
	}
	return nil
}
