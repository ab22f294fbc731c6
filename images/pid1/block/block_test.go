package block

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/images/pid1/gpt"
)

// machine is a sysfs of one disk "vda" with two partitions, an empty CD drive
// and a stick "sdb" without a table, with files for device nodes.
func machine(t *testing.T) (Host, gpt.Table) {
	t.Helper()
	dir := t.TempDir()
	h := Host{Sys: filepath.Join(dir, "sys"), Dev: filepath.Join(dir, "dev")}
	write := func(path, text string) {
		t.Helper()
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	device := func(name, at string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(h.Sys, "class/block"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join("../..", at), filepath.Join(h.Sys, "class/block", name)); err != nil {
			t.Fatal(err)
		}
	}
	const vda, sdb, sr0 = "devices/pci0/virtio0/block/vda", "devices/pci0/usb1/block/sdb", "devices/pci0/ata1/block/sr0"
	for _, d := range []struct{ at, sectors, size string }{{vda, "16384", "512"}, {sdb, "2048", "512"}, {sr0, "0", "2048"}} {
		write("sys/"+d.at+"/size", d.sectors+"\n")
		write("sys/"+d.at+"/ro", "0\n")
		write("sys/"+d.at+"/queue/logical_block_size", d.size+"\n")
	}
	write("sys/"+sdb+"/removable", "1\n")
	for i, name := range []string{"vda1", "vda2"} {
		at := vda + "/" + name
		write("sys/"+at+"/size", "2048\n")
		write("sys/"+at+"/ro", "1\n")
		write("sys/"+at+"/partition", string(rune('1'+i))+"\n")
		write("sys/"+at+"/uevent", "MAJOR=253\nDEVTYPE=partition\nPARTN=1\nPARTNAME=rs-"+name+"\n")
		device(name, at)
		write("dev/"+name, strings.Repeat("\x00", 2048*512))
	}
	device("vda", vda)
	device("sdb", sdb)
	device("sr0", sr0)

	table := gpt.Table{DiskID: gpt.NewGUID(), SectorSize: 512, Sectors: 16384, Partitions: []gpt.Partition{
		{Number: 1, Type: gpt.TypeRootAMD64, ID: gpt.NewGUID(), First: 2048, Last: 4095},
		{Number: 2, Type: gpt.TypeLinux, ID: gpt.NewGUID(), First: 4096, Last: 6143},
	}}
	image, err := table.Encode()
	if err != nil {
		t.Fatal(err)
	}
	disk := make([]byte, 8<<20)
	copy(disk, image.Primary)
	copy(disk[image.BackupOffset:], image.Backup)
	write("dev/vda", string(disk))
	iso := make([]byte, 1<<20)
	copy(iso[32<<10+1:], "CD001")
	copy(iso[32<<10+40:], "RACKSEED                        ")
	copy(iso[32<<10+830:], "2026112412345600")
	write("dev/sdb", string(iso))
	return h, table
}

func TestList(t *testing.T) {
	h, _ := machine(t)
	list, err := h.List()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, d := range list {
		names = append(names, d.Name)
	}
	if got := strings.Join(names, " "); got != "sdb vda vda1 vda2" {
		t.Fatalf("devices %s; the empty drive does not count", got)
	}
	if d := list[3]; d.Disk != "vda" || d.Number != 2 || d.PartName != "rs-vda2" || d.Bytes != 1<<20 || d.SectorSize != 512 || !d.ReadOnly {
		t.Errorf("%+v", d)
	}
	if !list[0].Removable || list[1].Removable || !strings.Contains(list[0].SysPath, "/usb1/") {
		t.Errorf("%+v", list[0])
	}
}

func TestFindPartUUID(t *testing.T) {
	h, table := machine(t)
	d, found, err := h.FindPartUUID(strings.ToUpper(table.Partitions[1].ID.String()))
	if err != nil || !found || d.Name != "vda2" {
		t.Errorf("%+v, %v, %v", d, found, err)
	}
	if d, found, err := h.FindPartUUID(gpt.NewGUID().String()); err != nil || found {
		t.Errorf("an unknown one: %+v, %v, %v", d, found, err)
	}
	if _, _, err := h.FindPartUUID("x"); err == nil {
		t.Error("x was taken for a GUID")
	}
}

func TestFindSignature(t *testing.T) {
	h, _ := machine(t)
	d, found, err := h.FindSignature(func(_ Device, s Signature) bool { return s.UUID == "2026-11-24-12-34-56-00" })
	if err != nil || !found || d.Name != "sdb" {
		t.Errorf("%+v, %v, %v", d, found, err)
	}
}

func TestWaitNamesWhatIsThere(t *testing.T) {
	h, _ := machine(t)
	ctx, cancel := context.WithCancel(context.Background())
	calls := 0
	_, err := h.Wait(ctx, "the root", func() (Device, bool, error) {
		if calls++; calls == 2 {
			cancel()
		}
		return Device{}, false, nil
	})
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "the root was not found among sdb, vda, vda1, vda2") {
		t.Errorf("%v", err)
	}
	deadline, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	if d, err := h.Wait(deadline, "x", func() (Device, bool, error) { return Device{Name: "y"}, true, nil }); err != nil || d.Name != "y" {
		t.Errorf("%v, %v", d, err)
	}
}

