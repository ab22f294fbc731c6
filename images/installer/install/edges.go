package install

import (
	"context"
	"fmt"
	"os"

	"github.com/rackseed/rackseed/images/installer/disk"
	"github.com/rackseed/rackseed/images/installer/efi"
	"github.com/rackseed/rackseed/images/pid1/block"
	"github.com/rackseed/rackseed/images/pid1/gpt"
	"golang.org/x/sys/unix"
)

// edges are the steps that need a kernel's block device; tests have files.
type edges struct {
	// partition divides a disk and returns its partitions by number.
	partition func(ctx context.Context, path string, t gpt.Table) (map[int]block.Device, error)
	// program runs one of the installer's own programs and returns its output.
	program func(ctx context.Context, name string, args ...string) (string, error)
	// finish says on the disk that it is a node's.
	finish func(path string, t gpt.Table, node string) error
	// forget makes the kernel forget what it has read and written of a device.
	forget func(*os.File) error
	// firmware has the boot entries.
	firmware efi.Variables
}

func (i *Installer) system() edges {
	return edges{partition: disk.Partition, finish: disk.Finish, program: i.Children.Output, forget: forget, firmware: efi.System}
}

func forget(f *os.File) error {
	if err := unix.IoctlSetInt(int(f.Fd()), unix.BLKFLSBUF, 0); err != nil {
		return fmt.Errorf("partition %s: reading it from the disk: %w", f.Name(), err)
	}
	return nil
}
