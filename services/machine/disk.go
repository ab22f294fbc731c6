package machine

import (
	"fmt"
	"strings"
)

// Empty is the Contents of a disk on which nothing was found.
const Empty = "empty"

// BrokenOff is the Contents of a disk on which an installer of ours began and
// did not end.
const BrokenOff = "broken-off Rackseed install"

// OfNode is the Contents of a node's disk without a name, and what those of one
// with a name begin with.
const OfNode = "Rackseed node"

// MaxNodeOnDisk is how much of a node's name its disk has, in bytes.
const MaxNodeOnDisk = 28

// NodeDisk is the Contents of the disk of the node with a name.
func NodeDisk(name string) string {
	if name = name[:min(len(name), MaxNodeOnDisk)]; name == "" {
		return OfNode
	}
	if !IsHostName(name) { // cut, or not ours
		name = fmt.Sprintf("%q", name)
	}
	return OfNode + " " + name
}

// Left says whether contents are what an install of a node leaves on a disk: it
// was broken off, or it ended and nobody heard of it.
func Left(contents, node string) bool { return contents == BrokenOff || contents == NodeDisk(node) }

// Fixed says whether the disk is a part of the machine, and no stick, card or
// medium that somebody may have put in.
func (d Disk) Fixed() bool { return !d.Removable && d.Transport != "usb" }

// Matches says whether the hint names the disk. An empty hint names every one.
// Sizes are those on a label, from which a disk's own differs a little: one of
// 480 GB has 480.1 (IDEMA LBA1-03), or 479.6 behind a RAID controller. So one
// percent more or less counts too.
func (h DiskHint) Matches(d Disk) bool {
	return (h.Serial == "" || d.Serial != "" && strings.EqualFold(strings.TrimSpace(h.Serial), strings.TrimSpace(d.Serial))) &&
		(h.WWN == "" || d.WWN != "" && bareWWN(h.WWN) == bareWWN(d.WWN)) && (h.Path == "" || h.Path == d.Path) &&
		(h.Model == "" || glob(h.Model, d.Model)) && (h.Transport == "" || strings.EqualFold(h.Transport, d.Transport)) &&
		(h.MinSize == 0 || d.Bytes >= uint64(h.MinSize-h.MinSize/100)) && (h.MaxSize == 0 || d.Bytes <= uint64(h.MaxSize+h.MaxSize/100))
}

// bareWWN is a world wide name without the prefixes and colons that tools show
// it with.
func bareWWN(s string) string {
	s = strings.ReplaceAll(strings.ToLower(strings.TrimSpace(s)), ":", "")
	for _, prefix := range []string{"wwn-", "0x", "naa.", "eui.", "nvme."} {
		s = strings.TrimPrefix(s, prefix)
	}
	return s
}

// Exact is the hint that names this disk and no other, by what does not change
// from boot to boot; by its path only if it has neither serial number nor WWN.
func (d Disk) Exact() DiskHint {
	h := DiskHint{Serial: d.Serial, WWN: d.WWN}
	if h.Serial == "" && h.WWN == "" {
		h.Path = d.Path
	}
	return h
}

// Occupied is the first of the disks that hold something, or nil: of those
// that the hint names; under an empty hint, of all fixed ones.
func (i *Inventory) Occupied(hint DiskHint) *Disk {
	for n := range i.Disks {
		d := &i.Disks[n]
		if d.Contents == Empty || !hint.Matches(*d) || (hint == DiskHint{} && !d.Fixed()) {
			continue
		}
		return d
	}
	return nil
}

// Tells says whether what d is known by stays from boot to boot, and is no other
// disk's. Paths change when a machine restarts, and cheap disks repeat serial
// numbers.
func (i *Inventory) Tells(d Disk) bool {
	known := d.Exact()
	if known.Path != "" {
		return false
	}
	for _, other := range i.Disks {
		if other.Path != d.Path && known.Matches(other) {
			return false
		}
	}
	return true
}

// Bare says whether the machine has nothing to boot: it has a disk of its own,
// and nothing is on any that the installer saw, also of those that somebody put
// in, but for what an install that was broken off left.
func (i *Inventory) Bare() bool {
	fixed := false
	for _, d := range i.Disks {
		if d.Contents != Empty && d.Contents != BrokenOff {
			return false
		}
		fixed = fixed || d.Fixed()
	}
	return fixed
}
