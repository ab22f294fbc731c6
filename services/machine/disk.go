package machine

// Empty is the Contents of a disk on which nothing was found.
const Empty = "empty"

// Fixed says whether the disk is a part of the machine, and no stick, card or
// medium that somebody may have put in.
func (d Disk) Fixed() bool { return !d.Removable && d.Transport != "usb" }

// Matches says whether the hint names the disk. An empty hint names every one.
func (h DiskHint) Matches(d Disk) bool {
	return (h.Serial == "" || h.Serial == d.Serial) && (h.WWN == "" || h.WWN == d.WWN) && (h.Path == "" || h.Path == d.Path)
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
