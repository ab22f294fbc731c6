package specimen

import (
	"encoding/binary"
	"strings"

	"github.com/rackseed/rackseed/images/pid1/gpt"
)

// Specimen is one disk, and how it is to be described.
type Specimen struct {
	Name string
	Make func() *Disk
	Text string
	// Nothing says that the disk is empty, and holds no signature.
	Nothing bool
}

// Size of the disks here: as small as a node's may be.
const Size = 16 << 30

const (
	kib, mib, gib = 1 << 10, 1 << 20, 1 << 30
	uuid          = "\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff"
)

func le16(v uint16) string { return string(binary.LittleEndian.AppendUint16(nil, v)) }
func le32(v uint32) string { return string(binary.LittleEndian.AppendUint32(nil, v)) }
func le64(v uint64) string { return string(binary.LittleEndian.AppendUint64(nil, v)) }
func be16(v uint16) string { return string(binary.BigEndian.AppendUint16(nil, v)) }
func be32(v uint32) string { return string(binary.BigEndian.AppendUint32(nil, v)) }
func be64(v uint64) string { return string(binary.BigEndian.AppendUint64(nil, v)) }

func wide(s string) string {
	var b []byte
	for _, c := range s {
		b = binary.LittleEndian.AppendUint16(b, uint16(c))
	}
	return string(b)
}

// What makes a disk's, or a partition's, contents.

// Ext4 has its superblock at 1024 (kernel, Documentation/filesystems/ext4).
func Ext4(label string) func(*Disk) {
	return func(d *Disk) {
		d.Put(1024+56, "\x53\xef").Put(1024+96, "\xc2\x02\x00\x00").Put(1024+104, uuid).Put(1024+120, label)
	}
}

// XFS: xfs_dsb at 0.
func XFS(label string) func(*Disk) {
	return func(d *Disk) { d.Put(0, "XFSB").Put(108, label) }
}

// Btrfs has superblocks at 64 KiB, 64 MiB and 256 GiB (btrfs(5)).
func Btrfs(label string) func(*Disk) {
	return func(d *Disk) {
		for _, at := range []int64{64 * kib, 64 * mib, 256 * gib} {
			if at < d.Size {
				d.Put(at+64, "_BHRfS_M").Put(at+299, label)
			}
		}
	}
}

// FAT32 of mkfs.fat: an EFI system partition.
func FAT32(label string) func(*Disk) {
	return func(d *Disk) {
		d.Put(0, "\xeb\x58\x90mkfs.fat").Put(11, le16(512)).Put(71, (label + "           ")[:11]).Put(82, "FAT32   ").Put(510, "\x55\xaa")
	}
}

// NTFS with its volume's name in the fourth record of the master file table.
func NTFS(label string) func(*Disk) {
	return func(d *Disk) {
		d.Put(0, "\xeb\x52\x90NTFS    ").Put(11, le16(512)+"\x08").Put(48, le64(4)).Put(64, "\xf6").Put(510, "\x55\xaa")
		name := wide(label)
		record := int64(4*4096 + 3*1024)
		d.Put(record, "FILE").Put(record+20, le16(56)).
			Put(record+56, le32(0x30)+le32(32)). // $FILE_NAME comes before
			Put(record+88, le32(0x60)+le32(uint32(24+(len(name)+7)&^7))+"\x00\x00\x18\x00\x00\x00\x00\x00"+le32(uint32(len(name)))+le16(24)+"\x00\x00"+name)
	}
}

// BitLocker of Windows 7 and later.
func BitLocker(d *Disk) {
	d.Put(0, "\xeb\x58\x90-FVE-FS-").Put(510, "\x55\xaa").Put(176, le64(32*mib)).Put(32*mib, "-FVE-FS-")
}

// ReFS begins without a jump.
func ReFS(d *Disk) { d.Put(0, "\x00\x00\x00ReFS\x00\x00\x00\x00") }

// Swap of pages of 4 KiB (mkswap(8)).
func Swap(d *Disk) { d.Put(1024, le32(1)).Put(4086, "SWAPSPACE2") }

// LUKS1 begins with its only header.
func LUKS1(d *Disk) { d.Put(0, "LUKS\xba\xbe"+be16(1)).Put(168, "9b1b7c5e-3c8e-4f0a") }

// LUKS2 has a second header, with which it is repaired where the first is gone.
func LUKS2(first bool) func(*Disk) {
	return func(d *Disk) {
		if first {
			d.Put(0, "LUKS\xba\xbe"+be16(2)+be64(16*kib)+be64(3)+"vault").Put(168, "uuid")
		}
		d.Put(16*kib, "SKUL\xba\xbe"+be16(2)+be64(16*kib)+be64(3)+"vault").Put(16*kib+256, be64(16*kib))
	}
}

