package block

import "slices"

// magic is a signature that is told by bytes at a place. Offsets are in bytes;
// negative ones count from the device's end. Where a Type has several magics,
// the first that is there counts.
type magic struct {
	kind   string
	offset int64
	bytes  string
	label  int64 // where its name is, from the device's beginning; 0: nowhere
	length int   // of the name's field
}

const (
	sector      = 512
	bcacheSB    = 4096
	bcachefsSB2 = 2 << 20
	vmfsSB      = 2 << 20
)

// claims are members of arrays, pools and volume managers, and encryption: they
// claim the whole device. Places and magics are those of libblkid
// (util-linux, libblkid/src/superblocks).
var claims = append(promiseMembers(), []magic{
	{"ddf_raid_member", -sector, "\xde\x11\xde\x11", 0, 0},
	{"ddf_raid_member", -257 * sector, "\xde\x11\xde\x11", 0, 0},
	{"lsi_mega_raid_member", -sector, "$XIDE$", 0, 0},
	{"nvidia_raid_member", -2 * sector, "NVIDIA  ", 0, 0},
	{"adaptec_raid_member", -sector, "\x37\xfc\x4d\x1e", 0, 0},
	{"hpt37x_raid_member", 4608 + 32, "\xf0\x16\x78\x5a", 0, 0},
	{"hpt37x_raid_member", 4608 + 32, "\xfd\x16\x78\x5a", 0, 0},
	{"hpt45x_raid_member", -11 * sector, "\xf3\x16\x78\x5a", 0, 0},
	{"hpt45x_raid_member", -11 * sector, "\xfd\x16\x78\x5a", 0, 0},
	{"ceph_bluestore", 0, "bluestore block device", 0, 0},
	{"VMFS_volume_member", 1 << 20, "\x0d\xd0\x01\xc0", 0, 0},
	{"VMFS", vmfsSB, "\x5e\xf1\xab\x2f", vmfsSB + 29, 128},
	{"bcache", bcacheSB + 24, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81", bcacheSB + 72, 32},
	{"bcachefs", bcacheSB + 24, bcachefs, bcacheSB + 72, 32},
	{"bcachefs", bcachefsSB2 + 24, bcachefs, bcachefsSB2 + 72, 32},
	{"bcachefs", -(1 << 20) + 24, bcachefs, 0, 0},
	{"stratis", 512 + 4, stratis, 0, 0},
	{"stratis", 9*512 + 4, stratis, 0, 0},
	{"vdo", 0, "dmvdo001", 0, 0},
	{"drbd", -4096 + 60, "\x83\x74\x02\x6b", 0, 0},
	{"drbd", -4096 + 60, "\x83\x74\x02\x6c", 0, 0},
	{"drbd", -4096 + 60, "\x83\x74\x02\x6d", 0, 0},
	{"oracleasm", 32, "ORCLDISK", 40, 24},
	{"ldm", 6 * sector, "PRIVHEAD", 0, 0},
	{"ldm", -sector, "PRIVHEAD", 0, 0},
	{"DM_integrity", 0, "integrt\x00", 0, 0},
}...)

// promiseMembers are where Promise's controllers put their metadata, in sectors
// from the end, each model at a place of its own.
func promiseMembers() []magic {
	var list []magic
	for _, n := range []int64{16, 63, 255, 256, 399, 591, 675, 735, 911, 951, 974, 991, 3087} {
		list = append(list, magic{"promise_fasttrack_raid_member", -n * sector, "Promise Technology, Inc.", 0, 0})
	}
	return list
}

const (
	bcachefs = "\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef"
	stratis  = "!Stra0tis\x86\xff\x02^\x41rh"
)

var fileSystems = []magic{
	{"xfs", 0, "XFSB", 108, 12},
	{"btrfs", 64<<10 + 64, "_BHRfS_M", 64<<10 + 299, 256},
	{"erofs", 1024, "\xe2\xe1\xf5\xe0", 1024 + 64, 16},
	{"squashfs", 0, "hsqs", 0, 0},
	{"f2fs", 1024, "\x10\x20\xf5\xf2", 0, 0},
	{"jfs", 32 << 10, "JFS1", 32<<10 + 152, 16},
	{"reiserfs", 64<<10 + 52, "ReIsErFs", 64<<10 + 100, 16},
	{"reiserfs", 64<<10 + 52, "ReIsEr2Fs", 64<<10 + 100, 16},
	{"reiserfs", 64<<10 + 52, "ReIsEr3Fs", 64<<10 + 100, 16},
	{"reiser4", 64 << 10, "ReIsEr4", 64<<10 + 36, 16},
	{"gfs2", 64 << 10, "\x01\x16\x19\x70", 0, 0},
	{"ocfs2", 1 << 10, "OCFSV2", 0, 0},
	{"ocfs2", 2 << 10, "OCFSV2", 0, 0},
	{"ocfs2", 4 << 10, "OCFSV2", 0, 0},
	{"ocfs2", 8 << 10, "OCFSV2", 0, 0},
	{"apfs", 32, "NXSB", 0, 0},
	{"ufs", 8<<10 + ufsMagic, "\x54\x19\x01\x00", 0, 0},
	{"ufs", 8<<10 + ufsMagic, "\x00\x01\x19\x54", 0, 0},
	{"ufs", 64<<10 + ufsMagic, "\x19\x01\x54\x19", 64<<10 + 680, 32},
	{"vxfs", 1 << 10, "\xf5\xfc\x01\xa5", 0, 0},
	{"vxfs", 8 << 10, "\xa5\x01\xfc\xf5", 0, 0},
	{"udf", 32<<10 + 1, "BEA01", 0, 0},
	{"nss", 4 << 10, "SPB5", 0, 0},
	{"zonefs", 0, "SFOZ", 8, 32},
	{"nilfs2", 1024, "\x02\x00\x00\x00\x00\x00\x34\x34", 0, 0},
	{"hfsplus", 1024, "H+\x00\x04", 0, 0},
	{"hfsplus", 1024, "HX\x00\x05", 0, 0},
}

// ufsMagic is fs_magic's place in the superblock (FreeBSD, sys/ufs/ffs/fs.h).
const ufsMagic = 1372

// tables are partition tables other than GPT and MBR.
var tables = []magic{
	{"mac", 512, "PM\x00\x00", 0, 0},
	{"sgi", 0, "\x0b\xe5\xa9\x41", 0, 0},
	{"bsd", 512, "\x57\x45\x56\x82", 0, 0},
	{"aix", 0, "\xc9\xc2\xd4\xc1", 0, 0},
}

func (p *prober) magics(list []magic) []Signature {
	var found []Signature
	for _, m := range list {
		if !p.is(m.offset, m.bytes) || slices.ContainsFunc(found, func(s Signature) bool { return s.Type == m.kind }) {
			continue
		}
		s := Signature{Type: m.kind}
		if m.length > 0 {
			s.Label = p.text(m.label, m.length)
		}
		switch m.kind {
		case "xfs":
			s.UUID = p.uuid(32)
		case "btrfs":
			s.UUID = p.uuid(64<<10 + 32)
		case "erofs":
			s.UUID = p.uuid(1024 + 48)
		case "f2fs":
			s.Label = utf16Text(p.at(1024+124, 128))
		}
		found = append(found, s)
	}
	return found
}
