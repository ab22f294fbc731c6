package block

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Signature is what the first bytes of a device (for some, the last) say is on
// it. Type "" means that nothing known was recognised.
type Signature struct {
	Type  string // as blkid names it: "ext4", "vfat", "LVM2_member", "zfs_member" …
	Label string
	UUID  string
}

// head covers the magics near the front, up to btrfs at 64 KiB.
const head = 68 << 10

// Probe recognises file systems, RAID members, volume managers and encryption.
// Of several on one device the one that claims the whole comes first: a RAID
// member begins with what the array holds.
func Probe(r io.ReaderAt, size int64) (Signature, error) {
	b := make([]byte, min(head, size))
	if _, err := r.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return Signature{}, fmt.Errorf("reading the first %d bytes: %w", len(b), err)
	}
	p := &prober{r: r, size: size, head: b}
	for _, try := range []func() (Signature, bool){p.raid, p.zfs, p.container, p.filesystem, p.dos} {
		if s, ok := try(); ok {
			return s, p.err
		}
	}
	return Signature{}, p.err
}

type prober struct {
	r    io.ReaderAt
	size int64
	head []byte
	err  error // of a read beyond the head
}

// at returns n bytes at an offset, negative ones from the end; zeros where the
// device is too small.
func (p *prober) at(offset int64, n int) []byte {
	b := make([]byte, n)
	if offset < 0 {
		offset += p.size
	}
	switch {
	case offset < 0 || offset+int64(n) > p.size:
	case offset+int64(n) <= int64(len(p.head)):
		copy(b, p.head[offset:])
	default:
		if _, err := p.r.ReadAt(b, offset); err != nil && !errors.Is(err, io.EOF) && p.err == nil {
			p.err = fmt.Errorf("reading at byte %d: %w", offset, err)
		}
	}
	return b
}

func (p *prober) is(offset int64, magic string) bool {
	return string(p.at(offset, len(magic))) == magic
}

func (p *prober) text(offset int64, n int) string {
	b := p.at(offset, n)
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return strings.TrimSpace(strings.ToValidUTF8(string(b), "?"))
}

