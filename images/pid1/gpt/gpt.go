// Package gpt reads and writes GUID partition tables (UEFI 2.10, chapter 5).
// It knows bytes only; opening disks and telling the kernel are its callers'.
package gpt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"unicode/utf16"
)

const (
	signature  = "EFI PART"
	headerSize = 92
	entrySize  = 128
	entries    = 128 // what every implementation writes
	maxEntries = 1024
)

// ErrNone says that there is no valid table, neither at the front nor at the end.
var ErrNone = errors.New("no GUID partition table")

// Partition is one entry. First and Last are sectors, both inclusive.
type Partition struct {
	Number     int // from 1
	Type       GUID
	ID         GUID // the kernel's PARTUUID
	First      uint64
	Last       uint64
	Attributes uint64
	Name       string // at most 36 UTF-16 units
}

// Table is a partition table of a disk of Sectors sectors of SectorSize bytes.
type Table struct {
	DiskID     GUID
	SectorSize int
	Sectors    uint64
	Partitions []Partition
}

// Image is what has to be written, in this order: a disk that loses power in
// between has one valid table or none, never a wrong one.
type Image struct {
	Backup       []byte // entries and header at the disk's end
	BackupOffset int64  // bytes
	Primary      []byte // protective MBR, header and entries, at offset 0
}

func entrySectors(sectorSize int) uint64 {
	return uint64((entries*entrySize + sectorSize - 1) / sectorSize)
}

// FirstUsable and LastUsable bound the sectors that partitions may take.
func (t Table) FirstUsable() uint64 { return 2 + entrySectors(t.SectorSize) }

// LastUsable is the last sector before the backup table.
func (t Table) LastUsable() uint64 { return t.Sectors - 2 - entrySectors(t.SectorSize) }

// Check says whether the table can be written: partitions inside the usable
// sectors, in no other's way, numbered once.
func (t Table) Check() error {
	if t.SectorSize < 512 || t.SectorSize&(t.SectorSize-1) != 0 {
		return fmt.Errorf("partition table: a sector size of %d bytes is not a power of two from 512", t.SectorSize)
	}
	if t.Sectors < 3+2*entrySectors(t.SectorSize) {
		return fmt.Errorf("partition table: a disk of %d sectors is too small for one", t.Sectors)
	}
	for i, p := range t.Partitions {
		switch {
		case p.Number < 1 || p.Number > entries:
			return fmt.Errorf("partition %d: numbers go from 1 to %d", p.Number, entries)
		case p.First < t.FirstUsable() || p.Last > t.LastUsable() || p.First > p.Last:
			return fmt.Errorf("partition %d: sectors %d to %d do not lie within %d to %d", p.Number, p.First, p.Last, t.FirstUsable(), t.LastUsable())
		case len(utf16.Encode([]rune(p.Name))) > 36:
			return fmt.Errorf("partition %d: the name %q is longer than 36 characters", p.Number, p.Name)
		case p.Type == GUID{}:
			return fmt.Errorf("partition %d: has no type", p.Number)
		}
		for _, q := range t.Partitions[:i] {
			if q.Number == p.Number || q.ID == p.ID {
				return fmt.Errorf("partition %d: its number or GUID is used twice", p.Number)
			}
			if p.First <= q.Last && q.First <= p.Last {
				return fmt.Errorf("partition %d: overlaps partition %d", p.Number, q.Number)
			}
		}
	}
	return nil
}

// Encode lays the table out.
func (t Table) Encode() (Image, error) {
	if err := t.Check(); err != nil {
		return Image{}, err
	}
	ss, es := t.SectorSize, entrySectors(t.SectorSize)
	array := make([]byte, entries*entrySize)
	for _, p := range t.Partitions {
		encodeEntry(array[(p.Number-1)*entrySize:], p)
	}
	crc := crc32.ChecksumIEEE(array)
	last := t.Sectors - 1

	primary := make([]byte, (2+int(es))*ss)
	copy(primary, protectiveMBR(t.Sectors))
	t.encodeHeader(primary[ss:], 1, last, 2, crc)
	copy(primary[2*ss:], array)

	backup := make([]byte, (int(es)+1)*ss)
	copy(backup, array)
	t.encodeHeader(backup[int(es)*ss:], last, 1, last-es, crc)
	return Image{Backup: backup, BackupOffset: int64(last-es) * int64(ss), Primary: primary}, nil
}

func encodeEntry(b []byte, p Partition) {
	kind, id := p.Type.Disk(), p.ID.Disk()
	copy(b, kind[:])
	copy(b[16:], id[:])
	binary.LittleEndian.PutUint64(b[32:], p.First)
	binary.LittleEndian.PutUint64(b[40:], p.Last)
	binary.LittleEndian.PutUint64(b[48:], p.Attributes)
	for i, u := range utf16.Encode([]rune(p.Name)) {
		binary.LittleEndian.PutUint16(b[56+2*i:], u)
	}
}

