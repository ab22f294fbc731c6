package disk

import (
	"bytes"
	"strings"
	"testing"

	"github.com/rackseed/rackseed/images/pid1/block"
	"github.com/rackseed/rackseed/images/pid1/gpt"
	"github.com/rackseed/rackseed/services/machine"
)

func good(path, serial string) machine.Disk {
	return machine.Disk{Path: path, Serial: serial, Transport: "sata", Bytes: 500 << 30, SectorSize: 512, Contents: "empty"}
}

func with(d machine.Disk, change func(*machine.Disk)) machine.Disk {
	change(&d)
	return d
}

func TestChoose(t *testing.T) {
	a, b := good("/dev/sda", "AAA"), good("/dev/sdb", "BBB")
	b.WWN, b.Contents = "naa.5000c500a1b2c3d4", "GPT, 3 partitions: vfat, ext4, ntfs"
	stick := with(good("/dev/sdc", "USB1"), func(d *machine.Disk) { d.Transport = "usb" })
	for _, c := range []struct {
		name  string
		disks []machine.Disk
		hint  machine.DiskHint
		want  string // path, or parts of the error separated by |
	}{
		{"the only one", []machine.Disk{stick, a}, machine.DiskHint{}, "/dev/sda"},
		{"several", []machine.Disk{a, b}, machine.DiskHint{}, "error|2 disks|disk.serial|/dev/sda, serial AAA, 500.0 GiB, empty|serial BBB, 500.0 GiB, GPT, 3 partitions"},
		{"none", nil, machine.DiskHint{}, "error|no disk to install on|16.0 GiB|none"},
		{"only a stick", []machine.Disk{stick}, machine.DiskHint{}, "error|no disk to install on|on USB"},
		{"by serial", []machine.Disk{a, b}, machine.DiskHint{Serial: " bbb"}, "/dev/sdb"},
		{"by WWN", []machine.Disk{a, b}, machine.DiskHint{WWN: "0x5000C500A1B2C3D4"}, "/dev/sdb"},
		{"by path", []machine.Disk{a, b}, machine.DiskHint{Path: "/dev/sda"}, "/dev/sda"},
		{"all must match", []machine.Disk{a, b}, machine.DiskHint{Serial: "AAA", Path: "/dev/sdb"}, "error|no disk is serial number AAA and path /dev/sdb"},
		{"a hint is no permission", []machine.Disk{a, stick}, machine.DiskHint{Serial: "USB1"}, "error|/dev/sdc|cannot be installed on|on USB"},
		{"ambiguous", []machine.Disk{a, with(a, func(d *machine.Disk) { d.Path = "/dev/sdz" })}, machine.DiskHint{Serial: "AAA"}, "error|2 disks are serial number AAA"},
		{"no serial is not every serial", []machine.Disk{with(a, func(d *machine.Disk) { d.Serial = "" })}, machine.DiskHint{Serial: "AAA"}, "error|no disk is"},
	} {
		got, err := Choose(c.disks, c.hint)
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

func TestEligible(t *testing.T) {
	for want, change := range map[string]func(*machine.Disk){
		"":                    func(*machine.Disk) {},
		"on USB":              func(d *machine.Disk) { d.Transport = "usb" },
		"SD card":             func(d *machine.Disk) { d.Transport = "mmc" },
		"removable":           func(d *machine.Disk) { d.Removable = true },
		"read-only":           func(d *machine.Disk) { d.ReadOnly = true },
		"needs 16.0 GiB":      func(d *machine.Disk) { d.Bytes = MinBytes - 1 },
		"sectors have 4096":   func(d *machine.Disk) { d.SectorSize = 4096 },
		"management":          func(d *machine.Disk) { d.Model = "iDRAC SECUPD" },
		"(AMI Virtual HDisk0": func(d *machine.Disk) { d.Model = "AMI Virtual HDisk0" },
		"(HPE iLO":            func(d *machine.Disk) { d.Model = "HPE iLO" },
	} {
		err := Eligible(with(good("/dev/sda", "A"), change))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
	for _, model := range []string{"Virtual Disk", "PERC H755", "MICRON_5300"} {
		if err := Eligible(with(good("/dev/sda", "A"), func(d *machine.Disk) { d.Model = model })); err != nil {
			t.Errorf("%s: %v", model, err)
		}
	}
}

func TestLayout(t *testing.T) {
	table, err := Layout(16<<30, 512, gpt.NewGUID)
	if err != nil {
		t.Fatal(err)
	}
	var end uint64 = 2048
	for i, want := range []struct {
		name  string
		bytes uint64
		kind  string
	}{
		{"rs-bios", 1 << 20, "21686148-6449-6e6f-744e-656564454649"}, {"rs-esp", 1 << 30, "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"},
		{"rs-root-a", 4 << 30, "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"}, {"rs-root-b", 4 << 30, "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"},
		{"rs-data", 16<<30 - 9<<30 - 3<<20, "0fc63daf-8483-4772-8e79-3d69d8477de4"},
	} {
		p := Part(table, i+1)
		if p.Name != want.name || (p.Last-p.First+1)*512 != want.bytes || p.Type.String() != want.kind || p.First != end || p.First%2048 != 0 {
			t.Errorf("partition %d: %+v, want %+v at %d", i+1, p, want, end)
		}
		end = p.Last + 1
	}
	if _, err := Layout(MinBytes-512, 512, gpt.NewGUID); err == nil || !strings.Contains(err.Error(), "needs 16.0 GiB") {
		t.Errorf("a small disk: %v", err)
	}
}

// sparse is a disk of which only what differs from fill is kept.
type sparse struct {
	fill   byte
	blocks map[int64][]byte // of 64 KiB
	size   int64
	writes []int64
}

const blockSize = 64 << 10

func (s *sparse) block(n int64) []byte {
	if b, ok := s.blocks[n]; ok {
		return b
	}
	return bytes.Repeat([]byte{s.fill}, blockSize)
}

func (s *sparse) WriteAt(p []byte, offset int64) (int, error) {
	s.writes = append(s.writes, offset)
	for i := 0; i < len(p); {
		n, at := (offset+int64(i))/blockSize, (offset+int64(i))%blockSize
		b := s.block(n)
		i += copy(b[at:], p[i:])
		s.blocks[n] = b
	}
	return len(p), nil
}

func (s *sparse) ReadAt(p []byte, offset int64) (int, error) {
	for i := 0; i < len(p); {
		i += copy(p[i:], s.block((offset + int64(i)) / blockSize)[(offset+int64(i))%blockSize:])
	}
	return len(p), nil
}

func (s *sparse) Sync() error { return nil }

// shifted reads from an offset on, as a partition's device does.
type shifted struct {
	*sparse
	by int64
}

func (s shifted) ReadAt(p []byte, offset int64) (int, error) { return s.sparse.ReadAt(p, s.by+offset) }

func TestWriteTableClearsOldContents(t *testing.T) {
	const bytes = 16 << 30
	table, err := Layout(bytes, 512, gpt.NewGUID)
	if err != nil {
		t.Fatal(err)
	}
	d := &sparse{fill: 0x55, blocks: map[int64][]byte{}, size: bytes}
	for _, p := range table.Partitions { // an old file system in each place
		if _, err := d.WriteAt([]byte("\x53\xef"), int64(p.First)*512+1080); err != nil {
			t.Fatal(err)
		}
	}
	d.writes = nil
	if err := writeTable(d, table); err != nil {
		t.Fatal(err)
	}
	if last := d.writes[len(d.writes)-1]; last != 0 {
		t.Errorf("the primary table must be written last; it was byte %d", last)
	}
	got, err := gpt.Read(d, bytes, 512)
	if err != nil || len(got.Partitions) != 5 || got.DiskID != table.DiskID {
		t.Errorf("read back %+v, %v", got, err)
	}
	for _, p := range table.Partitions {
		if s, err := block.Probe(shifted{d, int64(p.First) * 512}, int64(p.Last-p.First+1)*512); err != nil || s.Type != "" {
			t.Errorf("partition %d still holds %q, %v", p.Number, s.Type, err)
		}
	}
}