// LVM is a physical volume of a volume group (lvm2, lib/format_text/layout.h).
func LVM(group string) func(*Disk) {
	return func(d *Disk) {
		const metadata = 4096
		d.Put(512, "LABELONE"+le64(1)+le32(0)+le32(32)+"LVM2 001"+strings.Repeat("u", 32)+le64(uint64(d.Size))+
			le64(mib)+le64(0)+le64(0)+le64(0)+ // data areas
			le64(metadata)+le64(mib-metadata)+le64(0)+le64(0)) // metadata areas
		d.Put(metadata, le32(0)+" LVM2 x[5A%r0N*>"+le32(1)+le64(metadata)+le64(mib-metadata)+le64(1536)+le64(900)+le32(0)+le32(0))
		d.Put(metadata+1536, group+" {\nid = \"Zq\"\nseqno = 7\n}")
	}
}

// MD is a member of a Linux array, version 1.x, with its superblock at an
// offset, from the end if it is negative (kernel, include/uapi/linux/raid/md_p.h).
func MD(name string, offset int64) func(*Disk) {
	return func(d *Disk) {
		d.Put(offset, "\xfc\x4e\x2b\xa9"+le32(1)+le32(0)+le32(0)+uuid+name)
	}
}

// MD12, MD11 and MD10 are where mdadm puts the superblock of these versions.
const MD12, MD11, MD10 = 4096, 0, -8192

// MD090 is of version 0.90, in the last 64 KiB.
func MD090(d *Disk) { d.Put(d.Size&^0xffff-0x10000, "\xfc\x4e\x2b\xa9"+le32(0)+le32(90)) }

// ZFS has four labels; which of them are there, the pool's name in all.
func ZFS(pool string, labels ...int) func(*Disk) {
	return func(d *Disk) {
		end := d.Size &^ (256*kib - 1)
		place := []int64{0, 256 * kib, end - 512*kib, end - 256*kib}
		pad := func(s string) string { return s + strings.Repeat("\x00", -len(s)&3) }
		pair := func(name, value string, kind uint32) string {
			body := be32(0) + be32(uint32(len(name))) + pad(name) + be32(kind) + be32(1) + value
			return be32(uint32(4+len(body))) + body
		}
		list := "\x01\x01\x00\x00" + be32(0) + be32(1) +
			pair("version", be64(5000), 8) + pair("name", be32(uint32(len(pool)))+pad(pool), 9) + pair("state", be64(0), 8) + pair("txg", be64(4), 8) + be64(0)
		for _, n := range labels {
			d.Put(place[n]+16*kib, list)
			for i := range int64(8) {
				d.Put(place[n]+128*kib+i*4*kib, le64(0x00bab10c)+le64(5000))
			}
		}
	}
}

// DDF is a disk of a RAID controller: the anchor is its last sector (SNIA, DDF
// 2.0 §5).
func DDF(d *Disk) { d.Put(-512, "\xde\x11\xde\x11") }

// IMSM is a disk of Intel's RST or VROC (mdadm, super-intel.c).
func IMSM(volume string) func(*Disk) {
	return func(d *Disk) {
		d.Put(-1024, "Intel Raid ISM Cfg Sig. 1.3.00").Put(-1024+0x38, "\x02\x01").Put(-1024+216+2*48, volume)
	}
}

// Ceph is a BlueStore device of ceph-volume raw, with the copies of its label
// that releases from Squid on make.
func Ceph(d *Disk) {
	for _, at := range []int64{0, gib, 10 * gib, 100 * gib, 1000 * gib} {
		if at < d.Size {
			d.Put(at, "bluestore block device\n4c3f\n")
		}
	}
}

// VMFS is a datastore: volume at 1 MiB, file system at 2 MiB.
func VMFS(name string) func(*Disk) {
	return func(d *Disk) {
		d.Put(mib, "\x0d\xd0\x01\xc0").Put(2*mib, "\x5e\xf1\xab\x2f").Put(2*mib+29, name)
	}
}

// Partition of a table.
type Partition struct {
	MiB  int64 // length
	Type string
	Name string
	In   func(*Disk) // nil: nothing is written
}

const (
	linux     = "0fc63daf-8483-4772-8e79-3d69d8477de4"
	esp       = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
	microsoft = "e3c9e316-0b5c-4db8-817d-f92df00215ae"
	solaris   = "6a898cc3-1dd2-11b2-99a6-080020736631"
	reserved  = "6a945a3b-1dd2-11b2-99a6-080020736631"
)

