package rack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/rackseed/rackseed/vm-test/qemu"
)

// Screen is what the appliance shows to whoever stands before it.
type Screen struct {
	Fingerprint string // of the console's certificate: 32 octets in hex with colons
	SetupCode   string // empty once it was used
}

var (
	fingerprintPattern = regexp.MustCompile(`(?:[0-9A-F]{2}:){31}[0-9A-F]{2}`)
	setupCodePattern   = regexp.MustCompile(`(?im)setup code:?\s+([0-9A-Z]{4}(?:-[0-9A-Z]{4})+)`)
)

// readScreen finds what the console needs in what the appliance printed.
func readScreen(printed string) (Screen, bool) {
	s := Screen{Fingerprint: last(fingerprintPattern.FindAllString(printed, -1))}
	if code := setupCodePattern.FindAllStringSubmatch(printed, -1); code != nil {
		s.SetupCode = code[len(code)-1][1]
	}
	return s, s.Fingerprint != "" && s.SetupCode != ""
}

func last(all []string) string {
	if len(all) == 0 {
		return ""
	}
	return all[len(all)-1]
}

// WaitScreen waits until the appliance shows where to open the console, as a
// person before it would. Its serial line carries the same as its screen.
func (r *Rack) WaitScreen(ctx context.Context) (Screen, error) {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		printed, err := os.ReadFile(r.Appliance.SerialLog())
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return Screen{}, fmt.Errorf("appliance: %w", err)
		}
		if s, ok := readScreen(string(printed)); ok {
			return s, nil
		}
		select {
		case <-tick.C:
		case <-r.Appliance.Exited():
			return Screen{}, r.Appliance.Err()
		case <-ctx.Done():
			return Screen{}, fmt.Errorf("appliance: it showed no fingerprint and setup code: %w; its last words: %s", context.Cause(ctx), LastLines(r.Appliance, 12))
		}
	}
}

// LastLines is the end of what a machine printed on its serial line.
func LastLines(vm *qemu.VM, n int) string {
	b, err := os.ReadFile(vm.SerialLog())
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return "\n    " + strings.Join(lines[max(0, len(lines)-n):], "\n    ")
}
