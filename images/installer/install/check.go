package install

import (
	"errors"
	"fmt"

	"github.com/rackseed/rackseed/images/installer/inventory"
	"github.com/rackseed/rackseed/services/machine"
)

// errChanged is wrapped by what is said of a disk that is another now.
var errChanged = errors.New("it is not the disk that was approved")

// writable says why the disk that was chosen must not be written, nil if it may.
// reported are the disks that whoever approved has seen.
func writable(d machine.Disk, reported []machine.Disk) error {
	if d.Transport == inventory.Multipath {
		return fmt.Errorf("disk %s: it is reached by several paths, and the node does not join them: leave it one path (by zoning, or by taking a cable out), restart the machine and approve again, or choose another disk", d.Path)
	}
	for _, r := range reported {
		if r.Exact() == d.Exact() {
			return same(r, d)
		}
	}
	return fmt.Errorf("disk %s: it was not there when this machine was looked at: %w; restart the machine, look, and approve again", d.Path, errChanged)
}

// same says in what a disk, looked at again, is another one: nil if in nothing
// that names a disk. Its contents may have changed, and its path.
func same(was, is machine.Disk) error {
	for _, c := range []struct{ what, was, is string }{
		{"serial number", was.Serial, is.Serial}, {"WWN", was.WWN, is.WWN},
		{"size", machine.Size(was.Bytes).String(), machine.Size(is.Bytes).String()},
		{"sector size", fmt.Sprint(was.SectorSize), fmt.Sprint(is.SectorSize)},
	} {
		if c.was != c.is {
			return fmt.Errorf("disk %s: its %s was %q and is %q now: %w; restart the machine, look, and approve again", is.Path, c.what, c.was, c.is, errChanged)
		}
	}
	return nil
}
