package install

import (
	"fmt"

	"github.com/rackseed/rackseed/images/installer/claim"
	"github.com/rackseed/rackseed/images/installer/inventory"
	"github.com/rackseed/rackseed/services/machine"
)

// writable says why the disk that was chosen must not be written, nil if it may.
// reported are the disks that whoever approved has seen.
func writable(d machine.Disk, reported []machine.Disk) error {
	if d.Transport == inventory.Multipath {
		return fmt.Errorf("disk %s: it is reached by several paths, and the node does not join them: leave it one path (by zoning, or by taking a cable out), restart the machine and approve again, or choose another disk", d.Path)
	}
	for _, r := range reported {
		if r.Exact() == d.Exact() {
			return claim.Same(r, d)
		}
	}
	return fmt.Errorf("disk %s: it was not there when this machine was looked at: %w; restart the machine, look, and approve again", d.Path, claim.ErrChanged)
}
