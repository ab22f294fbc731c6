//go:build vm

package scenario

import (
	"testing"

	"github.com/rackseed/rackseed/vm-test/qemu"
	"github.com/rackseed/rackseed/vm-test/rack"
)

// A room with BIOS alone: the appliance boots from its stick, a machine from its
// card's PXE ROM by undionly.kpxe, and, installed, from its own disk.
func TestBIOS(t *testing.T) {
	r, _ := room(t, rack.Config{
		Machines: 1, Site: workers(1),
		Setup: func(_ int, m *qemu.Machine) { m.Firmware = qemu.BIOS },
	})
	r.Ports["machine-1"].Edit(rack.PlainROM())
	console := open(t, r)
	t.Log(installed(t, r, console, 1, path{firmware: qemu.BIOS, program: "undionly.kpxe"}))
}
