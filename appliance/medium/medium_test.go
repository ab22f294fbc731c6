package medium

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rackseed/rackseed/images/pid1/block"
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

func TestPlanTableAddsThePartitionAndKeepsTheRest(t *testing.T) {
	f := stick(t, size16G)
	before, err := gpt.Read(f, size16G, sector)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := PlanTable(f, size16G, gpt.NewGUID())
	if err != nil {
		t.Fatal(err)
	}
	if plan.Listed || plan.Start != DataOffset || plan.Start+plan.Bytes > size16G-17*1024 || plan.Bytes%align != 0 {
		t.Fatalf("plan: %+v", plan)
	}
	if err := write(f, plan.Writes); err != nil {
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
	if p.Number != DataNumber || p.Type != gpt.TypeLinux || p.Name != dataName || p.First != DataOffset/sector {
		t.Errorf("data partition: %+v", p)
	}
	return after
}

func TestPlanTableAgainFindsThePartition(t *testing.T) {
	f := stick(t, size16G)
	first, err := PlanTable(f, size16G, gpt.NewGUID())
	if err != nil {
		t.Fatal(err)
	}
	if err := write(f, first.Writes); err != nil {
		t.Fatal(err)
	}
	again, err := PlanTable(f, size16G, gpt.NewGUID())
	if err != nil {
		t.Fatal(err)
	}
	if !again.Listed || again.Bytes != first.Bytes || len(again.Writes) != 0 {
		t.Errorf("second plan: %+v", again)
	}
}

// After a loss of power between any two writes, the next start ends with the
// same two tables as one that was not cut off.
func TestPlanTableSurvivesBeingCutOff(t *testing.T) {
	for cut := range 6 {
		f := stick(t, size16G)
		before, err := gpt.Read(f, size16G, sector)
		if err != nil {
			t.Fatal(err)
		}
		plan, err := PlanTable(f, size16G, gpt.NewGUID())
		if err != nil {
			t.Fatal(err)
		}
		if err := write(f, plan.Writes[:cut]); err != nil {
			t.Fatal(err)
		}
		next, err := PlanTable(f, size16G, gpt.NewGUID())
		if err != nil {
			t.Fatalf("after %d writes: %v", cut, err)
		}
		if next.Bytes != plan.Bytes {
			t.Errorf("after %d writes the partition has %d bytes, planned were %d", cut, next.Bytes, plan.Bytes)
		}
		if err := write(f, next.Writes); err != nil {
			t.Fatal(err)
		}
		check(t, f, before)
	}
}

func TestPlanTableRefuses(t *testing.T) {
	var small *TooSmallError
	if _, err := PlanTable(stick(t, 4<<30), 4<<30, gpt.NewGUID()); !errors.As(err, &small) || !strings.Contains(err.Error(), "4.0 GiB") {
		t.Errorf("a stick of 4 GiB: %v", err)
	}
	if _, err := PlanTable(stick(t, DataOffset+1<<20), DataOffset+1<<20, gpt.NewGUID()); !errors.As(err, &small) {
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
		if _, err := PlanTable(f, size16G, gpt.NewGUID()); err == nil || !strings.Contains(err.Error(), want) {
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
		if plan, err := PlanTable(f, size16G, gpt.NewGUID()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %+v, %v", name, plan, err)
		}
	}
	foreign("another partition 4", gpt.Partition{Number: 4, Type: gpt.TypeLinux, ID: gpt.NewGUID(), First: 1 << 20, Last: 2 << 20}, "is not it")
	foreign("a partition across 8 GiB", gpt.Partition{Number: 5, Type: gpt.TypeLinux, ID: gpt.NewGUID(), First: 1 << 20, Last: DataOffset / sector}, "partition 5")
}

func FuzzPlanTable(f *testing.F) {
	f.Add(make([]byte, 1024))
	b := make([]byte, 40*sector)
	copy(b[sector:], "EFI PART")
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		plan, err := PlanTable(bytes.NewReader(b), int64(len(b)), gpt.GUID{})
		if err == nil && plan.Start != DataOffset {
			t.Errorf("planned %+v", plan)
		}
	})
}

func TestDecide(t *testing.T) {
	ours := block.Signature{Type: "ext4", Label: DataLabel}
	for _, c := range []struct {
		name        string
		listed      bool
		found       block.Signature
		add, format bool
	}{
		{"first start", false, block.Signature{}, true, true},
		{"every start", true, ours, false, false},
		{"image written anew", false, ours, true, false},
		{"cut off before mke2fs", true, block.Signature{}, false, true},
		{"an old stick's leavings", false, block.Signature{Type: "ext4", Label: "photos"}, true, true},
		{"an old stick's other leavings", false, block.Signature{Type: "ntfs"}, true, true},
	} {
		got := Decide(Table{Listed: c.listed}, c.found)
		if got.Add != c.add || got.Format != c.format || got.Why == "" {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}
