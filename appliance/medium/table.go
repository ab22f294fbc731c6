// Package medium is the stick that the appliance was booted from: finding it,
// and keeping its data partition. It writes to that one medium and to no other.
package medium

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"unicode/utf16"

	"github.com/rackseed/rackseed/images/pid1/gpt"
)

const (
	sector = 512
	align  = 1 << 20

	// DataOffset is where the data partition begins on every stick, in bytes:
	// behind any image of ours, so that a stick that is written anew keeps it.
	DataOffset = 8 << 30
	// DataLabel is the label of its ext4.
	DataLabel = "RACKSEED-DATA"
	// DataNumber is its number.
	DataNumber = 4

	minData = 512 << 20
)

// TooSmallError says that there is no room for the data partition.
type TooSmallError struct{ Bytes int64 }

func (e *TooSmallError) Error() string {
	return fmt.Sprintf("the stick has %.1f GiB, and keeping data needs at least %.1f GiB; use a larger stick",
		float64(e.Bytes)/(1<<30), float64(DataOffset+minData)/(1<<30))
}

// Write is one write to the medium. Writes are done in order: the backup table
// first, so that a loss of power leaves one table that is valid.
type Write struct {
	Offset int64
	Data   []byte
}

// Table is a medium's partition table, and what it says of the data partition.
type Table struct {
	Entry Entry
	Start int64 // bytes
	Bytes int64
	raw   *table
}

// ReadTable reads the table of a medium of size bytes. Without an entry of the
// data partition, its place is from DataOffset to the end.
//
// (UEFI 2.10 §5.3. gpt.Table lays a table out anew, with 128 entries and a
// first sector of its own; the image's has 248 and boot code.)
func ReadTable(r io.ReaderAt, size int64) (Table, error) {
	t, err := readTable(r, size)
	if err != nil {
		return Table{}, err
	}
	if entry := t.entry(DataNumber); !isZero(entry[:16]) {
		return t.listed(entry, size)
	}
	start := uint64(DataOffset / sector)
	for n := 1; n <= t.count; n++ {
		e := t.entry(n)
		if last := binary.LittleEndian.Uint64(e[40:]); !isZero(e[:16]) && last >= start {
			return Table{}, fmt.Errorf("partition %d ends at sector %d, behind the beginning of the data partition at 8 GiB: this is no stick of ours", n, last)
		}
	}
	// Up to the last whole MiB before the backup table.
	end := (t.sectors - 1 - t.entrySectors()) / (align / sector) * (align / sector)
	if size < DataOffset+minData || end < start+minData/sector {
		return Table{}, &TooSmallError{Bytes: size}
	}
	return Table{Start: DataOffset, Bytes: int64(end-start) * sector, raw: t}, nil
}

// Say returns the writes after which the table says e; none where it does. id
// is the partition's GUID if it has none yet. The boot code in the first
// sector, and the other entries, stay as they are: the image is a hybrid that
// firmware knows by them.
func (t *Table) Say(e Entry, id gpt.GUID) []Write {
	if t.Entry == e && !t.raw.fromBackup {
		return nil
	}
	entry := t.raw.entry(DataNumber)
	if t.Entry == Absent && e != Absent {
		start := uint64(t.Start / sector)
		linux, unique := gpt.TypeLinux.Disk(), id.Disk()
		copy(entry, linux[:])
		copy(entry[16:], unique[:])
		binary.LittleEndian.PutUint64(entry[32:], start)
		binary.LittleEndian.PutUint64(entry[40:], start+uint64(t.Bytes/sector)-1)
		binary.LittleEndian.PutUint64(entry[48:], 0)
	}
	if e != Absent {
		clear(entry[56:128])
		for i, c := range utf16.Encode([]rune(entryNames[e])) {
			binary.LittleEndian.PutUint16(entry[56+2*i:], c)
		}
	}
	t.Entry, t.raw.fromBackup = e, false
	return t.raw.writes()
}

// writes lays both tables out for the medium's real size. One that was cut off
// in the middle is finished by the next start: see readTable.
func (t *table) writes() []Write {
	backupEntries := t.sectors - 1 - t.entrySectors()
	entries := bytes.Clone(t.entries)
	return []Write{
		{int64(backupEntries) * sector, entries},
		{int64(t.sectors-1) * sector, t.header(t.sectors-1, 1, backupEntries, backupEntries-1)},
		{2 * sector, entries},
		{1 * sector, t.header(1, t.sectors-1, 2, backupEntries-1)},
		{0, t.protective()},
	}
}