// GPT divides a disk, from 1 MiB on.
func GPT(sectorSize int, parts ...Partition) func(*Disk) {
	return func(d *Disk) {
		t := gpt.Table{DiskID: gpt.MustGUID("9f2d6c0e-0d36-4a8e-9a44-5a1c0f0e0b01"), SectorSize: sectorSize, Sectors: uint64(d.Size) / uint64(sectorSize)}
		next := int64(mib)
		for i, p := range parts {
			id := gpt.MustGUID("9f2d6c0e-0d36-4a8e-9a44-5a1c0f0e0b01")
			id[15] = byte(0x10 + i)
			if p.Type == "" {
				p.Type = linux
			}
			t.Partitions = append(t.Partitions, gpt.Partition{Number: i + 1, Type: gpt.MustGUID(p.Type), ID: id, Name: p.Name,
				First: uint64(next / int64(sectorSize)), Last: uint64((next+p.MiB*mib)/int64(sectorSize)) - 1})
			if p.In != nil {
				d.In(next, p.MiB*mib, p.In)
			}
			next += p.MiB * mib
		}
		image, err := t.Encode()
		if err != nil {
			panic(err)
		}
		d.Put(0, string(image.Primary)).Put(image.BackupOffset, string(image.Backup))
	}
}

// mbrSector makes a table of up to four entries {type, first MiB, MiB}; first is
// relative to where the sector counts from.
func mbrSector(entries ...[3]uint32) string {
	b := make([]byte, 512)
	for i, e := range entries {
		at := b[446+16*i:]
		at[4] = byte(e[0])
		binary.LittleEndian.PutUint32(at[8:], e[1]*2048)
		binary.LittleEndian.PutUint32(at[12:], e[2]*2048)
	}
	b[510], b[511] = 0x55, 0xaa
	return string(b)
}

func of(size int64, makes ...func(*Disk)) func() *Disk {
	return func() *Disk {
		d := New(size)
		for _, m := range makes {
			m(d)
		}
		return d
	}
}

func disk(makes ...func(*Disk)) func() *Disk { return of(Size, makes...) }

func put(offset int64, text string) func(*Disk) {
	return func(d *Disk) { d.Put(offset, text) }
}