func TestProbe(t *testing.T) {
	const size = 4 << 20
	put := func(pairs ...any) []byte {
		b := make([]byte, size)
		for i := 0; i < len(pairs); i += 2 {
			offset := pairs[i].(int)
			if offset < 0 {
				offset += size
			}
			copy(b[offset:], pairs[i+1].(string))
		}
		return b
	}
	u64 := func(v uint64) string { return string(binary.LittleEndian.AppendUint64(nil, v)) }
	uuid := "\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff"
	for _, c := range []struct {
		content []byte
		want    Signature
	}{
		{put(), Signature{}},
		{put(1080, "\x53\xef", 1024+96, "\xc2\x02\x00\x00", 1128, uuid, 1144, "rs-data\x00"), Signature{"ext4", "rs-data", "00112233-4455-6677-8899-aabbccddeeff"}},
		{put(1080, "\x53\xef", 1024+92, "\x04", 1024+96, "\x02"), Signature{Type: "ext3"}},
		{put(1080, "\x53\xef", 1024+96, "\x02"), Signature{Type: "ext2"}},
		{put(0, "XFSB", 108, "lab"), Signature{Type: "xfs", Label: "lab"}},
		{put(65600, "_BHRfS_M"), Signature{Type: "btrfs"}},
		{put(1024, "\xe2\xe1\xf5\xe0"), Signature{Type: "erofs"}},
		{put(82, "FAT32   ", 71, "RACKSEED   ", 67, "\x78\x56\x34\x12"), Signature{"vfat", "RACKSEED", "1234-5678"}},
		{put(54, "FAT16   ", 43, "NO NAME    "), Signature{Type: "vfat", UUID: "0000-0000"}},
		{put(3, "NTFS    "), Signature{Type: "ntfs"}},
		{put(512, "LABELONE", 536, "LVM2 001"), Signature{Type: "LVM2_member"}},
		{put(1080, "\x53\xef", 1024+96, "\x08"), Signature{Type: "jbd"}},
		{put(0, "XFSB", 54, "FAT16   "), Signature{Type: "xfs"}}, // the first of two
		{put(4096, "\xfc\x4e\x2b\xa9\x01\x00\x00\x00", 4096+32, "host:0"), Signature{Type: "linux_raid_member", Label: "host:0"}},
		{put(4096, "\xfc\x4e\x2b\xa9", 1080, "\x53\xef"), Signature{Type: "linux_raid_member"}},
		{put(size-8192, "\xfc\x4e\x2b\xa9", 1080, "\x53\xef"), Signature{Type: "linux_raid_member"}},
		{put(size-65536, "\xfc\x4e\x2b\xa9"), Signature{Type: "linux_raid_member"}},
		{put(-512, "\xde\x11\xde\x11"), Signature{Type: "ddf_raid_member"}},
		{put(-1024, "Intel Raid ISM Cfg Sig. 1.0"), Signature{Type: "isw_raid_member"}},
		{put(128<<10+5*1024, u64(0x00bab10c)), Signature{Type: "zfs_member"}},
		{put(0, "LUKS\xba\xbe", 168, "some-uuid"), Signature{Type: "crypto_LUKS", UUID: "some-uuid"}},
		{put(0, "bluestore block device\n"), Signature{Type: "ceph_bluestore"}},
		{put(1<<20, "\x0d\xd0\x01\xc0"), Signature{Type: "VMFS_volume_member"}},
		{put(4086, "SWAPSPACE2"), Signature{Type: "swap"}},
		{put(8182, "SWAPSPACE2"), Signature{Type: "swap"}},
		{put(4086, "S1SUSPEND"), Signature{Type: "swsuspend"}},
		{put(1024, "\x10\x20\xf5\xf2", 1024+124, "d\x00a\x00"), Signature{Type: "f2fs", Label: "da"}},
		{put(-8192, "bluestore"), Signature{}},
	} {
		got, err := Probe(bytes.NewReader(c.content), size)
		if err != nil || got != c.want {
			t.Errorf("%+v, %v, want %+v", got, err, c.want)
		}
	}
}

// What one thing left at the end shines through what is at the front.
func TestProbeAll(t *testing.T) {
	const size = 4 << 20
	b := make([]byte, size)
	copy(b[1080:], "\x53\xef")
	copy(b[size-8192:], "\xfc\x4e\x2b\xa9")
	copy(b[4096+24:], "\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef")
	copy(b[2<<20+24:], "\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef")
	got, err := ProbeAll(bytes.NewReader(b), size)
	var types []string
	for _, s := range got {
		types = append(types, s.Type)
	}
	if text := strings.Join(types, " "); err != nil || text != "linux_raid_member bcachefs ext2" {
		t.Errorf("%s, %v", text, err)
	}
}

func FuzzProbe(f *testing.F) {
	f.Add([]byte("XFSB"))
	f.Add(bytes.Repeat([]byte{0x53, 0xef}, 1024))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := Probe(bytes.NewReader(b), int64(len(b))); err != nil {
			t.Error(err)
		}
	})
}
