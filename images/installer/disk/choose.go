// Package disk decides which disk a machine is installed on and how it is
// divided, and does the dividing.
package disk

import (
	"fmt"
	"strings"

	"github.com/rackseed/rackseed/services/machine"
)

// MinBytes is the least that a node's disk must have: boot loader, two root
// slots and some GiB for /var.
const MinBytes = 16 << 30

// virtualMedia are parts of the model names under which management controllers
// show their virtual drives. Not "Virtual Disk": that is Hyper-V's real one.
var virtualMedia = []string{"virtual media", "virtual floppy", "virtual cd", "virtual dvd", "virtual hdisk", "virtual usb",
	"idrac", "lcdrive", "oemdrv", "ilo ", "imm ", "bmc "}

// Eligible says why a disk cannot be installed on, nil if it can.
func Eligible(d machine.Disk) error {
	model := strings.ToLower(d.Model) + " "
	for _, word := range virtualMedia {
		if strings.Contains(model, word) {
			return fmt.Errorf("it is virtual media of the management controller (%s)", d.Model)
		}
	}
	switch {
	case d.Transport == "usb":
		return fmt.Errorf("it is on USB")
	case d.Transport == "mmc":
		return fmt.Errorf("it is an SD card or eMMC")
	case d.Removable:
		return fmt.Errorf("it is removable")
	case d.ReadOnly:
		return fmt.Errorf("it is read-only")
	case d.Bytes < MinBytes:
		return fmt.Errorf("it has %s; a node needs %s", size(d.Bytes), size(MinBytes))
	case d.SectorSize != 512:
		return fmt.Errorf("its sectors have %d bytes, and its firmware and boot loader need 512; many such disks can be reformatted (nvme format, sg_format)", d.SectorSize)
	}
	return nil
}

// Choose chooses the disk to install on. With a hint, the one disk that it
// names. Without, the only eligible one; of several none is guessed.
func Choose(disks []machine.Disk, hint machine.DiskHint) (machine.Disk, error) {
	if hint != (machine.DiskHint{}) {
		return hinted(disks, hint)
	}
	var eligible []machine.Disk
	for _, d := range disks {
		if Eligible(d) == nil {
			eligible = append(eligible, d)
		}
	}
	switch len(eligible) {
	case 1:
		return eligible[0], nil
	case 0:
		return machine.Disk{}, fmt.Errorf("no disk to install on, of at least %s and built in; there are: %s", size(MinBytes), List(disks))
	}
	return machine.Disk{}, fmt.Errorf("%d disks could be installed on, and one must be chosen, by disk.serial at approval or in the site file: %s", len(eligible), List(eligible))
}

func hinted(disks []machine.Disk, hint machine.DiskHint) (machine.Disk, error) {
	var named []machine.Disk
	for _, d := range disks {
		if matches(d, hint) {
			named = append(named, d)
		}
	}
	switch {
	case len(named) == 0:
		return machine.Disk{}, fmt.Errorf("no disk is %s; there are: %s", describeHint(hint), List(disks))
	case len(named) > 1:
		return machine.Disk{}, fmt.Errorf("%d disks are %s: %s", len(named), describeHint(hint), List(named))
	}
	if err := Eligible(named[0]); err != nil {
		return machine.Disk{}, fmt.Errorf("disk %s cannot be installed on: %w", describe(named[0]), err)
	}
	return named[0], nil
}

// matches compares what the hint has. The prefixes under which tools show world
// wide names do not count.
func matches(d machine.Disk, h machine.DiskHint) bool {
	wwn := func(s string) string {
		s = strings.ToLower(strings.TrimSpace(s))
		for _, prefix := range []string{"0x", "naa.", "eui.", "wwn-0x"} {
			s = strings.TrimPrefix(s, prefix)
		}
		return s
	}
	return (h.Serial == "" || strings.EqualFold(strings.TrimSpace(h.Serial), d.Serial)) &&
		(h.WWN == "" || wwn(h.WWN) == wwn(d.WWN)) &&
		(h.Path == "" || h.Path == d.Path)
}

func describeHint(h machine.DiskHint) string {
	var parts []string
	for _, p := range []struct{ name, value string }{{"serial number", h.Serial}, {"WWN", h.WWN}, {"path", h.Path}} {
		if p.value != "" {
			parts = append(parts, p.name+" "+p.value)
		}
	}
	return strings.Join(parts, " and ")
}

// List tells disks apart for people: path, serial number, size, contents, and
// why one cannot be used.
func List(disks []machine.Disk) string {
	if len(disks) == 0 {
		return "none"
	}
	var parts []string
	for _, d := range disks {
		s := describe(d)
		if err := Eligible(d); err != nil {
			s += " (not usable: " + err.Error() + ")"
		}
		parts = append(parts, s)
	}
	return strings.Join(parts, "; ")
}

func describe(d machine.Disk) string {
	serial := d.Serial
	if serial == "" {
		serial = "unknown"
	}
	return fmt.Sprintf("%s, serial %s, %s, %s", d.Path, serial, size(d.Bytes), d.Contents)
}

func size(bytes uint64) string {
	if bytes >= 1<<40 {
		return fmt.Sprintf("%.1f TiB", float64(bytes)/(1<<40))
	}
	return fmt.Sprintf("%.1f GiB", float64(bytes)/(1<<30))
}
