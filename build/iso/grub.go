package iso

import (
	"fmt"
	"strings"

	"github.com/rackseed/rackseed/services/machine"
)

// emulatedArguments are for machines that are emulated in software.
var emulatedArguments = strings.Join(machine.EmulatedArguments, " ")

// espConfig sends GRUB from the ESP to the volume. It is found by UUID: Debian's
// own search, by the file /.disk/info, may find another medium.
func espConfig(uuid string) string {
	return earlyConfig(uuid) + "configfile ($root)/boot/grub/grub.cfg\n"
}

func earlyConfig(uuid string) string {
	return "search --no-floppy --fs-uuid --set=root " + uuid + "\nset prefix=($root)/boot/grub\n"
}

// Menu is the boot loader's configuration on the volume.
//
// On EFI the console alone: firmware shows it on its serial ports by itself,
// and with GRUB's own serial driver all would be there twice. On BIOS the
// serial port is used if there is one.
func Menu(uuid string) string {
	return `set timeout=2
set default=0
load_env -f ($root)/boot/grub/grubenv rs_args
if [ "$grub_platform" = "efi" ]; then
  terminal_output console
elif serial --unit=0 --speed=115200; then
  terminal_input console serial
  terminal_output console serial
fi
set rs_base="rackseed.role=appliance rackseed.medium=` + uuid + ` console=tty0 console=ttyS0,115200n8 panic=10"

menuentry "Rackseed" {
  linux /boot/vmlinuz $rs_base quiet $rs_args
  initrd /boot/initrd.img
}
menuentry "Rackseed, telling all that the kernel does" {
  linux /boot/vmlinuz $rs_base loglevel=7 $rs_args
  initrd /boot/initrd.img
}
menuentry "Rackseed on a machine that is emulated in software" {
  linux /boot/vmlinuz $rs_base quiet ` + emulatedArguments + `
  initrd /boot/initrd.img
}
menuentry "This machine's own disk" {
  exit 1
}
`
}

// envBlock is a GRUB environment block (1024 bytes): the one part of the boot
// loader's configuration that is written after the image was made.
func envBlock(uuid string, emulated bool) ([]byte, error) {
	args := ""
	if emulated {
		args = emulatedArguments
	}
	s := fmt.Sprintf("# GRUB Environment Block\nrs_medium=%s\nrs_args=%s\n", uuid, args)
	const size = 1024
	if len(s) > size {
		return nil, fmt.Errorf("GRUB environment block: %d bytes do not fit into %d", len(s), size)
	}
	return []byte(s + strings.Repeat("#", size-len(s))), nil
}
