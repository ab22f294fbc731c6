// Package contents says what is on a disk, for the person who decides whether
// it may go, and where, for the wiping of it. It only reads.
//
// The text is compared, word for word, when the disk is approved and when it is
// claimed: it holds nothing that passes, and an equal disk always has an equal
// one.
package contents

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
	"strings"

	"github.com/rackseed/rackseed/images/pid1/block"
	"github.com/rackseed/rackseed/images/pid1/gpt"
	"github.com/rackseed/rackseed/services/machine"
)

const (
	unknown = "unknown data"
	// maxText keeps a text well within what the boot service keeps of one.
	maxText = 200
	// maxLabel is how much of a label is told: that of a btrfs has up to 256
	// bytes.
	maxLabel = 36
	// maxLogical bounds the chain of logical partitions.
	maxLogical = 128
)

// Part is one partition's place on a disk, in bytes.
type Part struct{ First, Length int64 }

// part is a partition with what its table says that it is for.
type part struct {
	Part
	purpose string
}

// Describe says what is on a disk of bytes bytes with logical sectors of
// sectorSize: machine.Empty if nothing is.
func Describe(r io.ReaderAt, bytes int64, sectorSize int) (string, error) {
	whole, err := block.ProbeAll(r, bytes)
	if err != nil {
		return "", err
	}
	table, err := readTable(r, bytes, sectorSize, len(whole) > 0)
	if err != nil {
		return "", err
	}
	if text, ok := node(table.names); ok {
		return text, nil
	}
	var found []string
	if table.kind != "" {
		found = append(found, partitions(r, bytes, table, whole))
	}
	if text := signatures(whole); text != "" {
		found = append(found, text)
	}
	if len(found) > 0 {
		return bounded(strings.Join(found, "; ")), nil
	}
	blank, err := isBlank(r, bytes, edge, samples)
	switch {
	case err != nil:
		return "", err
	case blank:
		return machine.Empty, nil
	}
	return unknown, nil
}

// Parts are the places of all partitions on a disk, also those of a table that
// only its backup or another sector size tells of.
func Parts(r io.ReaderAt, bytes int64, sectorSize int) ([]Part, error) {
	var all []Part
	seen := map[Part]bool{}
	add := func(parts []part) {
		for _, p := range parts {
			if p.First < 0 || p.Length <= 0 || p.First > bytes-p.Length || seen[p.Part] {
				continue
			}
			seen[p.Part] = true
			all = append(all, p.Part)
		}
	}
	for _, size := range sizes(sectorSize) {
		primary, backup, err := gpt.ReadBoth(r, bytes, size)
		if err != nil {
			return nil, err
		}
		add(gptParts(primary, size))
		add(gptParts(backup, size))
	}
	m, _, err := readMBR(r, bytes)
	if err != nil {
		return nil, err
	}
	add(m)
	return all, nil
}

// sizes are the sector sizes that a partition table may have been written
// with: an enclosure or a controller may show a disk's 512 bytes as 4096, or
// the other way about.
func sizes(own int) []int {
	if own == 4096 {
		return []int{4096, 512}
	}
	return []int{own, 4096}
}

type partitionTable struct {
	kind  string // "GPT", "MBR" …; "" is none
	parts []part
	names []string // of a GPT's partitions, in the order of their numbers
}

// readTable finds the disk's partition table. held says that something holds
// the whole disk: then a sector that ends like an MBR, and has no partitions, is
// that one's boot sector.
func readTable(r io.ReaderAt, bytes int64, sectorSize int, held bool) (partitionTable, error) {
	for _, size := range sizes(sectorSize) {
		table, err := gpt.Read(r, bytes, size)
		if errors.Is(err, gpt.ErrNone) {
			continue
		}
		if err != nil {
			return partitionTable{}, err
		}
		t := partitionTable{kind: "GPT", parts: gptParts(&table, size)}
		if size != sectorSize {
			t.kind = fmt.Sprintf("GPT of sectors of %d bytes", size)
			return t, nil
		}
		for _, p := range table.Partitions {
			t.names = append(t.names, p.Name)
		}
		return t, nil
	}
	parts, found, err := readMBR(r, bytes)
	switch {
	case err != nil || !found || len(parts) == 0 && held:
		return partitionTable{}, err
	case slices.ContainsFunc(parts, func(p part) bool { return p.purpose == protective }):
		return partitionTable{kind: damagedGPT}, nil
	}
	return partitionTable{kind: "MBR", parts: parts}, nil
}

