package rack

import (
	"errors"
	"fmt"

	"github.com/rackseed/rackseed/build/host"
)

const (
	applianceMiB    = 2048
	controlPlaneMiB = 4096
	workerMiB       = 2048
	// beside the machines: QEMU itself and what else runs
	spareMiB = 1024
	// what a rack's sparse disks come to, and the build's outputs
	diskMiB = 8192
)

// Room says whether the host has the memory and disk for a rack of so many
// machines, before anything is built.
func Room(machines, controlPlanes int) error {
	var errs []error
	large := min(machines, controlPlanes)
	need := applianceMiB + large*controlPlaneMiB + (machines-large)*workerMiB + spareMiB
	free, err := host.AvailableMiB()
	if err != nil {
		errs = append(errs, err)
	} else if free < need {
		errs = append(errs, fmt.Errorf("%d MiB of memory are available, and %d machine(s) beside the appliance need %d: close other programs, or use a larger computer", free, machines, need))
	}
	if free, err := host.FreeMiB("."); err != nil {
		errs = append(errs, err)
	} else if free < diskMiB {
		errs = append(errs, fmt.Errorf("%d MiB of disk are free here, and a rack and its build need %d", free, diskMiB))
	}
	return errors.Join(errs...)
}