func (p *prober) uuid(offset int64) string {
	b := p.at(offset, 16)
	if bytes.Count(b, []byte{0}) == 16 {
		return ""
	}
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func (p *prober) raid() (Signature, bool) {
	const md = "\xfc\x4e\x2b\xa9"
	for _, offset := range []int64{0, 4096, (p.size - 8192) &^ 4095, p.size&^0xffff - 0x10000} {
		if offset >= 0 && p.is(offset, md) {
			return Signature{Type: "linux_raid_member", UUID: p.uuid(offset + 16), Label: p.text(offset+32, 32)}, true
		}
	}
	switch {
	case p.is(-512, "\xde\x11\xde\x11"):
		return Signature{Type: "ddf_raid_member"}, true
	case p.is(-1024, "Intel Raid ISM Cfg Sig. "):
		return Signature{Type: "isw_raid_member"}, true
	}
	return Signature{}, false
}

// zfs looks for an uberblock in the rings of the two front labels (256 KiB
// each, the ring in the second half).
func (p *prober) zfs() (Signature, bool) {
	for _, label := range []int64{0, 256 << 10} {
		ring := p.at(label+128<<10, 128<<10)
		for i := 0; i < len(ring); i += 1024 {
			if le, be := binary.LittleEndian.Uint64(ring[i:]), binary.BigEndian.Uint64(ring[i:]); le == 0x00bab10c || be == 0x00bab10c {
				return Signature{Type: "zfs_member"}, true
			}
		}
	}
	return Signature{}, false
}

func (p *prober) container() (Signature, bool) {
	for sector := range int64(4) {
		if p.is(sector*512, "LABELONE") && p.is(sector*512+24, "LVM2 001") {
			return Signature{Type: "LVM2_member"}, true
		}
	}
	switch {
	case p.is(0, "LUKS\xba\xbe"):
		return Signature{Type: "crypto_LUKS", UUID: p.text(168, 40), Label: p.text(24, 48)}, true
	case p.is(0, "bluestore block device"):
		return Signature{Type: "ceph_bluestore"}, true
	case p.is(1<<20, "\x0d\xd0\x01\xc0"):
		return Signature{Type: "VMFS_volume_member"}, true
	case p.is(4096+24, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"):
		return Signature{Type: "bcache"}, true
	}
	return Signature{}, false
}

func (p *prober) filesystem() (Signature, bool) {
	switch {
	case p.is(1024+56, "\x53\xef"):
		return Signature{Type: extType(p.at(1024, 256)), UUID: p.uuid(1024 + 104), Label: p.text(1024+120, 16)}, true
	case p.is(0, "XFSB"):
		return Signature{Type: "xfs", UUID: p.uuid(32), Label: p.text(108, 12)}, true
	case p.is(64<<10+64, "_BHRfS_M"):
		return Signature{Type: "btrfs", UUID: p.uuid(64<<10 + 32), Label: p.text(64<<10+299, 256)}, true
	case p.is(1024, "\xe2\xe1\xf5\xe0"):
		return Signature{Type: "erofs", UUID: p.uuid(1024 + 48), Label: p.text(1024+64, 16)}, true
	case p.is(0, "hsqs"):
		return Signature{Type: "squashfs"}, true
	case p.is(32<<10+1, "CD001"):
		return Signature{Type: "iso9660", Label: p.text(32<<10+40, 32), UUID: isoUUID(p.at(32<<10, 2048))}, true
	case p.is(4096-10, "SWAPSPACE2"), p.is(65536-10, "SWAPSPACE2"):
		return Signature{Type: "swap", UUID: p.uuid(1024 + 12), Label: p.text(1024+28, 16)}, true
	}
	return Signature{}, false
}

// extType tells the three apart by the superblock's features: what only ext4
// has, then the journal.
func extType(super []byte) string {
	compat, incompat, ro := binary.LittleEndian.Uint32(super[92:]), binary.LittleEndian.Uint32(super[96:]), binary.LittleEndian.Uint32(super[100:])
	switch {
	case incompat&^uint32(0x16) != 0 || ro&^uint32(0x7) != 0:
		return "ext4"
	case compat&0x4 != 0:
		return "ext3"
	}
	return "ext2"
}

// isoUUID is blkid's: the volume's modification date, or its creation date
// where that is not set (ECMA-119 §8.4.26), as 2026-11-24-12-00-00-00.
func isoUUID(volume []byte) string {
	for _, offset := range []int{830, 813} {
		d := volume[offset : offset+16]
		if strings.Trim(string(d), "0\x00 ") != "" {
			return fmt.Sprintf("%s-%s-%s-%s-%s-%s-%s", d[:4], d[4:6], d[6:8], d[8:10], d[10:12], d[12:14], d[14:16])
		}
	}
	return ""
}

// dos recognises what begins with a boot sector.
func (p *prober) dos() (Signature, bool) {
	switch {
	case p.is(3, "NTFS    "):
		return Signature{Type: "ntfs"}, true
	case p.is(3, "EXFAT   "):
		return Signature{Type: "exfat"}, true
	case p.is(3, "-FVE-FS-"):
		return Signature{Type: "BitLocker"}, true
	case p.is(3, "ReFS\x00"):
		return Signature{Type: "ReFS"}, true
	case p.is(82, "FAT32"):
		return Signature{Type: "vfat", Label: fatLabel(p.text(71, 11)), UUID: p.fatID(67)}, true
	case p.is(54, "FAT12"), p.is(54, "FAT16"):
		return Signature{Type: "vfat", Label: fatLabel(p.text(43, 11)), UUID: p.fatID(39)}, true
	}
	return Signature{}, false
}

func fatLabel(s string) string {
	if s == "NO NAME" {
		return ""
	}
	return s
}

func (p *prober) fatID(offset int64) string {
	id := binary.LittleEndian.Uint32(p.at(offset, 4))
	return fmt.Sprintf("%04X-%04X", id>>16, id&0xffff)
}