// listed reads entry 4, which must be one that Say makes.
func (t *table) listed(entry []byte, size int64) (Table, error) {
	linux := gpt.TypeLinux.Disk()
	first, last := binary.LittleEndian.Uint64(entry[32:]), binary.LittleEndian.Uint64(entry[40:])
	name := entryName(entry)
	for e, known := range entryNames {
		if name == known && string(entry[:16]) == string(linux[:]) && first == DataOffset/sector && last >= first && last < uint64(size)/sector {
			return Table{Entry: e, Start: DataOffset, Bytes: int64(last-first+1) * sector, raw: t}, nil
		}
	}
	return Table{}, fmt.Errorf("partition %d is in the data partition's place, but is not it (%q, sectors %d to %d); remove it on another machine, or use another stick", DataNumber, name, first, last)
}

// entryName is an entry's name: 36 UTF-16 units, padded with zeros.
func entryName(entry []byte) string {
	var name []uint16
	for i := 56; i < 128; i += 2 {
		c := binary.LittleEndian.Uint16(entry[i:])
		if c == 0 {
			break
		}
		name = append(name, c)
	}
	return string(utf16.Decode(name))
}

// table is a medium's table as it is.
type table struct {
	mbr, head  []byte // first sector, header
	entries    []byte // whole sectors
	count      int
	entrySize  int
	sectors    uint64
	fromBackup bool
}

// readTable reads the primary table, or the backup at the end of the medium,
// which writes puts there first: a start that was cut off between the two left
// the primary torn.
func readTable(r io.ReaderAt, size int64) (*table, error) {
	t := &table{mbr: make([]byte, sector), sectors: uint64(size) / sector}
	if _, err := r.ReadAt(t.mbr, 0); err != nil {
		return nil, fmt.Errorf("partition table: %w", err)
	}
	err := t.read(r, 1)
	if err != nil && t.sectors > 2 && t.read(r, t.sectors-1) == nil {
		t.fromBackup, err = true, nil
	}
	if err != nil {
		return nil, fmt.Errorf("partition table: %w; write the image to the stick anew", err)
	}
	return t, nil
}

// read reads header and entries from the header's sector.
func (t *table) read(r io.ReaderAt, at uint64) error {
	head := make([]byte, sector)
	if _, err := r.ReadAt(head, int64(at)*sector); err != nil {
		return err
	}
	le := binary.LittleEndian
	length := le.Uint32(head[12:])
	if string(head[:8]) != "EFI PART" || length < 92 || length > sector {
		return errors.New("there is no GPT")
	}
	sum := append([]byte(nil), head[:length]...)
	le.PutUint32(sum[16:], 0)
	if crc32.ChecksumIEEE(sum) != le.Uint32(head[16:]) {
		return errors.New("the header's checksum is wrong")
	}
	count, entrySize, entriesAt := le.Uint32(head[80:]), le.Uint32(head[84:]), le.Uint64(head[72:])
	used := uint64(count) * uint64(entrySize)
	// Written by xorriso: 248 entries of 128 bytes in sectors 2 to 63.
	if count < DataNumber || entrySize < 128 || used > 62*sector || entriesAt < 2 || entriesAt >= t.sectors || le.Uint64(head[24:]) != at {
		return fmt.Errorf("%d entries of %d bytes at sector %d are not what an image of ours has", count, entrySize, entriesAt)
	}
	entries := make([]byte, (used+sector-1)/sector*sector)
	if _, err := r.ReadAt(entries, int64(entriesAt)*sector); err != nil {
		return err
	}
	if crc32.ChecksumIEEE(entries[:used]) != le.Uint32(head[88:]) {
		return errors.New("the entries' checksum is wrong")
	}
	t.head, t.entries, t.count, t.entrySize = head, entries, int(count), int(entrySize)
	return nil
}

func (t *table) entrySectors() uint64 { return uint64(len(t.entries) / sector) }

func (t *table) entry(n int) []byte { return t.entries[(n-1)*t.entrySize : n*t.entrySize] }

// header is the table's header at sector my, with its twin at other.
func (t *table) header(my, other, entriesAt, lastUsable uint64) []byte {
	le := binary.LittleEndian
	b := append([]byte(nil), t.head...)
	le.PutUint64(b[24:], my)
	le.PutUint64(b[32:], other)
	le.PutUint64(b[48:], lastUsable)
	le.PutUint64(b[72:], entriesAt)
	le.PutUint32(b[88:], crc32.ChecksumIEEE(t.entries[:t.count*t.entrySize]))
	le.PutUint32(b[16:], 0)
	le.PutUint32(b[16:], crc32.ChecksumIEEE(b[:le.Uint32(b[12:])]))
	return b
}

// protective is the first sector with its 0xEE partition grown to the whole
// medium; some firmware takes a GPT for broken without that.
func (t *table) protective() []byte {
	b := append([]byte(nil), t.mbr...)
	for p := 446; p < 510; p += 16 {
		if b[p+4] == 0xee {
			first := uint64(binary.LittleEndian.Uint32(b[p+8:]))
			binary.LittleEndian.PutUint32(b[p+12:], uint32(min(t.sectors-first, 1<<32-1)))
		}
	}
	return b
}

func isZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
