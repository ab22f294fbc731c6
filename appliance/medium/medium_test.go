package medium

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rackseed/rackseed/images/pid1/gpt"
)

// stick makes a sparse file with a table as an image of ours has: boot code in
// the first sector, three partitions, and the backup table where the image ends
// and not where the stick does.
func stick(t *testing.T, size int64) *os.File {
	t.Helper()
	const imageSectors = 400 << 20 / sector
	image, err := gpt.Table{
		DiskID: gpt.NewGUID(), SectorSize: sector, Sectors: imageSectors,
		Partitions: []gpt.Partition{
			{Number: 1, Type: gpt.TypeBasicData, ID: gpt.NewGUID(), First: 2048, Last: 600000, Name: "ISO9660"},
			{Number: 2, Type: gpt.TypeESP, ID: gpt.NewGUID(), First: 600064, Last: 700000, Name: "Appended2"},
			{Number: 3, Type: gpt.TypeBasicData, ID: gpt.NewGUID(), First: 700416, Last: 760000, Name: "Appended3"},
		},
	}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "stick"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	copy(image.Primary, "BOOT CODE")
	for _, w := range []Write{{image.BackupOffset, image.Backup}, {0, image.Primary}} {
		if _, err := f.WriteAt(w.Data, w.Offset); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

const size16G = 16 << 30

func TestSayAddsThePartitionAndKeepsTheRest(t *testing.T) {
	f := stick(t, size16G)
	before, err := gpt.Read(f, size16G, sector)
	if err != nil {
		t.Fatal(err)
	}
	table, err := ReadTable(f, size16G)
	if err != nil {
		t.Fatal(err)
	}
	if table.Entry != Absent || table.Start != DataOffset || table.Start+table.Bytes > size16G-17*1024 || table.Bytes%align != 0 {
		t.Fatalf("table: %+v", table)
	}
	if err := write(f, table.Say(Made, gpt.NewGUID())); err != nil {
		t.Fatal(err)
	}
	boot := make([]byte, sector)
	if _, err := f.ReadAt(boot, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(boot, []byte("BOOT CODE")) {
		t.Error("the boot code is gone")
	}
	if n := binary.LittleEndian.Uint32(boot[446+12:]); n != size16G/sector-1 {
		t.Errorf("the protective partition has %d sectors, the stick %d", n, int64(size16G)/sector)
	}
	primary := check(t, f, before)
	// And the backup alone, as after a torn write of the first sectors.
	if _, err := f.WriteAt(make([]byte, sector), sector); err != nil {
		t.Fatal(err)
	}
	if backup := check(t, f, before); backup.Partitions[3] != primary.Partitions[3] {
		t.Errorf("the backup says %+v, the primary %+v", backup.Partitions[3], primary.Partitions[3])
	}
}

func check(t *testing.T, f *os.File, before gpt.Table) gpt.Table {
	t.Helper()
	after, err := gpt.Read(f, size16G, sector)
	if err != nil {
		t.Fatal(err)
	}
	if len(after.Partitions) != 4 || after.DiskID != before.DiskID {
		t.Fatalf("table: %+v", after)
	}
	for i, p := range before.Partitions {
		if after.Partitions[i] != p {
			t.Errorf("partition %d was %+v, is %+v", i+1, p, after.Partitions[i])
		}
	}
	if err := after.Check(); err != nil {
		t.Error(err)
	}
	p := after.Partitions[3]
	if p.Number != DataNumber || p.Type != gpt.TypeLinux || p.Name != "rackseed-data" || p.First != DataOffset/sector {
		t.Errorf("data partition: %+v", p)
	}
	return after
}

func TestSayRenamesThePartition(t *testing.T) {
	f := stick(t, size16G)
	var first Table
	for _, e := range []Entry{Making, Made} {
		table, err := ReadTable(f, size16G)
		if err != nil {
			t.Fatal(err)
		}
		if err := write(f, table.Say(e, gpt.NewGUID())); err != nil {
			t.Fatal(err)
		}
		again, err := ReadTable(f, size16G)
		if err != nil {
			t.Fatal(err)
		}
		if again.Entry != e || again.Bytes != table.Bytes || len(again.Say(e, gpt.GUID{})) != 0 {
			t.Errorf("after Say(%d): %+v", e, again)
		}
		if e == Making {
			first = again
		} else if !bytes.Equal(first.raw.entry(DataNumber)[:48], again.raw.entry(DataNumber)[:48]) {
			t.Error("another name changed more than the name")
		}
	}
}

// After a loss of power between any two writes, the next start ends with the
// same two tables as one that was not cut off.
func TestSaySurvivesBeingCutOff(t *testing.T) {
	for _, from := range []Entry{Absent, Making} {
		for cut := range 6 {
			f := stick(t, size16G)
			before, err := gpt.Read(f, size16G, sector)
			if err != nil {
				t.Fatal(err)
			}
			table, err := ReadTable(f, size16G)
			if err != nil {
				t.Fatal(err)
			}
			if err := write(f, table.Say(from, gpt.NewGUID())); err != nil {
				t.Fatal(err)
			}
			if err := write(f, table.Say(from+1, gpt.NewGUID())[:cut]); err != nil {
				t.Fatal(err)
			}
			next, err := ReadTable(f, size16G)
			if err != nil {
				t.Fatalf("after %d writes: %v", cut, err)
			}
			if next.Bytes != table.Bytes || next.Entry != from && next.Entry != from+1 {
				t.Errorf("after %d writes: %+v", cut, next)
			}
			if err := write(f, next.Say(Made, gpt.NewGUID())); err != nil {
				t.Fatal(err)
			}
			check(t, f, before)
		}
	}
}

func TestReadTableRefuses(t *testing.T) {
	var small *TooSmallError
	if _, err := ReadTable(stick(t, 4<<30), 4<<30); !errors.As(err, &small) || !strings.Contains(err.Error(), "4.0 GiB") {
		t.Errorf("a stick of 4 GiB: %v", err)
	}
	if _, err := ReadTable(stick(t, DataOffset+1<<20), DataOffset+1<<20); !errors.As(err, &small) {
		t.Errorf("a stick that ends just behind 8 GiB: %v", err)
	}

	damaged := func(name string, off int64, want string) {
		f := stick(t, size16G)
		b := make([]byte, 1)
		if _, err := f.ReadAt(b, off); err != nil {
			t.Fatal(err)
		}
		b[0] ^= 0x55
		if _, err := f.WriteAt(b, off); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadTable(f, size16G); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	damaged("no table", sector, "no GPT")
	damaged("header", sector+60, "header's checksum")
	damaged("entries", 2*sector+10, "entries' checksum")

	foreign := func(name string, p gpt.Partition, want string) {
		f := stick(t, size16G)
		table, err := gpt.Read(f, size16G, sector)
		if err != nil {
			t.Fatal(err)
		}
		table.Sectors, table.Partitions = size16G/sector, append(table.Partitions, p)
		image, err := table.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(image.Primary, 0); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadTable(f, size16G); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	foreign("another partition 4", gpt.Partition{Number: 4, Type: gpt.TypeLinux, ID: gpt.NewGUID(), First: 1 << 20, Last: 2 << 20}, "is not it")
	ours := gpt.Partition{Number: 4, Type: gpt.TypeLinux, ID: gpt.NewGUID(), First: DataOffset / sector, Last: DataOffset/sector + 1<<21, Name: "photos"}
	foreign("another's partition at 8 GiB", ours, `is not it ("photos"`)
	ours.Name, ours.Type = "rackseed-data", gpt.TypeBasicData
	foreign("a partition of another type at 8 GiB", ours, "is not it")
	foreign("a partition across 8 GiB", gpt.Partition{Number: 5, Type: gpt.TypeLinux, ID: gpt.NewGUID(), First: 1 << 20, Last: DataOffset / sector}, "partition 5")
}

func FuzzReadTable(f *testing.F) {
	f.Add(make([]byte, 1024))
	b := make([]byte, 40*sector)
	copy(b[sector:], "EFI PART")
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		table, err := ReadTable(bytes.NewReader(b), int64(len(b)))
		if err == nil && table.Start != DataOffset {
			t.Errorf("read %+v", table)
		}
	})
}

func TestDecide(t *testing.T) {
	for _, c := range []struct {
		name           string
		entry          Entry
		found          There
		then           Entry
		format, refuse bool
	}{
		{"first start", Absent, Nothing, Making, true, false},
		{"every start", Made, Ours, Made, false, false},
		{"image written anew", Absent, Ours, Made, false, false},
		{"image written anew, data damaged", Absent, Damaged, Made, false, true},
		{"cut off before mke2fs", Making, Nothing, Making, true, false},
		{"cut off within mke2fs", Making, Damaged, Making, true, false},
		{"cut off after mke2fs", Making, Ours, Making, true, false},
		{"first superblock gone", Made, Damaged, Made, false, true},
		{"all superblocks gone", Made, Nothing, Made, false, true},
	} {
		got := Decide(c.entry, c.found)
		if got.Entry != c.then || got.Format != c.format || got.Refuse != c.refuse || got.Why == "" {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}
