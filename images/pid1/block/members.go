package block

import (
	"bytes"
	"encoding/binary"
	"slices"
)

// linuxRAID finds members of arrays of mdadm (md(4)): metadata 1.1 and 1.2 at
// the front, 1.0 and 0.90 at the end. Only version 1 has a name.
func (p *prober) linuxRAID() []Signature {
	const magic = "\xfc\x4e\x2b\xa9"
	for _, offset := range []int64{0, 4096, (p.size - 8192) &^ 4095, p.size&^0xffff - 0x10000} {
		if offset < 0 {
			continue
		}
		if p.is(offset, "\xa9\x2b\x4e\xfc") { // 0.90 of a big-endian machine
			return []Signature{{Type: "linux_raid_member"}}
		}
		if !p.is(offset, magic) {
			continue
		}
		s := Signature{Type: "linux_raid_member"}
		if binary.LittleEndian.Uint32(p.at(offset+4, 4)) == 1 {
			s.UUID, s.Label = p.uuid(offset+16), p.text(offset+32, 32)
		}
		return []Signature{s}
	}
	return nil
}

// intelRAID finds members of Intel's firmware RAID (IMSM; mdadm,
// super-intel.c): after the header of 216 bytes come disks of 48 each, then the
// volumes, which begin with their name. Only what is in the first sector is
// read.
func (p *prober) intelRAID() []Signature {
	const header, perDisk, name = 216, 48, 16
	b := p.at(-1024, 512)
	if !bytes.HasPrefix(b, []byte("Intel Raid ISM Cfg Sig. ")) {
		return nil
	}
	s := Signature{Type: "isw_raid_member"}
	disks, volumes := int(b[0x38]), int(b[0x39])
	if at := header + disks*perDisk; volumes > 0 && at+name <= len(b) {
		s.Label = text(b[at : at+name])
	}
	return []Signature{s}
}

// ZFS keeps four labels of 256 KiB, two at each end of what the pool uses:
// from 16 KiB on a list of names and values in XDR, from 128 KiB on a ring of
// uberblocks (OpenZFS, include/sys/vdev_impl.h).
const (
	zfsLabel     = 256 << 10
	zfsPairs     = 16 << 10
	zfsPairsSize = 112 << 10
	zfsRing      = 128 << 10
	zfsUberblock = 0x00bab10c
)

func (p *prober) zfs() []Signature {
	end := p.size &^ (zfsLabel - 1)
	if p.size < 4*zfsLabel {
		return nil
	}
	found := false
	for _, label := range []int64{0, zfsLabel, end - 2*zfsLabel, end - zfsLabel} {
		if name := zfsPool(p.at(label+zfsPairs, zfsPairsSize)); name != "" {
			return []Signature{{Type: "zfs_member", Label: name}}
		}
		ring := p.at(label+zfsRing, zfsLabel-zfsRing)
		for i := 0; i < len(ring) && !found; i += 1024 {
			found = binary.LittleEndian.Uint64(ring[i:]) == zfsUberblock || binary.BigEndian.Uint64(ring[i:]) == zfsUberblock
		}
	}
	if found {
		return []Signature{{Type: "zfs_member"}}
	}
	return nil
}

// zfsPool reads the pool's name from a label's list: header of 12 bytes, then
// pairs of (size, size in memory, length of the name, name, type, number,
// value), big-endian, names and texts padded to four bytes. "" if it is none.
func zfsPool(b []byte) string {
	const stringType = 9
	be := binary.BigEndian
	if b[0] != 1 { // NV_ENCODE_XDR
		return ""
	}
	padded := func(n uint32) uint32 { return (n + 3) &^ 3 }
	for at := 12; at+12 <= len(b); {
		size := be.Uint32(b[at:])
		if size < 20 || uint64(at)+uint64(size) > uint64(len(b)) {
			return ""
		}
		pair := b[at : at+int(size)]
		at += int(size)
		n := be.Uint32(pair[8:])
		if n > 256 || 12+uint64(padded(n))+12 > uint64(size) {
			continue
		}
		value := pair[12+padded(n):]
		if string(pair[12:12+n]) != "name" || be.Uint32(value) != stringType {
			continue
		}
		if m := be.Uint32(value[8:]); m <= 256 && uint64(m) <= uint64(len(value)-12) {
			return text(value[12 : 12+m])
		}
	}
	return ""
}

// lvm finds a physical volume of LVM2. Its label is in one of the first four
// sectors; behind it is where the metadata is, which begins with the volume
// group's name (lvm2, lib/format_text/layout.h).
func (p *prober) lvm() []Signature {
	for sector := range int64(4) {
		label := p.at(sector*512, 512)
		if string(label[:8]) == "LABELONE" && string(label[24:32]) == "LVM2 001" {
			return []Signature{{Type: "LVM2_member", Label: p.volumeGroup(label)}}
		}
	}
	return nil
}

func (p *prober) volumeGroup(label []byte) string {
	const areaHeader = " LVM2 x[5A%r0N*>"
	le := binary.LittleEndian
	at := uint64(le.Uint32(label[20:])) + 40 // behind the volume's UUID and size
	var areas []int64
	for list := 0; list < 2 && at+16 <= uint64(len(label)); at += 16 { // data areas, then metadata areas
		offset := le.Uint64(label[at:])
		switch {
		case offset == 0:
			list++
		case list == 1 && offset < uint64(p.size):
			areas = append(areas, int64(offset))
		}
	}
	for _, area := range areas {
		h := p.at(area, 512)
		if string(h[4:20]) != areaHeader {
			continue
		}
		size, first := le.Uint64(h[32:]), le.Uint64(h[40:])
		if first < 512 || first >= size || size > uint64(p.size) {
			continue
		}
		if name, _, ok := bytes.Cut(p.at(area+int64(first), 160), []byte(" {")); ok && len(name) <= 127 && !slices.ContainsFunc(name, notInName) {
			return string(name)
		}
	}
	return ""
}

// notInName says whether a byte cannot be in a volume group's name (lvm(8)).
func notInName(c byte) bool {
	return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || bytes.IndexByte([]byte("+_.-"), c) >= 0)
}

// luks finds encryption by LUKS; of version 2 also by the second header alone,
// which is at one of these places (LUKS2 on-disk format, §2.1).
func (p *prober) luks() []Signature {
	const version2 = 2
	if p.is(0, "LUKS\xba\xbe") {
		s := Signature{Type: "crypto_LUKS", UUID: p.text(168, 40)}
		if binary.BigEndian.Uint16(p.at(6, 2)) == version2 {
			s.Label = p.text(24, 48)
		}
		return []Signature{s}
	}
	for offset := int64(16 << 10); offset <= 4<<20; offset *= 2 {
		h := p.at(offset, 512)
		if string(h[:6]) == "SKUL\xba\xbe" && binary.BigEndian.Uint64(h[256:]) == uint64(offset) {
			return []Signature{{Type: "crypto_LUKS", UUID: text(h[168:208]), Label: text(h[24:72])}}
		}
	}
	return nil
}
