package slot

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// espName is the ESP's GPT partition name on a node's disk.
const espName = "rs-esp"

// envPath is GRUB's environment block on the ESP.
const envPath = "boot/grub/grubenv"

// Argument finds name=value on a kernel command line; the last one counts, as
// for the kernel.
func Argument(cmdline, name string) string {
	var value string
	for word := range strings.FieldsSeq(cmdline) {
		if k, v, found := strings.Cut(word, "="); found && k == name {
			value = v
		}
	}
	return value
}

// FindESP names the block device of the ESP on the disk that root is on.
// rootPartUUID is from the kernel command line (root=PARTUUID=…). Another disk
// of the machine may have been a node's too, so the partition's name alone is
// not enough. sys and dev are /sys and /dev.
func FindESP(sys, dev, rootPartUUID string) (string, error) {
	if rootPartUUID == "" || strings.ContainsRune(rootPartUUID, '/') {
		return "", fmt.Errorf("root partition %q on the kernel command line: expected root=PARTUUID=…", rootPartUUID)
	}
	link := filepath.Join(dev, "disk/by-partuuid", strings.ToLower(rootPartUUID))
	root, err := filepath.EvalSymlinks(link)
	if err != nil {
		return "", fmt.Errorf("the root partition's device: %w", err)
	}
	partition, err := filepath.EvalSymlinks(filepath.Join(sys, "class/block", filepath.Base(root)))
	if err != nil {
		return "", fmt.Errorf("the root partition's disk: %w", err)
	}
	disk := filepath.Dir(partition)
	siblings, err := filepath.Glob(filepath.Join(disk, "*", "uevent"))
	if err != nil {
		return "", err
	}
	for _, uevent := range siblings {
		b, err := os.ReadFile(uevent)
		if err != nil {
			return "", fmt.Errorf("partition of disk %s: %w", filepath.Base(disk), err)
		}
		if name := property(b, "PARTNAME"); name == espName {
			return filepath.Join(dev, property(b, "DEVNAME")), nil
		}
	}
	return "", fmt.Errorf("disk %s has no partition named %s: the node's disk was changed, reinstall it", filepath.Base(disk), espName)
}

func property(uevent []byte, name string) string {
	lines := bufio.NewScanner(bytes.NewReader(uevent))
	for lines.Scan() {
		if k, v, found := strings.Cut(lines.Text(), "="); found && k == name {
			return v
		}
	}
	return ""
}

// MarkGood marks the slot that this node runs from, as /proc/cmdline says, in
// the ESP's environment block. The ESP is mounted at mountPoint for that long.
func MarkGood(mountPoint string) (err error) {
	b, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	cmdline := string(b)
	set, err := Good(Argument(cmdline, "rackseed.slot"))
	if err != nil {
		return err
	}
	root, found := strings.CutPrefix(Argument(cmdline, "root"), "PARTUUID=")
	if !found {
		return errors.New("the kernel command line has no root=PARTUUID=…: this is not an installed node")
	}
	device, err := FindESP("/sys", "/dev", root)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(mountPoint, 0o700); err != nil {
		return err
	}
	if err := unix.Mount(device, mountPoint, "vfat", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_SYNCHRONOUS, ""); err != nil {
		return fmt.Errorf("mounting the ESP %s: %w", device, err)
	}
	defer func() {
		if e := unix.Unmount(mountPoint, 0); e != nil {
			err = errors.Join(err, fmt.Errorf("unmounting the ESP %s: %w", device, e))
		}
	}()
	return WriteEnv(filepath.Join(mountPoint, envPath), set)
}

// WriteEnv sets variables in an environment block. The block is written in
// place and in one call, as GRUB does: two sectors whose clusters GRUB knows.
// Nothing is written when all is set already.
func WriteEnv(file string, set map[string]string) (err error) {
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("GRUB's environment block: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	// One byte more than it may have, so that a larger one is noticed.
	block, err := io.ReadAll(io.LimitReader(f, EnvSize+1))
	if err != nil {
		return fmt.Errorf("GRUB's environment block: %w", err)
	}
	changed, err := SetEnv(block, set)
	if err != nil || bytes.Equal(changed, block) {
		return err
	}
	if _, err := f.WriteAt(changed, 0); err != nil {
		return fmt.Errorf("GRUB's environment block: %w", err)
	}
	return f.Sync()
}