func (t Table) encodeHeader(b []byte, my, other, array uint64, crc uint32) {
	le := binary.LittleEndian
	copy(b, signature)
	le.PutUint32(b[8:], 0x00010000)
	le.PutUint32(b[12:], headerSize)
	le.PutUint64(b[24:], my)
	le.PutUint64(b[32:], other)
	le.PutUint64(b[40:], t.FirstUsable())
	le.PutUint64(b[48:], t.LastUsable())
	id := t.DiskID.Disk()
	copy(b[56:], id[:])
	le.PutUint64(b[72:], array)
	le.PutUint32(b[80:], entries)
	le.PutUint32(b[84:], entrySize)
	le.PutUint32(b[88:], crc)
	le.PutUint32(b[16:], crc32.ChecksumIEEE(b[:headerSize]))
}

// protectiveMBR covers the disk, as far as 32 bits reach, with one partition of
// type 0xEE (UEFI 2.10 §5.2.3). Its boot code is empty.
func protectiveMBR(sectors uint64) []byte {
	b := make([]byte, 512)
	copy(b[446:], []byte{0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff, 1, 0, 0, 0})
	binary.LittleEndian.PutUint32(b[458:], uint32(min(sectors-1, 0xffffffff)))
	b[510], b[511] = 0x55, 0xaa
	return b
}

// Read reads the primary table, or the backup at the end of a disk of bytes
// bytes when the primary is not valid. ErrNone if neither is.
func Read(r io.ReaderAt, bytes int64, sectorSize int) (Table, error) {
	if sectorSize < 512 || bytes < 6*int64(sectorSize) {
		return Table{}, ErrNone
	}
	sectors := uint64(bytes) / uint64(sectorSize)
	for _, lba := range []uint64{1, sectors - 1} {
		t, err := readAt(r, lba, sectors, sectorSize)
		if err == nil {
			return t, nil
		}
		if !errors.Is(err, ErrNone) {
			return Table{}, err
		}
	}
	return Table{}, ErrNone
}

// ReadBoth reads the primary table and the one at the disk's end; nil is one
// that is not valid. Where they differ, the disk had another table once.
func ReadBoth(r io.ReaderAt, bytes int64, sectorSize int) (primary, backup *Table, err error) {
	if sectorSize < 512 || bytes < 6*int64(sectorSize) {
		return nil, nil, nil
	}
	sectors := uint64(bytes) / uint64(sectorSize)
	for _, c := range []struct {
		lba  uint64
		into **Table
	}{{1, &primary}, {sectors - 1, &backup}} {
		t, err := readAt(r, c.lba, sectors, sectorSize)
		switch {
		case err == nil:
			*c.into = &t
		case !errors.Is(err, ErrNone):
			return nil, nil, err
		}
	}
	return primary, backup, nil
}

func readAt(r io.ReaderAt, lba, sectors uint64, sectorSize int) (Table, error) {
	le := binary.LittleEndian
	h := make([]byte, sectorSize)
	if _, err := r.ReadAt(h, int64(lba)*int64(sectorSize)); err != nil {
		return Table{}, fmt.Errorf("reading the partition table at sector %d: %w", lba, err)
	}
	size := le.Uint32(h[12:])
	if string(h[:8]) != signature || size < headerSize || int(size) > sectorSize {
		return Table{}, ErrNone
	}
	want := le.Uint32(h[16:])
	clear(h[16:20])
	n, each, array := le.Uint32(h[80:]), le.Uint32(h[84:]), le.Uint64(h[72:])
	if crc32.ChecksumIEEE(h[:size]) != want || n > maxEntries || each < entrySize || each > 4096 || array >= sectors {
		return Table{}, ErrNone
	}
	raw := make([]byte, n*each)
	if _, err := r.ReadAt(raw, int64(array)*int64(sectorSize)); err != nil && !errors.Is(err, io.EOF) {
		return Table{}, fmt.Errorf("reading the partition entries at sector %d: %w", array, err)
	}
	if crc32.ChecksumIEEE(raw) != le.Uint32(h[88:]) {
		return Table{}, ErrNone
	}
	t := Table{DiskID: GUID(GUID(h[56:72]).Disk()), SectorSize: sectorSize, Sectors: sectors}
	for i := range int(n) {
		e := raw[i*int(each):]
		if (GUID(e[:16]) == GUID{}) {
			continue
		}
		p := Partition{Number: i + 1, Type: GUID(GUID(e[:16]).Disk()), ID: GUID(GUID(e[16:32]).Disk()),
			First: le.Uint64(e[32:]), Last: le.Uint64(e[40:]), Attributes: le.Uint64(e[48:])}
		var name []uint16
		for j := 56; j < entrySize; j += 2 {
			u := le.Uint16(e[j:])
			if u == 0 {
				break
			}
			name = append(name, u)
		}
		p.Name = string(utf16.Decode(name))
		t.Partitions = append(t.Partitions, p)
	}
	return t, nil
}
