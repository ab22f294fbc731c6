//go:build vm || full

package scenario

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/vm-test/qemu"
	"github.com/rackseed/rackseed/vm-test/rack"
)

// workers lists machines 1 to n in the site file as workers, to be installed
// unasked: without a cluster they wait, and take no time from others.
func workers(n int) string {
	var b strings.Builder
	b.WriteString("machines:\n")
	for i := 1; i <= n; i++ {
		fmt.Fprintf(&b, "  - mac: %s\n    name: node-%d\n    profile: worker\n    approve: true\n", rack.MachineMAC(i), i)
	}
	return b.String()
}

// path is how a machine gets from power-on to a node.
type path struct {
	firmware qemu.Firmware
	httpBoot bool
	// program is the boot file that the boot service names to its firmware.
	program string
	// alone says that its firmware, once there is nothing to netboot, goes to the
	// disk without a word: EDK2 takes no address from an OFFER without a boot file
	// (PXE-E16), so that nothing is decided.
	alone bool
}

// installed powers machine i on and waits until it was installed and its node
// reports from the machine's own disk. It says how long each took.
func installed(t *testing.T, r *rack.Rack, console rack.Console, i int, way path) string {
	t.Helper()
	start := time.Now()
	if err := r.PowerOnMachine(context.WithoutCancel(t.Context()), i); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			screens(t, r)
			t.Logf("machine %d:%s", i, rack.LastLines(r.Machines[i-1], 40))
		}
		if err := r.Machines[i-1].Kill(); err != nil {
			t.Error(err)
		}
	})
	done := waitOf(t, console, i, "install.done")
	install := time.Since(start)
	local := done + 1
	if !way.alone {
		local = waitOf(t, console, i, "boot.decided", "boot", "local")
	}
	booted := waitOf(t, console, i, "node.booted")
	if !(done < local && local <= booted) {
		t.Errorf("installed: event %d, its own disk: %d, the node: %d", done, local, booted)
	}
	m := machineOf(t, console, i)
	want := "uefi"
	if way.firmware == qemu.BIOS {
		want = "bios"
	}
	if secure := way.firmware == qemu.SecureBoot; m.Inventory == nil || m.Inventory.Firmware != want || m.Inventory.SecureBoot != secure {
		t.Fatalf("its inventory: %+v, want %s with Secure Boot %v", m.Inventory, want, secure)
	}
	loaded(t, r, way)
	return fmt.Sprintf("installed after %.0f s, its node spoke from its disk after %.0f s; Secure Boot in its inventory: %v",
		install.Seconds(), time.Since(start).Seconds(), m.Inventory.SecureBoot)
}

// loaded checks that the machine came by the boot program that it should have.
// The appliance's log tells, which is on its serial line.
func loaded(t *testing.T, r *rack.Rack, way path) {
	t.Helper()
	printed, err := os.ReadFile(r.Appliance.SerialLog())
	if err != nil {
		t.Fatal(err)
	}
	if want := "file=" + way.program; !way.httpBoot && !strings.Contains(string(printed), want) {
		t.Errorf("nobody loaded %s by TFTP", way.program)
	}
}

// machineOf is machine i as the boot service knows it.
func machineOf(t *testing.T, console rack.Console, i int) (found machine.Machine) {
	t.Helper()
	eventually(t, 5*time.Minute, fmt.Sprintf("machine %d is known", i), func() error {
		all, err := console.Machines(t.Context())
		if err != nil {
			return err
		}
		for _, m := range all {
			if slices.Contains(m.MACs, machine.MAC(rack.MachineMAC(i))) {
				found = m.Machine
				return nil
			}
		}
		return fmt.Errorf("it is not among %d", len(all))
	})
	return found
}

// waitOf waits for an event of machine i of a kind, with a datum if one is
// given, and returns its number: the newest.
func waitOf(t *testing.T, console rack.Console, i int, kind string, datum ...string) (seq uint64) {
	t.Helper()
	id := machineOf(t, console, i).ID
	eventually(t, 10*time.Minute, fmt.Sprintf("an event %s %v of machine %d", kind, datum, i), func() error {
		events, err := console.Events(t.Context(), 0)
		if err != nil {
			return err
		}
		for _, e := range events {
			if e.Machine == id && e.Kind == kind && (len(datum) == 0 || e.Data[datum[0]] == datum[1]) {
				seq = e.Seq
			}
		}
		if seq == 0 {
			return fmt.Errorf("its events:\n%s", texts(events[max(0, len(events)-30):]))
		}
		return nil
	})
	t.Logf("event %d: %s %v", seq, kind, datum)
	return seq
}
