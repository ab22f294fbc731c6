// Package pid1 is what any PID 1 of ours needs: the appliance's, the
// installer's and the node initrd's. Kernel modules, block devices and links
// have packages of their own below it.
package pid1

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// earlyMounts in their order. Fields: source, target, type, flags, options.
var earlyMounts = []struct {
	source, target, kind string
	flags                uintptr
	options              string
}{
	{"proc", "/proc", "proc", unix.MS_NOSUID | unix.MS_NOEXEC | unix.MS_NODEV, ""},
	{"sysfs", "/sys", "sysfs", unix.MS_NOSUID | unix.MS_NOEXEC | unix.MS_NODEV, ""},
	{"devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID, "mode=0755"},
	{"devpts", "/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "mode=0620,gid=5,ptmxmode=0666"},
	{"tmpfs", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755"},
	{"tmpfs", "/tmp", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
}

// MountEarly mounts proc, sys, dev, dev/pts, run and tmp, in an initramfs where
// none may be there yet. What is mounted already is left.
func MountEarly() error {
	for _, m := range earlyMounts {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return fmt.Errorf("making %s: %w", m.target, err)
		}
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, m.options); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mounting %s on %s: %w", m.kind, m.target, err)
		}
	}
	return nil
}

// MountEFIVars mounts efivarfs and says whether the firmware is UEFI and gave
// its variables to the kernel. The module efivarfs must be loaded before.
func MountEFIVars() (bool, error) {
	const dir = "/sys/firmware/efi/efivars"
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	err := unix.Mount("efivarfs", dir, "efivarfs", unix.MS_NOSUID|unix.MS_NOEXEC|unix.MS_NODEV, "")
	switch {
	case err == nil || errors.Is(err, unix.EBUSY):
		return true, nil
	case errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EOPNOTSUPP):
		return false, nil
	}
	return false, fmt.Errorf("mounting efivarfs on %s: %w", dir, err)
}

// IsUEFI says whether the machine was started by UEFI firmware.
func IsUEFI() bool {
	_, err := os.Stat("/sys/firmware/efi")
	return err == nil
}

// Mount mounts with the target made where it is missing, and an error that
// names all three.
func Mount(source, target, kind string, flags uintptr, options string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return fmt.Errorf("making %s: %w", target, err)
	}
	if err := unix.Mount(source, target, kind, flags, options); err != nil {
		return fmt.Errorf("mounting %s (%s) on %s: %w", source, kind, target, err)
	}
	return nil
}

// UnmountAll unmounts target and everything below it, the last mounted first.
func UnmountAll(target string) error {
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return fmt.Errorf("unmounting %s: %w", target, err)
	}
	for _, m := range mountsBelow(string(b), filepath.Clean(target)) {
		if err := unix.Unmount(m, 0); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("unmounting %s: %w", m, err)
		}
	}
	return nil
}

// mountsBelow lists the mount points at and below target in the order in which
// they can be unmounted. /proc/self/mounts writes spaces as \040.
func mountsBelow(mounts, target string) []string {
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var list []string
	for _, line := range strings.Split(mounts, "\n") {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		if p := unescape.Replace(f[1]); p == target || strings.HasPrefix(p, strings.TrimSuffix(target, "/")+"/") {
			list = append([]string{p}, list...)
		}
	}
	return list
}
