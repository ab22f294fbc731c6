package rescue

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/rackseed/rackseed/images/installer/contents"
	"github.com/rackseed/rackseed/images/installer/disk"
	"github.com/rackseed/rackseed/images/pid1"
	"github.com/rackseed/rackseed/images/pid1/block"
	"golang.org/x/sys/unix"
)

// Command is the name under which a shell finds Helper.
const Command = "rackseed-rescue"

// mounts is where the node's file systems are mounted.
const mounts = "/mnt/node"

const usage = `usage: rackseed-rescue mount [DISK]   mount the node's file systems below /mnt/node, read-only
       rackseed-rescue umount         unmount them
`

// Helper is the command rackseed-rescue. It returns its exit status.
func Helper(args []string, out, trouble io.Writer) int {
	var err error
	switch {
	case len(args) == 1 && args[0] == "umount":
		err = pid1.UnmountAll(mounts)
	case len(args) == 1 && args[0] == "mount":
		err = mountNode(block.System, "", out)
	case len(args) == 2 && args[0] == "mount":
		err = mountNode(block.System, args[1], out)
	default:
		fmt.Fprint(trouble, usage)
		return 2
	}
	if err != nil {
		fmt.Fprintln(trouble, "rackseed-rescue:", err)
		return 1
	}
	return 0
}

// view is a partition of a node, and how it is mounted. Nothing is written, not
// even what a journal still holds.
type view struct {
	number                    int
	name, kind, options, what string
}

var views = []view{
	{disk.RootA, "a", "erofs", "", "root slot A; its programs: chroot " + mounts + "/a"},
	{disk.RootB, "b", "erofs", "", "root slot B"},
	{disk.Data, "data", "ext4", "noload", "/var, and /etc of each slot, without what the journal still holds"},
	{disk.ESP, "esp", "vfat", "", "kernels and boot loader"},
}

func mountNode(host block.Host, want string, out io.Writer) error {
	list, err := host.List()
	if err != nil {
		return err
	}
	d, err := nodeDisk(list, want, describe)
	if err != nil {
		return err
	}
	if err := pid1.UnmountAll(mounts); err != nil {
		return err
	}
	mounted := 0
	for _, v := range views {
		for _, p := range block.Partitions(list, d.Name) {
			if p.Number != v.number {
				continue
			}
			at := filepath.Join(mounts, v.name)
			if err := pid1.Mount(p.Path, at, v.kind, unix.MS_RDONLY|unix.MS_NOATIME, v.options); err != nil {
				// The second slot of a node that was never upgraded is empty.
				fmt.Fprintf(out, "%-16s not mounted: %v\n", at, err)
				continue
			}
			mounted++
			fmt.Fprintf(out, "%-16s %s\n", at, v.what)
			if v.kind == "erofs" {
				err = errors.Join(err, bindKernel(at))
			}
		}
	}
	if mounted == 0 {
		return fmt.Errorf("disk %s: none of its file systems can be mounted", d.Path)
	}
	return err
}

// bindKernel gives the programs of a slot what they need of the kernel.
func bindKernel(root string) error {
	var all []error
	for _, m := range []string{"proc", "sys", "dev"} {
		all = append(all, pid1.Mount("/"+m, filepath.Join(root, m), "", unix.MS_BIND|unix.MS_REC, ""))
	}
	return errors.Join(all...)
}

// nodeDisk finds the disk of a node, that of the path if one is wanted.
func nodeDisk(list []block.Device, want string, describe func(block.Device) (string, error)) (block.Device, error) {
	var found []block.Device
	var seen []string
	for _, d := range list {
		if d.Disk != "" || want != "" && d.Path != want {
			continue
		}
		text, err := describe(d)
		if err != nil {
			text = "unreadable: " + err.Error()
		}
		if contents.IsNode(text) {
			found = append(found, d)
		}
		seen = append(seen, d.Path+" ("+text+")")
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return block.Device{}, fmt.Errorf("%d disks hold a node of Rackseed, name one: %s", len(found), strings.Join(seen, ", "))
	case len(seen) == 0:
		return block.Device{}, fmt.Errorf("there is no disk %s", want)
	}
	return block.Device{}, fmt.Errorf("no disk holds a node of Rackseed: %s", strings.Join(seen, ", "))
}

func describe(d block.Device) (string, error) {
	f, err := os.Open(d.Path)
	if err != nil {
		return "", err
	}
	text, err := contents.Describe(f, d.Bytes, d.SectorSize)
	return text, errors.Join(err, f.Close())
}
