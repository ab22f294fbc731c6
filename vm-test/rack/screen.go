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
	// The fingerprint is 32 octets in hex, in lines of 16 after its heading.
	fingerprintPattern = regexp.MustCompile(`must have this SHA-256:\s+((?:[0-9A-F]{2}:){15}[0-9A-F]{2})\s+((?:[0-9A-F]{2}:){15}[0-9A-F]{2})\s`)
	setupCodePattern   = regexp.MustCompile(`Setup\s+code ([0-9A-Z]{4}(?:-[0-9A-Z]{4})+)\s`) // all of it was printed
)

// readScreen finds what the console needs in what the appliance printed, the
// newest of each.
func readScreen(printed string) (Screen, bool) {
	var s Screen
	if found := fingerprintPattern.FindAllStringSubmatch(printed, -1); found != nil {
		s.Fingerprint = found[len(found)-1][1] + ":" + found[len(found)-1][2]
	}
	if found := setupCodePattern.FindAllStringSubmatch(printed, -1); found != nil {
		s.SetupCode = found[len(found)-1][1]
	}
	return s, s.Fingerprint != "" && s.SetupCode != ""
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
		if s, ok := readScreen(string(printed[min(r.printed, int64(len(printed))):])); ok {
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

// SafeToUnplug says whether the appliance shows that its stick can be pulled.
func (r *Rack) SafeToUnplug() (bool, error) {
	printed, err := os.ReadFile(r.Appliance.SerialLog())
	if err != nil {
		return false, fmt.Errorf("appliance: %w", err)
	}
	return strings.Contains(string(printed[min(r.printed, int64(len(printed))):]), "SAFE TO UNPLUG."), nil
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
