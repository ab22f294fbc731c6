// Package install writes a node onto a machine's disk.
package install

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/rackseed/rackseed/images/installer/disk"
	"github.com/rackseed/rackseed/images/pid1/gpt"
	"github.com/rackseed/rackseed/services/wire"
)

// slot that an install from scratch writes.
const slot = "a"

// espFiles are the files of a node image that go onto the ESP, and where. shim
// is the firmware's default loader, and finds GRUB and its key manager beside it.
var espFiles = []struct{ name, path string }{
	{"shimx64.efi", "EFI/BOOT/BOOTX64.EFI"},
	{"grubx64.efi", "EFI/BOOT/grubx64.efi"},
	{"mmx64.efi", "EFI/BOOT/mmx64.efi"},
	{"grub.cfg", "boot/grub/grub.cfg"},
	{"vmlinuz", "rackseed/" + slot + "/vmlinuz"},
	{"initrd.img", "rackseed/" + slot + "/initrd.img"},
}

// biosFiles are GRUB for BIOS machines; an image may come without them.
const bootImage, coreImage, rootImage = "boot.img", "core.img", "root.erofs"

// check says whether an order can be carried out on a machine with that
// firmware, before anything is written.
func check(o wire.Order, uefi bool) error {
	if o.Image == nil {
		return errors.New("the order names no node image")
	}
	need := []string{rootImage}
	for _, f := range espFiles {
		need = append(need, f.name)
	}
	for _, name := range need {
		if _, ok := file(o.Image, name); !ok {
			return fmt.Errorf("node image %s has no %s; build and publish it again", o.Image.Digest, name)
		}
	}
	if f, _ := file(o.Image, rootImage); f.Size > disk.RootBytes {
		return fmt.Errorf("node image %s: its root has %d bytes, a slot has %d", o.Image.Digest, f.Size, int64(disk.RootBytes))
	}
	if !uefi {
		for _, name := range []string{bootImage, coreImage} {
			if _, ok := file(o.Image, name); !ok {
				return fmt.Errorf("this machine was started by BIOS, and node image %s has no %s: set its firmware to UEFI", o.Image.Digest, name)
			}
		}
	}
	_, err := commandLine(gpt.GUID{}, gpt.GUID{}, o.KernelArguments)
	return err
}

func file(image *wire.NodeImage, name string) (wire.File, bool) {
	for _, f := range image.Files {
		if f.Name == name {
			return f, true
		}
	}
	return wire.File{}, false
}

// commandLine is the text of /rackseed/a/cmdline.cfg, which grub.cfg sources.
// GRUB splits the variable at spaces again, so an argument with one, or with
// what its shell reads, cannot be passed on.
func commandLine(root, data gpt.GUID, arguments []string) (string, error) {
	words := []string{"rackseed.role=node", "rackseed.slot=" + slot, "root=PARTUUID=" + root.String(), "rackseed.data=PARTUUID=" + data.String(),
		"systemd.gpt_auto=0", "panic=10"}
	for _, a := range arguments {
		if a == "" || strings.ContainsFunc(a, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("\"'`\\$;&|<>{}*?[]#", r) }) {
			return "", fmt.Errorf("kernel argument %q: only printable ASCII without spaces, quotes and \\ $ ; & | < > { } * ? [ ] # can be given", a)
		}
	}
	return fmt.Sprintf("set rs_cmdline=%q\n", strings.Join(append(words, arguments...), " ")), nil
}

// grubenv is GRUB's environment block of a fresh install: 1024 bytes, padded
// with #. A is good, and not tried yet.
func grubenv() []byte {
	b := []byte("# GRUB Environment Block\nORDER=A B\nA_OK=1\nA_TRY=0\nB_OK=0\nB_TRY=0\n")
	return append(b, bytes.Repeat([]byte("#"), 1024-len(b))...)
}

// biosLoader patches GRUB's boot.img and core.img for a core that begins at
// sector lba, as grub-bios-setup does (grub-2.12, util/setup.c). It returns the
// 440 bytes of boot code and the core in whole sectors.
func biosLoader(boot, core []byte, lba uint64, space int) (code, sectors []byte, err error) {
	if len(boot) != 512 || len(core) < 1024 {
		return nil, nil, fmt.Errorf("GRUB's boot.img has %d bytes and core.img %d; 512 and at least 1024 are expected", len(boot), len(core))
	}
	sectors = append(bytes.Clone(core), make([]byte, -len(core)&511)...)
	if len(sectors) > space {
		return nil, nil, fmt.Errorf("GRUB's core.img has %d bytes, its partition %d", len(core), space)
	}
	code = bytes.Clone(boot[:440])
	binary.LittleEndian.PutUint64(code[0x5c:], lba)
	code[0x66], code[0x67] = 0x90, 0x90 // boot drive as the BIOS says
	// The first sector's list of the others: where, how many, to which segment.
	binary.LittleEndian.PutUint64(sectors[0x1f4:], lba+1)
	binary.LittleEndian.PutUint16(sectors[0x1fc:], uint16(len(sectors)/512-1))
	binary.LittleEndian.PutUint16(sectors[0x1fe:], 0x820)
	return code, sectors, nil
}