// All are the disks of real machines, as far as their kinds are known.
var All = []Specimen{
	{"new", disk(), "empty", true},
	{"erased flash", func() *Disk { d := New(Size); d.Fill = 0xff; return d }, "empty", true},
	{"erased flash, its beginning zeroed", func() *Disk { d := New(Size); d.Fill = 0xff; return d.Put(0, strings.Repeat("\x00", 4096)) }, "empty", true},
	{"random bytes", disk(put(0, "\x8a\x11random")), "unknown data", false},
	{"its beginning wiped", disk(func(d *Disk) { d.Data = func(at int64) bool { return at > 5*gib && at < 5*gib+64*mib } }), "unknown data", false},
	{"its beginning wiped, something at the end", disk(put(-100, "x")), "unknown data", false},

	{"ext4 without a table", disk(Ext4("backup")), `ext4 "backup"`, false},
	{"XFS", disk(XFS("scratch")), `XFS "scratch"`, false},
	{"btrfs", disk(Btrfs("pool")), `btrfs "pool"`, false},
	{"NTFS without a table", disk(NTFS("Daten")), `NTFS (Windows) "Daten"`, false},
	{"BitLocker", disk(BitLocker), "BitLocker (encrypted Windows)", false},
	{"BitLocker To Go", disk(put(0, "\xeb\x58\x90MSWIN4.1"), put(82, "FAT32   "), put(440, le64(2*mib)), put(510, "\x55\xaa"), put(2*mib, "-FVE-FS-")), "BitLocker (encrypted Windows)", false},
	{"ReFS", disk(ReFS), "ReFS (Windows)", false},
	{"a stick of FAT", disk(FAT32("BACKUP")), `FAT "BACKUP"`, false},
	{"LUKS 1", disk(LUKS1), "LUKS (encrypted)", false},
	{"LUKS 2", disk(LUKS2(true)), `LUKS (encrypted) "vault"`, false},
	{"LUKS 2, its first header wiped", disk(LUKS2(false)), `LUKS (encrypted) "vault"`, false},
	{"LVM", disk(LVM("vg0")), `LVM "vg0"`, false},
	{"LVM, its metadata lost", disk(put(512, "LABELONE"+le64(1)+le32(0)+le32(32)+"LVM2 001")), "LVM", false},
	{"Ceph on LVM", disk(LVM("ceph-4c3f1b6e-02a4-4f5e")), `Ceph OSD (LVM) "ceph-4c3f1b6e-02a4-4f5e"`, false},
	{"Ceph, raw", disk(Ceph), "Ceph OSD", false},
	{"mdraid 1.2", disk(MD("nas:0", MD12)), `Linux RAID "nas:0"`, false},
	{"mdraid 1.1", disk(MD("nas:1", MD11)), `Linux RAID "nas:1"`, false},
	{"mdraid 1.0 of what has a file system", disk(Ext4("data"), MD("nas:2", MD10)), `Linux RAID "nas:2" and ext4 "data"`, false},
	{"mdraid 1.0, its beginning wiped", disk(MD("nas:3", MD10)), `Linux RAID "nas:3"`, false},
	{"mdraid 0.90", disk(MD090), "Linux RAID", false},
	{"ZFS", disk(ZFS("tank", 0, 1, 2, 3)), `ZFS pool "tank"`, false},
	{"ZFS, only its last labels left", disk(ZFS("tank", 2, 3)), `ZFS pool "tank"`, false},
	{"ZFS, odd in size", of(Size+100*kib, ZFS("tank", 3)), `ZFS pool "tank"`, false},
	{"a RAID controller's disk", disk(DDF), "DDF RAID", false},
	{"Intel VROC", disk(IMSM("Volume0")), `Intel RAID "Volume0"`, false},
	{"Intel VROC with a bootable system", disk(GPT(512, Partition{512, esp, "", FAT32("EFI")}), put(-2*512, "Intel Raid ISM Cfg Sig. 1.3.00")), `GPT, 1 partition: FAT "EFI"; Intel RAID`, false},
	{"VMware", disk(VMFS("datastore1")), `VMFS (VMware) and VMFS (VMware) "datastore1"`, false},
	{"Oracle ASM", disk(put(32, "ORCLDISKDATA01")), `Oracle ASM "DATA01"`, false},
	{"macOS", disk(put(32, "NXSB")), "APFS (macOS)", false},
	{"FreeBSD", disk(put(64*kib+1372, "\x19\x01\x54\x19"), put(64*kib+680, "root")), `UFS (BSD) "root"`, false},
	{"DRBD", disk(Ext4(""), put(-4096+60, "\x83\x74\x02\x6d")), "DRBD and ext4", false},
	{"bcache", disk(put(4096+24, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81")), "bcache", false},

	{"Debian", disk(GPT(512, Partition{512, esp, "", FAT32("")}, Partition{8192, "", "", Ext4("root")}, Partition{1024, "", "", Swap})), `GPT, 3 partitions: FAT, ext4 "root", swap`, false},
	{"Red Hat", disk(GPT(512, Partition{600, esp, "", FAT32("")}, Partition{1024, "", "", XFS("")}, Partition{12000, "", "", LVM("rhel")})), `GPT, 3 partitions: FAT, LVM "rhel", XFS`, false},
	{"Windows", disk(GPT(512, Partition{100, esp, "", FAT32("")}, Partition{16, microsoft, "", nil}, Partition{9000, "", "", BitLocker}, Partition{500, "", "", NTFS("")})),
		"GPT, 4 partitions: BitLocker (encrypted Windows), FAT, Microsoft reserved, NTFS (Windows)", false},
	{"TrueNAS", disk(GPT(512, Partition{2048, "", "", MD("swap0", MD12)}, Partition{10000, solaris, "", ZFS("tank", 0, 1, 2, 3)}, Partition{8, reserved, "", nil})),
		`GPT, 3 partitions: Linux RAID "swap0", ZFS pool "tank", ZFS reserved`, false},
	{"two mirrors of partitions", disk(GPT(512, Partition{1024, "", "", func(d *Disk) { FAT32("EFI")(d); MD("h:efi", MD10)(d) }}, Partition{9000, "", "", MD("h:0", MD12)})),
		`GPT, 2 partitions: Linux RAID "h:0", Linux RAID "h:efi" and FAT "EFI"`, false},
	{"alike and not", disk(GPT(512, Partition{100, "", "", Swap}, Partition{100, "", "", Swap}, Partition{100, "", "", nil}, Partition{100, "", "", put(50*mib, strings.Repeat("data", 3*mib))})),
		"GPT, 4 partitions: 2 × swap, empty, unknown data", false},
	{"GPT without partitions", disk(GPT(512)), "GPT, no partitions", false},
	{"GPT, only its backup left", disk(GPT(512, Partition{1024, "", "", Ext4("home")}), put(0, strings.Repeat("\x00", 34*512))), `GPT, 1 partition: ext4 "home"`, false},
	{"GPT, both wiped but for the protective MBR", disk(GPT(512, Partition{1024, "", "", Ext4("home")}), put(512, strings.Repeat("\x00", 33*512)), put(-512, strings.Repeat("\x00", 512))), "damaged GPT", false},
	{"GPT of an enclosure that shows sectors of 4 KiB", disk(GPT(4096, Partition{1024, "", "", Ext4("home")})), `GPT of sectors of 4096 bytes, 1 partition: ext4 "home"`, false},
	{"GPT of a larger disk", disk(func(d *Disk) {
		large := New(2 * Size)
		GPT(512, Partition{1024, "", "", Ext4("home")}, Partition{20000, "", "", nil})(large)
		for n, b := range large.blocks {
			if (n+1)*block <= Size {
				d.Put(n*block, string(b))
			}
		}
	}), `GPT, 2 partitions: ext4 "home", outside of the disk`, false},
	{"ZFS in front of a later GPT", disk(ZFS("old", 0, 1, 2, 3), GPT(512, Partition{2048, "", "", Ext4("new")})), `GPT, 1 partition: ext4 "new"; ZFS pool "old"`, false},

	{"MBR", disk(put(0, mbrSector([3]uint32{7, 1, 9000})), func(d *Disk) { d.In(mib, 9000*mib, NTFS("C")) }), `MBR, 1 partition: NTFS (Windows) "C"`, false},
	{"MBR with logical partitions", disk(
		put(0, mbrSector([3]uint32{0x83, 1, 1000}, [3]uint32{5, 2000, 4000})), func(d *Disk) { d.In(mib, 1000*mib, Ext4("boot")) },
		put(2000*mib, mbrSector([3]uint32{0x82, 1, 500}, [3]uint32{5, 1000, 2000})), func(d *Disk) { d.In(2001*mib, 500*mib, Swap) },
		put(3000*mib, mbrSector([3]uint32{0x83, 1, 1500})), func(d *Disk) { d.In(3001*mib, 1500*mib, LVM("debian-vg")) },
	), `MBR, 3 partitions: LVM "debian-vg", ext4 "boot", swap`, false},
	{"MBR whose logical partitions go in a circle", disk(put(0, mbrSector([3]uint32{5, 2000, 4000})), put(2000*mib, mbrSector([3]uint32{0x83, 1, 100}, [3]uint32{5, 0, 100}))),
		"MBR, 1 partition: empty", false},
	{"MBR without partitions", disk(put(0, mbrSector())), "MBR, no partitions", false},
	{"boot code alone", disk(put(0, "\xeb\x63\x90GRUB"), put(446, "\x13"), put(510, "\x55\xaa")), "unknown data", false},
	{"an ISO written to it", disk(put(0, mbrSector([3]uint32{0x17, 0, 700})), put(32*kib+1, "CD001"), put(32*kib+40, "Debian 13                       ")),
		`MBR, 1 partition: ISO 9660 "Debian 13"; ISO 9660 "Debian 13"`, false},
	{"Windows dynamic disk", disk(put(0, mbrSector([3]uint32{0x42, 1, 9000})), put(6*512, "PRIVHEAD")), "MBR, 1 partition: empty; Windows dynamic disk", false},

	{"Rackseed, cut off", disk(GPT(512, Node("rs-data-new")...), Ext4("x")), "broken-off Rackseed install", false},
	{"Rackseed's node", disk(GPT(512, Node("rs-data node-1")...)), "Rackseed node node-1", false},
	{"Rackseed's node of a long name", disk(GPT(512, Node("rs-data a-name-with-twenty-eight-cha")...)), "Rackseed node a-name-with-twenty-eight-cha", false},
	{"Rackseed's node of a name that is none", disk(GPT(512, Node("rs-data \u202e")...)), `Rackseed node "\u202e"`, false},
	{"not quite Rackseed's", disk(GPT(512, Node("rs-database")...)), `GPT, 5 partitions: 3 × empty, FAT "RS-ESP", ext4 "rs-data"`, false},
}

// Node is the table of a node of Rackseed's.
func Node(data string) []Partition {
	return []Partition{{1, "", "rs-bios", nil}, {1024, esp, "rs-esp", FAT32("RS-ESP")}, {4096, "", "rs-root-a", nil}, {4096, "", "rs-root-b", nil}, {7000, "", data, Ext4("rs-data")}}
}
