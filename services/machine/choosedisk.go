package machine

import (
	"fmt"
	"strings"
)

// MinDiskBytes is the least that a node's disk must have: boot loader, two root
// slots and some GiB for /var.
const MinDiskBytes = 16 << 30

// virtualMedia are parts of the model names under which management controllers
// show their virtual drives. Not "Virtual Disk": that is Hyper-V's real one.
var virtualMedia = []string{"virtual media", "virtual floppy", "virtual cd", "virtual dvd", "virtual hdisk", "virtual usb",
	"idrac", "lcdrive", "oemdrv", "ilo ", "imm ", "bmc "}

// Installable says why a disk cannot be installed on, nil if it can.
func Installable(d Disk) error {
	model := strings.ToLower(d.Model) + " "
	for _, word := range virtualMedia {
		if strings.Contains(model, word) {
			return fmt.Errorf("it is virtual media of the management controller (%s)", d.Model)
		}
	}
	switch {
	case d.Transport == "multipath":
		return fmt.Errorf("it is reached by several paths (multipath), which the node's boot loader cannot follow")
	case d.Transport == "usb":
		return fmt.Errorf("it is on USB")
	case d.Transport == "mmc":
		return fmt.Errorf("it is an SD card or eMMC")
	case d.Removable:
		return fmt.Errorf("it is removable")
	case d.ReadOnly:
		return fmt.Errorf("it is read-only")
	case d.Bytes < MinDiskBytes:
		return fmt.Errorf("it has %s; a node needs %s", DiskSize(d.Bytes), DiskSize(MinDiskBytes))
	case d.SectorSize != 512:
		return fmt.Errorf("its sectors have %d bytes, and its firmware and boot loader need 512; many such disks can be reformatted (nvme format, sg_format)", d.SectorSize)
	}
	return nil
}

// ChooseDisk chooses the disk to install on. With a hint, the one disk that it
// names. Without, the only eligible one; of several none is guessed.
func ChooseDisk(disks []Disk, hint DiskHint) (Disk, error) {
	if hint != (DiskHint{}) {
		return hinted(disks, hint)
	}
	var eligible []Disk
	for _, d := range disks {
		// A disk of a storage network may be another machine's: only who names
		// it means it.
		if Installable(d) == nil && d.Transport != "fc" && d.Transport != "iscsi" {
			eligible = append(eligible, d)
		}
	}
	switch len(eligible) {
	case 1:
		return eligible[0], nil
	case 0:
		return Disk{}, fmt.Errorf("no disk to install on, of at least %s and built in; there are: %s", DiskSize(MinDiskBytes), ListDisks(disks))
	}
	return Disk{}, fmt.Errorf("%d disks could be installed on, and one must be chosen, by rackseed approve --disk-serial, in the console, or by disk.serial in the site file: %s", len(eligible), ListDisks(eligible))
}

func hinted(disks []Disk, hint DiskHint) (Disk, error) {
	var named []Disk
	for _, d := range disks {
		if hint.Matches(d) {
			named = append(named, d)
		}
	}
	switch {
	case len(named) == 0:
		return Disk{}, fmt.Errorf("no disk has %s; there are: %s", hint, ListDisks(disks))
	case len(named) > 1:
		return Disk{}, fmt.Errorf("%d disks have %s, and one must be chosen: %s", len(named), hint, ListDisks(named))
	}
	if err := Installable(named[0]); err != nil {
		return Disk{}, fmt.Errorf("disk %s cannot be installed on: %w", describeDisk(named[0]), err)
	}
	return named[0], nil
}

// String names what the hint asks for: "serial number S4EV and at least 400GB".
func (h DiskHint) String() string {
	if h == (DiskHint{}) {
		return "any"
	}
	var parts []string
	for _, p := range []struct{ name, value string }{{"serial number", h.Serial}, {"WWN", h.WWN}, {"path", h.Path}, {"model", h.Model}, {"transport", h.Transport}} {
		if p.value != "" {
			parts = append(parts, p.name+" "+p.value)
		}
	}
	if h.MinSize > 0 {
		parts = append(parts, "at least "+h.MinSize.String())
	}
	if h.MaxSize > 0 {
		parts = append(parts, "at most "+h.MaxSize.String())
	}
	return strings.Join(parts, " and ")
}

// ListDisks tells disks apart for people: path, serial number, size, contents, and
// why one cannot be used.
func ListDisks(disks []Disk) string {
	if len(disks) == 0 {
		return "none"
	}
	var parts []string
	for _, d := range disks {
		s := describeDisk(d)
		if err := Installable(d); err != nil {
			s += " (not usable: " + err.Error() + ")"
		}
		parts = append(parts, s)
	}
	return strings.Join(parts, "; ")
}

func describeDisk(d Disk) string {
	serial := d.Serial
	if serial == "" {
		serial = "unknown"
	}
	return fmt.Sprintf("%s, serial %s, %s, %s", d.Path, serial, DiskSize(d.Bytes), d.Contents)
}

// DiskSize writes a disk's size for people.
func DiskSize(bytes uint64) string {
	if bytes >= 1<<40 {
		return fmt.Sprintf("%.1f TiB", float64(bytes)/(1<<40))
	}
	return fmt.Sprintf("%.1f GiB", float64(bytes)/(1<<30))
}
