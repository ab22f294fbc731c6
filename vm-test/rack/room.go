package rack

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
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
	free, err := availableMiB()
	if err != nil {
		errs = append(errs, err)
	} else if free < need {
		errs = append(errs, fmt.Errorf("%d MiB of memory are available, and %d machine(s) beside the appliance need %d: close other programs, or use a larger computer", free, machines, need))
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(".", &fs); err != nil {
		errs = append(errs, fmt.Errorf("free disk: %w", err))
	} else if free := int(fs.Bavail * uint64(fs.Bsize) >> 20); free < diskMiB {
		errs = append(errs, fmt.Errorf("%d MiB of disk are free here, and a rack and its build need %d", free, diskMiB))
	}
	return errors.Join(errs...)
}

// availableMiB is what programs can still get without swapping.
func availableMiB() (int, error) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, fmt.Errorf("free memory: %w", err)
	}
	defer f.Close()
	for scan := bufio.NewScanner(f); scan.Scan(); {
		if rest, ok := strings.CutPrefix(scan.Text(), "MemAvailable:"); ok {
			var kib int
			if _, err := fmt.Sscan(rest, &kib); err != nil {
				return 0, fmt.Errorf("free memory: %w", err)
			}
			return kib / 1024, nil
		}
	}
	return 0, errors.New("free memory: /proc/meminfo does not say MemAvailable")
}