func gptParts(t *gpt.Table, sectorSize int) []part {
	if t == nil {
		return nil
	}
	var parts []part
	for _, p := range t.Partitions {
		if p.First > p.Last || p.Last >= 1<<48 {
			parts = append(parts, part{Part{-1, 0}, ""})
			continue
		}
		parts = append(parts, part{Part{int64(p.First) * int64(sectorSize), int64(p.Last-p.First+1) * int64(sectorSize)}, purposes[p.Type.String()]})
	}
	return parts
}

// purposes of partitions whose contents tell nothing, by their GPT type.
var purposes = map[string]string{
	"21686148-6449-6e6f-744e-656564454649": "BIOS boot",
	"e3c9e316-0b5c-4db8-817d-f92df00215ae": "Microsoft reserved",
	"53746f72-6167-11aa-aa11-00306543ecac": "Apple Core Storage",
	"6a945a3b-1dd2-11b2-99a6-080020736631": "ZFS reserved",
	"9d275380-40ad-11db-bf97-000c2911d1b8": "VMware core dump",
	"9198effc-31c0-11db-8f78-000c2911d1b8": "VMware reserved",
	"4fbd7e29-9d25-41b8-afd0-062c0ceff05d": "Ceph OSD",
	"4fbd7e29-9d25-41b8-afd0-5ec00ceff05d": "Ceph OSD (encrypted)",
	"5808c8aa-7e8f-42e0-85d2-e1e90434cfb3": "Windows dynamic disk",
	"af9b60a0-1431-4f62-bc68-3311714a69ad": "Windows dynamic disk",
	"e75caf8f-f680-4cee-afa3-b001e56efc2d": "Windows Storage Spaces",
	"45b0969e-9b03-4f30-b4c6-b4b80ceff106": "Ceph journal",
	"cafecafe-9b03-4f30-b4c6-b4b80ceff106": "Ceph block",
}

// protective marks the one partition of an MBR that only guards a GPT. Where
// that has gone, nothing says where its partitions were.
const protective, damagedGPT = "protective", "damaged GPT"

// readMBR lists primary and logical partitions, whose units are 512 bytes.
func readMBR(r io.ReaderAt, bytes int64) (parts []part, found bool, err error) {
	sector := make([]byte, 512)
	if _, err := r.ReadAt(sector, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, false, fmt.Errorf("reading the first sector: %w", err)
	}
	entries, found := mbrEntries(sector)
	var extended int64 // where the chain of logical partitions begins
	for _, e := range entries {
		if e.extended() {
			extended = e.first
			continue
		}
		p := part{Part: Part{e.first, e.length}}
		if e.kind == 0xee {
			p.purpose = protective
		}
		parts = append(parts, p)
	}
	seen := map[int64]bool{}
	for at := extended; at > 0 && at <= bytes-512 && !seen[at] && len(seen) < maxLogical; {
		seen[at] = true
		if _, err := r.ReadAt(sector, at); err != nil && !errors.Is(err, io.EOF) {
			return nil, false, fmt.Errorf("reading the logical partitions at byte %d: %w", at, err)
		}
		here := at
		at = 0
		entries, _ := mbrEntries(sector)
		for _, e := range entries {
			if e.extended() {
				at = extended + e.first
			} else {
				parts = append(parts, part{Part: Part{here + e.first, e.length}})
			}
		}
	}
	return parts, found, nil
}

type mbrEntry struct {
	kind          byte
	first, length int64
}

func (e mbrEntry) extended() bool { return e.kind == 0x05 || e.kind == 0x0f || e.kind == 0x85 }

// mbrEntries reads a sector's four entries. It is no table if one of them could
// not be in any: then it is a file system's boot sector, or data.
func mbrEntries(sector []byte) (list []mbrEntry, ok bool) {
	if sector[510] != 0x55 || sector[511] != 0xaa {
		return nil, false
	}
	for i := 446; i < 510; i += 16 {
		b := sector[i : i+16]
		e := mbrEntry{b[4], int64(binary.LittleEndian.Uint32(b[8:])) * 512, int64(binary.LittleEndian.Uint32(b[12:])) * 512}
		if b[0]&0x7f != 0 {
			return nil, false
		}
		if e.kind != 0 && e.length > 0 {
			list = append(list, e)
		}
	}
	return list, true
}

