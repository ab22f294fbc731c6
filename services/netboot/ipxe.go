package netboot

import (
	"fmt"
	"strings"

	"github.com/rackseed/rackseed/services/machine"
)

// ipxe is the language of iPXE (https://ipxe.org/scripting).
type ipxe struct{}

// bootScript is what every iPXE starts with: it asks for the machine's own
// script, until it gives up (see rounds). base is the server's URL.
//
// netX is the NIC that iPXE booted from, whatever its number. --replace lets
// the next script end as the firmware's boot option does: without it, control
// would come back here. No answer has a Retry-After (RFC 9110 section 10.2.3):
// iPXE itself would ask again after it, without end. (Debian 13's iPXE
// 1.21.1+git20250501: seen as QEMU's BIOS ROM, as undionly.kpxe below it and as
// snponly.efi on OVMF, with this script and those below.)
func bootScript(base string) string {
	return `#!ipxe
:again
chain --replace --autofree ` + base + pathScript + `?mac=${netX/mac}&uuid=${uuid}&arch=${buildarch}&platform=${platform} || goto wait
:wait
` + count +
		fmt.Sprintf("echo Rackseed: no boot script from %s, trying again in %d s\nsleep %d\ngoto again\n", plain(base), pauseFailed, pauseFailed) +
		giveUp(base)
}

// count counts a round in vain, in a setting that outlives the script, and gives
// up after the last. (inc takes a setting that there is not for 0; ipxe.org/cmd.)
var count = fmt.Sprintf("inc rounds:int32 ||\niseq ${rounds:int32} %d && goto leave ||\n", rounds)

// giveUp is where count goes. iPXE may go on to its next network interface, which
// then has one try and not all rounds again.
func giveUp(base string) string {
	return fmt.Sprintf(":leave\nset rounds:int32 %d\necho Rackseed: nothing to boot came from %s, so on to the next boot option\nexit 1\n", rounds-1, plain(base))
}

func (ipxe) wait(base, reason string, ordered bool) string {
	return "#!ipxe\n" + askAgain(base, reason, pauseWait, ordered)
}

// askAgain asks for a new decision after a pause of so many seconds, and counts
// the rounds, but for a machine that something is ordered for.
func askAgain(base, reason string, pause int, ordered bool) string {
	text := fmt.Sprintf("echo Rackseed: %s, asking again in %d s\nsleep %d\nchain --replace --autofree %s%s ||\ngoto again\n",
		plain(reason), pause, pause, base, pathBoot)
	if ordered {
		return ":again\nset rounds:int32 0\n" + text
	}
	return ":again\n" + count + text + giveUp(base)
}

// local gives the machine back to its firmware, which tries the next boot
// option: its own disk.
//
// The status matters. For UEFI, a boot option that returns success has ended
// the boot (UEFI 2.10 §3.1.7), and the firmware shows its menu; one that fails
// is followed by the next: OVMF was seen to go on. A BIOS goes on to the next
// device either way: SeaBIOS was seen to. Where firmware does not go on, iPXE
// starts the first disk by itself (sanboot; drive 0x80 is the BIOS's first
// one), and gives up only if it cannot.
func (ipxe) local(b boot) string {
	start := ""
	switch {
	case b.leave == machine.LeaveSanboot && !b.uefi:
		start = "sanboot --no-describe --drive 0x80 || echo Rackseed: the first disk does not boot\n"
	case b.leave == machine.LeaveChainload && b.uefi:
		start = `sanboot --no-describe --drive 0 --filename \EFI\BOOT\BOOTX64.EFI || echo Rackseed: no disk has a boot loader at its default place` + "\n"
	}
	return fmt.Sprintf("#!ipxe\necho Rackseed: %s boots its own disk: %s\n%sexit 1\n", plain(b.who), plain(b.decision.Reason), start)
}

func (ipxe) refused(reason string) string {
	return fmt.Sprintf("#!ipxe\necho Rackseed: %s\nsleep %d\nexit 1\n", plain(reason), pauseWait)
}

func (ipxe) installer(b boot) string {
	return "#!ipxe\n" +
		"echo Rackseed: " + plain(b.who) + " boots the installer (" + plain(string(b.decision.Kind)) + "): " + plain(b.decision.Reason) + "\n" +
		// A name for each: the kernel's EFI stub finds the initrd by the name
		// on its command line.
		"kernel --name " + fileKernel + " " + b.base + b.blob(b.kernel, fileKernel) + " initrd=" + fileInitrd + " " + strings.Join(b.arguments(), " ") + " || goto failed\n" +
		"initrd --name " + fileInitrd + " " + b.base + b.blob(b.initrd, fileInitrd) + " || goto failed\n" +
		"boot || goto failed\n" +
		":failed\n" +
		// A half-fetched image must not be started by the next boot.
		"imgfree\n" +
		askAgain(b.base, "that failed", pauseFailed, ordered(b.decision))
}
