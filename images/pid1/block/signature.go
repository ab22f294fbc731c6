package block

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"unicode/utf16"
)

// Signature is what the first bytes of a device (for some, the last) say is on
// it. Type "" means that nothing known was recognised.
type Signature struct {
	Type  string // as blkid names it: "ext4", "vfat", "LVM2_member", "zfs_member" …
	Label string // of a RAID member, a volume group's or a pool's: its name
	UUID  string
}

// head covers the magics near the front, up to btrfs at 64 KiB.
const head = 68 << 10

// Probe recognises file systems, RAID members, volume managers and encryption.
// Of several on one device the one that claims the whole comes first: a RAID
// member begins with what the array holds.
func Probe(r io.ReaderAt, size int64) (Signature, error) {
	all, err := ProbeAll(r, size)
	if len(all) == 0 {
		return Signature{}, err
	}
	return all[0], err
}

// ProbeAll is Probe for all that is on a device, as wipefs lists it: what was
// there before may shine through what is there now. What was recognised is
// returned with an error too.
//
// It is our own and not libblkid or a Go library: siderolabs/go-blockdevice
// knows neither RAID members nor btrfs, NTFS or MBR, and libblkid tells neither
// a volume group's name nor more than one answer about a part of a disk, and is
// no function of bytes. A host test compares it with libblkid.
func ProbeAll(r io.ReaderAt, size int64) ([]Signature, error) {
	b := make([]byte, min(head, size))
	if _, err := r.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading the first %d bytes: %w", len(b), err)
	}
	p := &prober{r: r, size: size, head: b}
	var all []Signature
	for _, try := range []func() []Signature{
		p.linuxRAID, p.intelRAID, p.zfs, p.lvm, p.luks, func() []Signature { return p.magics(claims) },
		one(p.ext), one(p.iso9660), one(p.swap), func() []Signature { return p.magics(fileSystems) }, one(p.boot), func() []Signature { return p.magics(tables) },
	} {
		all = append(all, try()...)
	}
	return all, p.err
}

func one(try func() (Signature, bool)) func() []Signature {
	return func() []Signature {
		if s, ok := try(); ok {
			return []Signature{s}
		}
		return nil
	}
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
	case offset < 0 || offset > p.size-int64(n):
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

func (p *prober) text(offset int64, n int) string { return text(p.at(offset, n)) }

// text is what is in a field that is filled up with zeros or spaces.
func text(b []byte) string {
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

func (p *prober) ext() (Signature, bool) {
	if !p.is(1024+56, "\x53\xef") {
		return Signature{}, false
	}
	return Signature{Type: extType(p.at(1024, 256)), UUID: p.uuid(1024 + 104), Label: p.text(1024+120, 16)}, true
}

func (p *prober) iso9660() (Signature, bool) {
	if !p.is(32<<10+1, "CD001") {
		return Signature{}, false
	}
	return Signature{Type: "iso9660", Label: p.text(32<<10+40, 32), UUID: isoUUID(p.at(32<<10, 2048))}, true
}

// swap has its magic at the end of a page, whatever the machine's pages were.
func (p *prober) swap() (Signature, bool) {
	for page := int64(4 << 10); page <= 64<<10; page *= 2 {
		for _, magic := range []string{"SWAPSPACE2", "SWAP-SPACE"} {
			if p.is(page-10, magic) {
				return Signature{Type: "swap", UUID: p.uuid(1024 + 12), Label: p.text(1024+28, 16)}, true
			}
		}
		for _, magic := range []string{"S1SUSPEND", "S2SUSPEND", "ULSUSPEND", "LINHIB0001"} {
			if p.is(page-10, magic) {
				return Signature{Type: "swsuspend"}, true
			}
		}
	}
	return Signature{}, false
}

// extType tells the three apart by the superblock's features: what only ext4
// has, then the journal.
func extType(super []byte) string {
	compat, incompat, ro := binary.LittleEndian.Uint32(super[92:]), binary.LittleEndian.Uint32(super[96:]), binary.LittleEndian.Uint32(super[100:])
	switch {
	case incompat&0x8 != 0:
		return "jbd" // the journal of another file system
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

// boot recognises what begins with a boot sector.
func (p *prober) boot() (Signature, bool) {
	switch {
	case p.is(3, "-FVE-FS-"), p.is(3, "MSWIN4.1") && p.is(int64(binary.LittleEndian.Uint64(p.at(440, 8))&math.MaxInt64), "-FVE-FS-"):
		return Signature{Type: "BitLocker"}, true
	case p.is(3, "NTFS    "):
		return Signature{Type: "ntfs", Label: p.ntfsLabel()}, true
	case p.is(3, "EXFAT   "):
		return Signature{Type: "exfat"}, true
	case p.is(0, "\x00\x00\x00ReFS\x00"):
		return Signature{Type: "ReFS"}, true
	case p.is(82, "FAT32"):
		return Signature{Type: "vfat", Label: fatLabel(p.text(71, 11)), UUID: p.fatID(67)}, true
	case p.is(54, "FAT12"), p.is(54, "FAT16"), p.is(54, "FAT     "):
		return Signature{Type: "vfat", Label: fatLabel(p.text(43, 11)), UUID: p.fatID(39)}, true
	}
	return Signature{}, false
}

// ntfsLabel reads the attribute $VOLUME_NAME (0x60) of the master file table's
// fourth record, as libblkid does.
func (p *prober) ntfsLabel() string {
	le := binary.LittleEndian
	b := p.at(0, 512)
	cluster := int64(le.Uint16(b[11:])) * int64(b[13])
	record := int64(int8(b[64])) * cluster // in clusters, or as a power of two
	if shift := -int8(b[64]); shift > 0 && shift < 16 {
		record = 1 << shift
	}
	table := le.Uint64(b[48:])
	if cluster <= 0 || cluster > 2<<20 || record < 512 || record > 64<<10 || table > uint64(p.size/cluster) {
		return ""
	}
	r := p.at(int64(table)*cluster+3*record, int(record))
	if string(r[:4]) != "FILE" {
		return ""
	}
	for at := int(le.Uint16(r[20:])); at+24 <= len(r); {
		kind, size := le.Uint32(r[at:]), int(le.Uint32(r[at+4:]))
		if kind == 0xffffffff || size < 24 || at+size > len(r) {
			break
		}
		if kind == 0x60 {
			n, offset := int(le.Uint32(r[at+16:])), int(le.Uint16(r[at+20:]))
			if n > 256 || offset+n > size {
				break
			}
			return utf16Text(r[at+offset : at+offset+n])
		}
		at += size
	}
	return ""
}

// utf16Text reads little-endian UTF-16 up to a zero.
func utf16Text(b []byte) string {
	var units []uint16
	for i := 0; i+1 < len(b); i += 2 {
		u := binary.LittleEndian.Uint16(b[i:])
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	return strings.TrimSpace(string(utf16.Decode(units)))
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
