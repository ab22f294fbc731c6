package disk

import (
	"cmp"
	"slices"

	"github.com/rackseed/rackseed/images/installer/contents"
	"github.com/rackseed/rackseed/images/pid1/gpt"
)

// wiped is how much is cleared at both ends of the disk, of each of its old
// partitions and of each new one. Every signature that is looked for by itself
// lies within: the second header of LUKS 2 is the farthest from a beginning (4
// MiB), Promise's the farthest from an end (1.5 MiB).
const wiped = 8 * mib

// copies are where, from the beginning of a disk or partition on, file systems
// keep second superblocks by which tools bring the first one back: btrfs at 64
// MiB and 256 GiB (btrfs(5)), Ceph's BlueStore at 1, 10, 100 and 1000 GiB
// (ceph, src/os/bluestore/BlueStore.h).
var copies = []int64{64 * mib, 256 * gib, gib, 10 * gib, 100 * gib, 1000 * gib}

const copyBytes = 64 << 10

// span is a run of bytes.
type span struct{ first, end int64 }

// wipes lists what is cleared behind the new table, in order, so that no old
// file system, RAID member or volume shines through the new partitions, or is
// assembled from the old ones' places.
func wipes(t gpt.Table, old []contents.Part) []span {
	ss := int64(t.SectorSize)
	bytes := int64(t.Sectors) * ss
	places := append(slices.Clone(old), contents.Part{First: 0, Length: bytes})
	for _, p := range t.Partitions {
		places = append(places, contents.Part{First: int64(p.First) * ss, Length: int64(p.Last-p.First+1) * ss})
	}
	var list []span
	for _, p := range places {
		end := p.First + p.Length
		list = append(list, span{p.First, min(p.First+wiped, end)}, span{max(end-wiped, p.First), end})
		for _, at := range copies {
			if at < p.Length {
				list = append(list, span{p.First + at, min(p.First+at+copyBytes, end)})
			}
		}
	}
	front, back := tableEnds(t)
	return within(list, front, back)
}

// tableEnds are the end of the primary table and the beginning of the backup, in
// bytes.
func tableEnds(t gpt.Table) (front, back int64) {
	ss := int64(t.SectorSize)
	return int64(t.FirstUsable()) * ss, int64(t.LastUsable()+1) * ss
}

// within joins spans that touch, in order, and cuts off what is not between
// first and end.
func within(list []span, first, end int64) []span {
	slices.SortFunc(list, func(a, b span) int { return cmp.Or(cmp.Compare(a.first, b.first), cmp.Compare(a.end, b.end)) })
	var joined []span
	for _, s := range list {
		s = span{max(s.first, first), min(s.end, end)}
		if n := len(joined); s.first >= s.end {
			continue
		} else if n > 0 && s.first <= joined[n-1].end {
			joined[n-1].end = max(joined[n-1].end, s.end)
		} else {
			joined = append(joined, s)
		}
	}
	return joined
}

// between are the gaps of joined spans, from first to end.
func between(list []span, first, end int64) []span {
	var gaps []span
	for _, s := range append(slices.Clone(list), span{end, end}) {
		if s.first > first {
			gaps = append(gaps, span{first, s.first})
		}
		first = s.end
	}
	return gaps
}
