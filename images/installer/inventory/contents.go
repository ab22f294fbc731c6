package inventory

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sort"
	"strings"

	"github.com/rackseed/rackseed/images/pid1/block"
	"github.com/rackseed/rackseed/images/pid1/gpt"
)

// part is one partition's place on a disk, in bytes.
type part struct{ first, length int64 }

// contents says what is on a disk, for the person who decides whether it may go.
func contents(r io.ReaderAt, bytes int64, sectorSize int) (string, error) {
	table, err := gpt.Read(r, bytes, sectorSize)
	switch {
	case err == nil:
		var parts []part
		for _, p := range table.Partitions {
			parts = append(parts, part{int64(p.First) * int64(sectorSize), int64(p.Last-p.First+1) * int64(sectorSize)})
		}
		return describe(r, bytes, "GPT", parts), nil
	case !errors.Is(err, gpt.ErrNone):
		return "", err
	}
	s, err := block.Probe(r, bytes)
	if err != nil {
		return "", err
	}
	if s.Type != "" {
		return name(s), nil
	}
	sector := make([]byte, 512)
	if _, err := r.ReadAt(sector, 0); err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("reading the first sector: %w", err)
	}
	if parts := mbr(sector); len(parts) > 0 {
		return describe(r, bytes, "MBR", parts), nil
	}
	if strings.Trim(string(sector), "\x00") == "" {
		return "empty", nil
	}
	return "unknown data", nil
}

// mbr lists the primary partitions of a boot sector, whose units are 512 bytes.
func mbr(sector []byte) []part {
	if sector[510] != 0x55 || sector[511] != 0xaa {
		return nil
	}
	var parts []part
	for i := 446; i < 510; i += 16 {
		e := sector[i : i+16]
		first, n := binary.LittleEndian.Uint32(e[8:]), binary.LittleEndian.Uint32(e[12:])
		if e[4] == 0 || n == 0 || e[0]&0x7f != 0 {
			continue
		}
		parts = append(parts, part{int64(first) * 512, int64(n) * 512})
	}
	return parts
}

func describe(r io.ReaderAt, bytes int64, kind string, parts []part) string {
	counts := map[string]int{}
	for _, p := range parts {
		what := "unknown data"
		if p.first < 0 || p.length <= 0 || p.first+p.length > bytes {
			what = "outside of the disk"
		} else if s, err := block.Probe(io.NewSectionReader(r, p.first, p.length), p.length); err != nil {
			what = "unreadable"
		} else if s.Type != "" {
			what = name(s)
		}
		counts[what]++
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
	if len(parts) == 1 {
		noun = "partition"
	}
	s := fmt.Sprintf("%s, %d %s", kind, len(parts), noun)
	if len(kinds) > 0 {
		s += ": " + strings.Join(kinds, ", ")
	}
	return s
}

// names that people know better than blkid's.
var names = map[string]string{"ntfs": "NTFS (Windows)", "LVM2_member": "LVM", "linux_raid_member": "Linux RAID", "crypto_LUKS": "LUKS (encrypted)",
	"zfs_member": "ZFS", "ceph_bluestore": "Ceph OSD", "VMFS_volume_member": "VMFS (VMware)", "BitLocker": "BitLocker (Windows)",
	"ddf_raid_member": "DDF RAID", "isw_raid_member": "Intel RAID", "vfat": "FAT"}

func name(s block.Signature) string {
	text := names[s.Type]
	if text == "" {
		text = s.Type
	}
	if s.Label != "" {
		text += fmt.Sprintf(" %q", s.Label)
	}
	return text
}