// partitions says how many there are, and what is in them. What was found of
// the whole disk is not told again of the partition that ends with it: metadata
// at an end belongs to both.
func partitions(r io.ReaderAt, bytes int64, t partitionTable, whole []block.Signature) string {
	if t.kind == damagedGPT {
		return t.kind
	}
	if len(t.parts) == 0 {
		return t.kind + ", no partitions"
	}
	counts := map[string]int{}
	for _, p := range t.parts {
		counts[inside(r, bytes, p, whole)]++
	}
	var kinds []string
	for k, n := range counts {
		if n > 1 {
			k = fmt.Sprintf("%d × %s", n, k)
		}
		kinds = append(kinds, k)
	}
	sort.Strings(kinds)
	noun := "partitions"
	if len(t.parts) == 1 {
		noun = "partition"
	}
	return fmt.Sprintf("%s, %d %s: %s", t.kind, len(t.parts), noun, strings.Join(kinds, ", "))
}

func inside(r io.ReaderAt, bytes int64, p part, whole []block.Signature) string {
	if p.First < 0 || p.Length <= 0 || p.First > bytes-p.Length {
		return "outside of the disk"
	}
	section := io.NewSectionReader(r, p.First, p.Length)
	found, err := block.ProbeAll(section, p.Length)
	if err != nil {
		return "unreadable"
	}
	if p.First+p.Length == bytes {
		found = slices.DeleteFunc(found, func(s block.Signature) bool { return slices.Contains(whole, s) })
	}
	if text := signatures(found); text != "" {
		return text
	}
	if p.purpose != "" {
		return p.purpose
	}
	switch blank, err := isBlank(section, p.Length, partEdge, partSamples); {
	case err != nil:
		return "unreadable"
	case blank:
		return machine.Empty
	}
	return unknown
}

// signatures are what was found in one place, in words.
func signatures(found []block.Signature) string {
	var words []string
	for _, s := range found {
		words = append(words, name(s))
	}
	return strings.Join(words, " and ")
}

// names that people know better than blkid's.
var names = map[string]string{
	"LVM2_member": "LVM", "linux_raid_member": "Linux RAID", "zfs_member": "ZFS pool", "ceph_bluestore": "Ceph OSD",
	"crypto_LUKS": "LUKS (encrypted)", "BitLocker": "BitLocker (encrypted Windows)", "ntfs": "NTFS (Windows)", "ReFS": "ReFS (Windows)",
	"VMFS_volume_member": "VMFS (VMware)", "VMFS": "VMFS (VMware)", "oracleasm": "Oracle ASM", "vdo": "VDO", "stratis": "Stratis",
	"ddf_raid_member": "DDF RAID", "isw_raid_member": "Intel RAID", "lsi_mega_raid_member": "LSI RAID", "nvidia_raid_member": "NVIDIA RAID",
	"adaptec_raid_member": "Adaptec RAID", "promise_fasttrack_raid_member": "Promise RAID", "hpt37x_raid_member": "HighPoint RAID",
	"hpt45x_raid_member": "HighPoint RAID", "drbd": "DRBD", "DM_integrity": "dm-integrity",
	"vfat": "FAT", "exfat": "exFAT", "xfs": "XFS", "apfs": "APFS (macOS)", "hfsplus": "HFS+ (macOS)", "ufs": "UFS (BSD)", "iso9660": "ISO 9660",
	"jbd": "journal of an ext file system", "swsuspend": "swap (of a machine that sleeps)", "nss": "NSS (NetWare)",
	"ldm": "Windows dynamic disk", "mac": "Apple partition map", "sgi": "SGI partition table", "bsd": "BSD disk label", "aix": "AIX volume",
}

func name(s block.Signature) string {
	text := names[s.Type]
	if text == "" {
		text = s.Type
	}
	// ceph-volume names its volume groups so.
	if s.Type == "LVM2_member" && strings.HasPrefix(s.Label, "ceph-") {
		text = "Ceph OSD (LVM)"
	}
	if s.Label != "" {
		text += fmt.Sprintf(" %q", short(s.Label, maxLabel))
	}
	return text
}

// short cuts a text after n characters.
func short(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n]) + "…"
	}
	return s
}

// bounded cuts a text that is too long, and ends it by what tells it from
// others with the same beginning.
func bounded(s string) string {
	if len(s) <= maxText {
		return s
	}
	sum := sha256.Sum256([]byte(s))
	return fmt.Sprintf("%s… #%x", strings.ToValidUTF8(s[:maxText], ""), sum[:4])
}
