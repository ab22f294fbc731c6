package machine

import "testing"

func TestDiskHint(t *testing.T) {
	disk := Disk{Path: "/dev/nvme0n1", Serial: "S64GNE0R123456 ", WWN: "eui.36344730 ", Model: "SAMSUNG MZQL21T9HCJR-00A07", Transport: "nvme", Bytes: 1920383410176}
	bare := Disk{Path: "/dev/vda", Bytes: 20 << 30}
	for name, c := range map[string]struct {
		hint DiskHint
		disk Disk
		want bool
		text string
	}{
		"any":                {DiskHint{}, bare, true, "any"},
		"serial":             {DiskHint{Serial: " s64gne0r123456"}, disk, true, "serial number  s64gne0r123456"},
		"part of the serial": {DiskHint{Serial: "S64"}, disk, false, "serial number S64"},
		"blank serial":       {DiskHint{Serial: " "}, bare, false, "serial number  "},
		"WWN":                {DiskHint{WWN: "36:34:47:30"}, disk, true, "WWN 36:34:47:30"},
		"WWN as udev has it": {DiskHint{WWN: "wwn-0x5000c500a1b2c3d4"}, Disk{WWN: "naa.5000c500a1b2c3d4"}, true, "WWN wwn-0x5000c500a1b2c3d4"},
		"no WWN":             {DiskHint{WWN: "0x"}, bare, false, "WWN 0x"},
		"path":               {DiskHint{Path: "/dev/vda"}, bare, true, "path /dev/vda"},
		"model":              {DiskHint{Model: "samsung mzql2*"}, disk, true, "model samsung mzql2*"},
		"another model":      {DiskHint{Model: "SAMSUNG"}, disk, false, "model SAMSUNG"},
		"transport":          {DiskHint{Transport: "NVMe"}, disk, true, "transport NVMe"},
		"another transport":  {DiskHint{Transport: "sata"}, disk, false, "transport sata"},
		"in a range":         {DiskHint{MinSize: 1.9e12, MaxSize: 2e12}, disk, true, "at least 1900GB and at most 2TB"},
		// Sizes are those of labels.
		"its own size":             {DiskHint{MinSize: 1.92e12, MaxSize: 1.92e12}, disk, true, "at least 1920GB and at most 1920GB"},
		"behind a RAID controller": {DiskHint{MinSize: 480e9}, Disk{Bytes: 479559942144}, true, "at least 480GB"},
		"too small":                {DiskHint{MinSize: 2e12}, disk, false, "at least 2TB"},
		"too large":                {DiskHint{MaxSize: 1.8e12}, disk, false, "at most 1800GB"},
		"all must match":           {DiskHint{Serial: "S64GNE0R123456", Path: "/dev/sda"}, disk, false, "serial number S64GNE0R123456 and path /dev/sda"},
	} {
		if got := c.hint.Matches(c.disk); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
		if got := c.hint.String(); got != c.text {
			t.Errorf("%s: %q, want %q", name, got, c.text)
		}
	}
}

func TestExact(t *testing.T) {
	both := Disk{Path: "/dev/sda", Serial: "A", WWN: "naa.5", Bytes: 1, Model: "m"}
	for want, disk := range map[DiskHint]Disk{
		{Serial: "A", WWN: "naa.5"}: both,
		{WWN: "naa.5"}:              with(both, func(d *Disk) { d.Serial = "" }),
		{Path: "/dev/sda"}:          {Path: "/dev/sda", Bytes: 1},
	} {
		got := disk.Exact()
		if got != want || !got.Matches(disk) {
			t.Errorf("%+v: %+v, want %+v", disk, got, want)
		}
		if other := (Disk{Path: "/dev/sdb", Serial: "B", WWN: "naa.6"}); got.Matches(other) {
			t.Errorf("%+v names %+v too", got, other)
		}
	}
}
