//go:build full

package scenario

import (
	"fmt"
	"testing"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/vm-test/qemu"
	"github.com/rackseed/rackseed/vm-test/rack"
)

// Machines by each firmware and each way of netboot, until they were installed
// and their nodes speak from their own disks, by that firmware too.
func TestFirmwareMachines(t *testing.T) {
	table := newTable(t, "Machines")
	for _, loader := range []struct {
		name machine.UEFILoader
		ways []path
	}{
		{machine.LoaderShim, []path{
			{firmware: qemu.BIOS, program: "undionly.kpxe"},
			{firmware: qemu.UEFI, program: "shimx64.efi"},
			{firmware: qemu.SecureBoot, program: "shimx64.efi"},
			{firmware: qemu.SecureBoot, httpBoot: true, program: "shimx64.efi"},
		}},
		{machine.LoaderIPXE, []path{{firmware: qemu.UEFI, program: "snponly.efi"}}},
	} {
		t.Run(string(loader.name), func(t *testing.T) {
			r, _ := room(t, rack.Config{
				Machines: len(loader.ways), Site: "netboot: {uefi: " + string(loader.name) + "}\n" + workers(len(loader.ways)),
				Setup: func(i int, m *qemu.Machine) {
					if i > 0 {
						m.Firmware, m.HTTPBoot = loader.ways[i-1].firmware, loader.ways[i-1].httpBoot
					}
				},
			})
			console := open(t, r)
			for i, way := range loader.ways {
				if way.firmware == qemu.BIOS {
					r.Ports[fmt.Sprintf("machine-%d", i+1)].Edit(rack.PlainROM())
				}
				protocol := "PXE"
				if way.httpBoot {
					protocol = "HTTP boot"
				}
				table.run(t, fmt.Sprintf("%s, %s, %s", way.firmware, protocol, way.program), func(t *testing.T) string {
					return installed(t, r, console, i+1, way)
				})
			}
		})
	}
}
