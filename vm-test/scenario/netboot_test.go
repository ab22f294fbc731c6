//go:build full

package scenario

import (
	"bytes"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/vm-test/qemu"
	"github.com/rackseed/rackseed/vm-test/rack"
	"github.com/rackseed/rackseed/vm-test/vswitch"
)

// Machines by each firmware, each way of netboot and each way to leave it,
// until they were installed and their nodes speak from their own disks, by that
// firmware too.
func TestFirmwareMachines(t *testing.T) {
	table := newTable(t, "Machines")
	for _, policy := range []struct {
		netboot machine.SiteNetboot
		ways    []path
	}{
		{machine.SiteNetboot{}, []path{
			{firmware: qemu.BIOS, program: "undionly.kpxe"},
			{firmware: qemu.UEFI, program: "shimx64.efi"},
			{firmware: qemu.SecureBoot, program: "shimx64.efi"},
			{firmware: qemu.SecureBoot, httpBoot: true, program: "shimx64.efi"},
		}},
		{machine.SiteNetboot{UEFI: machine.LoaderIPXE}, []path{{firmware: qemu.UEFI, program: "snponly.efi"}}},
		{machine.SiteNetboot{LeaveUEFI: machine.LeaveChainload, LeaveBIOS: machine.LeaveSanboot}, []path{
			{firmware: qemu.BIOS, program: "undionly.kpxe"},
			{firmware: qemu.SecureBoot, program: "shimx64.efi"},
		}},
		{machine.SiteNetboot{UEFI: machine.LoaderIPXE, LeaveUEFI: machine.LeaveChainload}, []path{{firmware: qemu.UEFI, program: "snponly.efi"}}},
		{machine.SiteNetboot{LeaveUEFI: machine.LeaveSilence, LeaveBIOS: machine.LeaveSilence}, []path{
			{firmware: qemu.BIOS, program: "undionly.kpxe"},
			{firmware: qemu.UEFI, program: "shimx64.efi", alone: true},
		}},
	} {
		n := policy.netboot.Filled()
		t.Run(fmt.Sprintf("%s-%s-%s", n.UEFI, n.LeaveUEFI, n.LeaveBIOS), func(t *testing.T) {
			r, _ := room(t, rack.Config{
				Machines: len(policy.ways),
				Site:     fmt.Sprintf("netboot: {uefi: %s, leaveUEFI: %s, leaveBIOS: %s}\n", n.UEFI, n.LeaveUEFI, n.LeaveBIOS) + workers(len(policy.ways)),
				Setup: func(i int, m *qemu.Machine) {
					if i > 0 {
						m.Firmware, m.HTTPBoot = policy.ways[i-1].firmware, policy.ways[i-1].httpBoot
					}
				},
			})
			console := open(t, r)
			for i, way := range policy.ways {
				protocol, leave := "PXE", n.LeaveUEFI
				if way.httpBoot {
					protocol = "HTTP boot"
				}
				if way.firmware == qemu.BIOS {
					leave = n.LeaveBIOS
					r.Ports[fmt.Sprintf("machine-%d", i+1)].Edit(rack.PlainROM())
				}
				table.run(t, fmt.Sprintf("%s, %s, %s, %s", way.firmware, protocol, way.program, leave), func(t *testing.T) string {
					return installed(t, r, console, i+1, way)
				})
			}
		})
	}
}

// The network is away when GRUB asks for its configuration, and again when that
// asks what to boot: it waits, and goes on. The first is GRUB's own patience, of
// about half a minute, after which it stands at its prompt for ever; the second
// is the configuration's.
func TestFirmwareOutage(t *testing.T) {
	table := newTable(t, "Outages")
	r, _ := room(t, rack.Config{Machines: 1, Site: "netboot: {uefi: shim}\n" + workers(1)})
	console := open(t, r)
	port := r.Ports["machine-1"]
	var cuts atomic.Int32
	port.Edit(cutAt(port, &cuts,
		cut{"grub/grub.cfg", 15 * time.Second},
		cut{"GET /boot/grub?", time.Minute}))
	table.run(t, "UEFI, PXE, shimx64.efi, the network away for 15 s, then for a minute", func(t *testing.T) string {
		result := installed(t, r, console, 1, path{firmware: qemu.UEFI, program: "shimx64.efi"})
		if n := cuts.Load(); n != 2 {
			t.Errorf("the network was away %d times", n)
		}
		return result
	})
}

// cut is a time without a network, from the first frame with a text on.
type cut struct {
	text string
	away time.Duration
}

// cutAt cuts a port's cable when the machine first sends a frame with one of
// the texts. It is a Port's Edit.
func cutAt(port *vswitch.Port, count *atomic.Int32, cuts ...cut) func([]byte) {
	return func(frame []byte) {
		for i, c := range cuts {
			if c.text != "" && bytes.Contains(frame, []byte(c.text)) {
				cuts[i].text = ""
				count.Add(1)
				// Not before this returns: the port is held meanwhile.
				go port.Cut(true)
				time.AfterFunc(c.away, func() { port.Cut(false) })
			}
		}
	}
}
