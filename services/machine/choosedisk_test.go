package machine

import (
	"strings"
	"testing"
)

func good(path, serial string) Disk {
	return Disk{Path: path, Serial: serial, Transport: "sata", Bytes: 500 << 30, SectorSize: 512, Contents: "empty"}
}

func with(d Disk, change func(*Disk)) Disk {
	change(&d)
	return d
}

func TestChooseDisk(t *testing.T) {
	a, b := good("/dev/sda", "AAA"), good("/dev/sdb", "BBB")
	b.WWN, b.Contents = "naa.5000c500a1b2c3d4", "GPT, 3 partitions: vfat, ext4, ntfs"
	stick := with(good("/dev/sdc", "USB1"), func(d *Disk) { d.Transport = "usb" })
	for _, c := range []struct {
		name  string
		disks []Disk
		hint  DiskHint
		want  string // path, or parts of the error separated by |
	}{
		{"the only one", []Disk{stick, a}, DiskHint{}, "/dev/sda"},
		{"several", []Disk{a, b}, DiskHint{}, "error|2 disks|disk.serial|/dev/sda, serial AAA, 500.0 GiB, empty|serial BBB, 500.0 GiB, GPT, 3 partitions"},
		{"none", nil, DiskHint{}, "error|no disk to install on|16.0 GiB|none"},
		{"only a stick", []Disk{stick}, DiskHint{}, "error|no disk to install on|on USB"},
		{"none of a storage network unasked", []Disk{a, with(b, func(d *Disk) { d.Transport = "fc" })}, DiskHint{}, "/dev/sda"},
		{"one of a storage network by its name", []Disk{a, with(b, func(d *Disk) { d.Transport = "iscsi" })}, DiskHint{Serial: "BBB"}, "/dev/sdb"},
		{"by serial", []Disk{a, b}, DiskHint{Serial: " bbb"}, "/dev/sdb"},
		{"by WWN", []Disk{a, b}, DiskHint{WWN: "0x5000C500A1B2C3D4"}, "/dev/sdb"},
		{"by path", []Disk{a, b}, DiskHint{Path: "/dev/sda"}, "/dev/sda"},
		{"all must match", []Disk{a, b}, DiskHint{Serial: "AAA", Path: "/dev/sdb"}, "error|no disk has serial number AAA and path /dev/sdb"},
		{"a hint is no permission", []Disk{a, stick}, DiskHint{Serial: "USB1"}, "error|/dev/sdc|cannot be installed on|on USB"},
		{"ambiguous", []Disk{a, with(a, func(d *Disk) { d.Path = "/dev/sdz" })}, DiskHint{Serial: "AAA"}, "error|2 disks have serial number AAA"},
		{"by size", []Disk{with(a, func(d *Disk) { d.Bytes = 100 << 30 }), b}, DiskHint{MinSize: 400e9}, "/dev/sdb"},
		{"by size, too many", []Disk{a, b}, DiskHint{MinSize: 400e9, MaxSize: 600e9}, "error|2 disks have at least 400GB and at most 600GB|/dev/sda|/dev/sdb"},
		{"by model and transport", []Disk{with(a, func(d *Disk) { d.Model, d.Transport = "SAMSUNG MZ7L3480", "sas" }), b}, DiskHint{Model: "samsung*", Transport: "sas"}, "/dev/sda"},
		{"no serial is not every serial", []Disk{with(a, func(d *Disk) { d.Serial = "" })}, DiskHint{Serial: "AAA"}, "error|no disk has"},
	} {
		got, err := ChooseDisk(c.disks, c.hint)
		if !strings.HasPrefix(c.want, "error|") {
			if err != nil || got.Path != c.want {
				t.Errorf("%s: %s, %v", c.name, got.Path, err)
			}
			continue
		}
		for _, part := range strings.Split(c.want, "|")[1:] {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("%s: want an error with %q, got %v", c.name, part, err)
			}
		}
	}
}

func TestInstallable(t *testing.T) {
	for want, change := range map[string]func(*Disk){
		"":                    func(*Disk) {},
		"several paths":       func(d *Disk) { d.Transport = "multipath" },
		"on USB":              func(d *Disk) { d.Transport = "usb" },
		"SD card":             func(d *Disk) { d.Transport = "mmc" },
		"removable":           func(d *Disk) { d.Removable = true },
		"read-only":           func(d *Disk) { d.ReadOnly = true },
		"needs 16.0 GiB":      func(d *Disk) { d.Bytes = MinDiskBytes - 1 },
		"sectors have 4096":   func(d *Disk) { d.SectorSize = 4096 },
		"management":          func(d *Disk) { d.Model = "iDRAC SECUPD" },
		"(AMI Virtual HDisk0": func(d *Disk) { d.Model = "AMI Virtual HDisk0" },
		"(HPE iLO":            func(d *Disk) { d.Model = "HPE iLO" },
	} {
		err := Installable(with(good("/dev/sda", "A"), change))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
	for _, model := range []string{"Virtual Disk", "PERC H755", "MICRON_5300"} {
		if err := Installable(with(good("/dev/sda", "A"), func(d *Disk) { d.Model = model })); err != nil {
			t.Errorf("%s: %v", model, err)
		}
	}
}
