package netboot

import (
	"fmt"
	"strings"
)

// grub is the language of GRUB (its manual, chapter 6), as far as Debian's
// signed grubnetx64.efi has the modules: Secure Boot lets no other be loaded.
//
// What was seen of that GRUB (2.12-9+deb13u4 on OVMF): source ends well
// whatever comes, and the body of an error is taken for the file, so nothing
// but scripts may be answered where a script is asked for, and a kernel or
// initrd that cannot be served must break off instead (see Server.fail). exit
// reports success to the firmware, whatever its argument.
type grub struct{}

// device is the server in GRUB's notation.
func device(base string) string { return "(http," + strings.TrimPrefix(base, "http://") + ")" }

// grubConfig is what every GRUB starts with: it asks for the machine's own
// script, until it gives up and starts the disk's boot loader. GRUB cannot count:
// it makes a word longer. The machine's UUID is read from SMBIOS (type 1, offset
// 8); net_default_mac is the NIC that GRUB came by.
func grubConfig(base string) string {
	return `smbios --type 1 --get-uuid 8 --set uuid
set rounds=""
while [ "$rounds" != "` + strings.Repeat("x", roundsGRUB) + `" ]; do
  set rounds="${rounds}x"
  source "` + device(base) + pathGRUB + `?mac=$net_default_mac&uuid=$uuid&arch=x86_64&platform=efi"
  echo "Rackseed: asking ` + plain(base) + fmt.Sprintf(" for a boot script again in %d s\"\n  sleep %d\ndone\n", pauseWait, pauseWait) +
		`echo "Rackseed: nothing to boot came from ` + plain(base) + ", so on to its own disk\"\n" + startDisk
}

// reset begins the rounds of grubConfig anew.
const reset = "set rounds=\"\"\n"

// wait and installer return to the loop of grubConfig.
func (grub) wait(_, reason string, ordered bool) string {
	text := fmt.Sprintf("echo \"Rackseed: %s\"\n", plain(reason))
	if ordered {
		return reset + text
	}
	return text
}

func (grub) refused(reason string) string {
	return fmt.Sprintf("echo \"Rackseed: %s\"\nsleep %d\nexit 1\n", plain(reason), pauseWait)
}

// diskLoaders are where disks have their boot loaders: those of installed
// systems, then the default place (UEFI 2.10 §3.5.1.1). Each is started with
// its own configuration beside it.
var diskLoaders = []string{
	"/EFI/Microsoft/Boot/bootmgfw.efi", "/EFI/debian/shimx64.efi", "/EFI/ubuntu/shimx64.efi", "/EFI/redhat/shimx64.efi",
	"/EFI/centos/shimx64.efi", "/EFI/rocky/shimx64.efi", "/EFI/almalinux/shimx64.efi", "/EFI/fedora/shimx64.efi",
	"/EFI/sles/shim.efi", "/EFI/opensuse/shim.efi", "/EFI/systemd/systemd-bootx64.efi", "/EFI/BOOT/BOOTX64.EFI",
}

// local starts the disk's boot loader. Whom the firmware shall send on to its
// next boot option gets no GRUB in the first place (see Firmware): GRUB cannot
// end with a failure. This is for those who come here all the same, because
// what they boot was decided anew meanwhile, and for the policy to chainload.
//
// A node of ours goes first: a disk's default place may be another medium's.
func (grub) local(b boot) string {
	return fmt.Sprintf("echo \"Rackseed: %s boots its own disk: %s\"\n", plain(b.who), plain(b.decision.Reason)) + startDisk
}

var startDisk = `if search --no-floppy --set=root --file /rackseed/a/vmlinuz; then
  if chainloader ($root)/EFI/BOOT/BOOTX64.EFI; then boot; fi
fi
for loader in ` + strings.Join(diskLoaders, " ") + `; do
  if search --no-floppy --set=root --file $loader; then
    if chainloader ($root)$loader; then boot; fi
  fi
done
echo "Rackseed: no boot loader was found on a disk, so back to the firmware"
exit 1
`

func (grub) installer(b boot) string {
	begin := ""
	if ordered(b.decision) {
		begin = reset
	}
	return begin + fmt.Sprintf("echo \"Rackseed: %s boots the installer (%s): %s\"\n", plain(b.who), plain(string(b.decision.Kind)), plain(b.decision.Reason)) +
		"if linux \"" + device(b.base) + b.blob(b.kernel, fileKernel) + "\" " + strings.Join(b.arguments(), " ") + "; then\n" +
		"  if initrd \"" + device(b.base) + b.blob(b.initrd, fileInitrd) + "\"; then boot; fi\nfi\n" +
		"echo \"Rackseed: that failed\"\n"
}
