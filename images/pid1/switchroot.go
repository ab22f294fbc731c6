package pid1

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// SwitchRoot makes target the root file system and becomes the program init
// there, as switch_root(8): it moves dev, proc, sys and run, empties the
// initramfs so that its memory comes back, and executes. It returns only with
// an error, and only from an initramfs: anything else is never emptied.
func SwitchRoot(target, init string, args, env []string) error {
	var fs unix.Statfs_t
	if err := unix.Statfs("/", &fs); err != nil {
		return fmt.Errorf("switching to %s: %w", target, err)
	}
	if fs.Type != unix.RAMFS_MAGIC && fs.Type != unix.TMPFS_MAGIC {
		return fmt.Errorf("switching to %s: the present root is not an initramfs", target)
	}
	if _, err := os.Stat(filepath.Join(target, init)); err != nil {
		return fmt.Errorf("switching to %s: it has no program to start: %w", target, err)
	}
	for _, m := range []string{"dev", "proc", "sys", "run"} {
		if err := unix.Mount("/"+m, filepath.Join(target, m), "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("moving /%s to %s: %w", m, target, err)
		}
	}
	// What else is mounted would stay for ever, out of reach.
	if err := unix.Unmount("/tmp", unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("unmounting /tmp: %w", err)
	}
	if err := os.Chdir(target); err != nil {
		return err
	}
	if err := emptyInitramfs("/"); err != nil {
		return fmt.Errorf("freeing the initramfs: %w", err)
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("moving %s to /: %w", target, err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("changing the root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	return fmt.Errorf("starting %s: %w", init, unix.Exec(init, append([]string{init}, args...), env))
}

// emptyInitramfs removes everything on dir's own file system. Mount points stay.
func emptyInitramfs(dir string) error {
	var top unix.Stat_t
	if err := unix.Lstat(dir, &top); err != nil {
		return err
	}
	return removeOn(dir, top.Dev)
}

func removeOn(dir string, device uint64) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		p := filepath.Join(dir, e.Name())
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		if st.Dev != device {
			continue
		}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			if err := removeOn(p, device); err != nil {
				return err
			}
		}
		// A folder that holds a mount point is not empty, and stays.
		if err := os.Remove(p); err != nil && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EBUSY) {
			return err
		}
	}
	return nil
}
