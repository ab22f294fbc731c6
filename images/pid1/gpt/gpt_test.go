package gpt

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
)

func example(sectorSize int) Table {
	return Table{
		DiskID:     MustGUID("5a4c8b1e-0000-4000-8000-000000000001"),
		SectorSize: sectorSize, Sectors: uint64(8<<20) / uint64(sectorSize),
		Partitions: []Partition{
			{Number: 1, Type: TypeBIOSBoot, ID: MustGUID("00112233-4455-6677-8899-aabbccddeeff"), First: 256, Last: 511, Name: "rs-bios"},
			{Number: 5, Type: TypeLinux, ID: NewGUID(), First: 512, Last: 1023, Attributes: 4, Name: "rs-däta"},
		},
	}
}

func write(t *testing.T, table Table) []byte {
	t.Helper()
	image, err := table.Encode()
	if err != nil {
		t.Fatal(err)
	}
	disk := make([]byte, int(table.Sectors)*table.SectorSize)
	copy(disk[image.BackupOffset:], image.Backup)
	copy(disk, image.Primary)
	if end := int(image.BackupOffset) + len(image.Backup); end != len(disk) {
		t.Fatalf("the backup ends at byte %d of %d", end, len(disk))
	}
	return disk
}

func TestRoundTrip(t *testing.T) {
	for _, size := range []int{512, 4096} {
		want := example(size)
		disk := write(t, want)
		got, err := Read(bytes.NewReader(disk), int64(len(disk)), size)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("sectors of %d: %+v, %v", size, got, err)
		}
		disk[size+40]++ // a damaged primary header: the backup serves
		if got, err = Read(bytes.NewReader(disk), int64(len(disk)), size); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("backup, sectors of %d: %+v, %v", size, got, err)
		}
		disk[len(disk)-size+40]++
		if _, err = Read(bytes.NewReader(disk), int64(len(disk)), size); !errors.Is(err, ErrNone) {
			t.Errorf("both damaged, sectors of %d: %v", size, err)
		}
	}
}

// The bytes that firmware looks at, against UEFI 2.10 §5.2.3 and §5.3.2.
func TestLayout(t *testing.T) {
	disk := write(t, example(512))
	if got, want := disk[446:462], []byte{0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0xff, 0x3f, 0, 0}; !bytes.Equal(got, want) {
		t.Errorf("protective MBR % x, want % x", got, want)
	}
	if got, want := disk[1024:1040], []byte("Hah!IdontNeedEFI"); !bytes.Equal(got, want) {
		t.Errorf("BIOS boot partition's type %q, want %q", got, want)
	}
	if got := disk[1040:1048]; !bytes.Equal(got, []byte{0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66}) {
		t.Errorf("the GUID's first fields are not little-endian: % x", got)
	}
}

func TestCheckRefuses(t *testing.T) {
	for _, c := range []struct {
		change func(*Table)
		want   string
	}{
		{func(t *Table) { t.Partitions[1].First = 511 }, "overlaps partition 1"},
		{func(t *Table) { t.Partitions[1].Number = 1 }, "used twice"},
		{func(t *Table) { t.Partitions[0].First = 33 }, "do not lie within"},
		{func(t *Table) { t.Partitions[1].Last = t.Sectors - 33 }, "do not lie within"},
		{func(t *Table) { t.Partitions[0].Name = strings.Repeat("x", 37) }, "longer than 36"},
		{func(t *Table) { t.SectorSize = 520 }, "power of two"},
		{func(t *Table) { t.Sectors = 60 }, "too small"},
	} {
		table := example(512)
		c.change(&table)
		if _, err := table.Encode(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("want an error with %q, got %v", c.want, err)
		}
	}
}

func TestParseGUID(t *testing.T) {
	for _, bad := range []string{"", "4f68bce3", "4f68bce3-e8cd-4db1-96e7-fbcaf984b70", "4f68bce3-e8cd-4db1-96e7-fbcaf984b70g", "4f68bce3xe8cd-4db1-96e7-fbcaf984b709"} {
		if _, err := ParseGUID(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	g, err := ParseGUID("4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709")
	if err != nil || g != TypeRootAMD64 || g.String() != "4f68bce3-e8cd-4db1-96e7-fbcaf984b709" {
		t.Errorf("%v, %v", g, err)
	}
}

func FuzzRead(f *testing.F) {
	table := example(512)
	image, err := table.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(image.Primary)
	f.Fuzz(func(t *testing.T, disk []byte) {
		got, err := Read(bytes.NewReader(disk), int64(len(disk)), 512)
		if err == nil && len(got.Partitions) > maxEntries {
			t.Errorf("%d partitions", len(got.Partitions))
		}
	})
}
