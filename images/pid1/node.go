package pid1

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// MountNode mounts an installed node's file systems below target as the running
// node has them: the erofs slot root on target, read-only; data (ext4) on
// target/data; an overlay of the slot's own upper folder on target/etc;
// data's var on target/var, plainly bound, because containerd's overlays do not
// work on an overlay. root and data are block devices, slot is "a" or "b".
//
// A data partition without var gets a copy of the image's: it carries
// containerd's store. The copy appears whole or not at all.
//
// The modules erofs, ext4 and overlay must be loaded. After an error everything
// is unmounted again.
func MountNode(target, root, data, slot string) (err error) {
	if slot != "a" && slot != "b" {
		return fmt.Errorf("mounting the node: slot %q: there are a and b", slot)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("mounting the node's slot %s: %w", slot, err), UnmountAll(target))
		}
	}()
	if err := Mount(root, target, "erofs", unix.MS_RDONLY, ""); err != nil {
		return err
	}
	store := filepath.Join(target, "data")
	if err := Mount(data, store, "ext4", unix.MS_NOATIME, ""); err != nil {
		return err
	}
	etc := filepath.Join(store, "etc", slot)
	upper, work := filepath.Join(etc, "upper"), filepath.Join(etc, "work")
	for _, dir := range []string{upper, work} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	lower := filepath.Join(target, "etc")
	if err := Mount("overlay", lower, "overlay", 0, "lowerdir="+lower+",upperdir="+upper+",workdir="+work); err != nil {
		return err
	}
	if err := fillVar(filepath.Join(target, "var"), filepath.Join(store, "var")); err != nil {
		return err
	}
	return Mount(filepath.Join(store, "var"), filepath.Join(target, "var"), "", unix.MS_BIND, "")
}

// fillVar copies the image's var to the data partition unless it has one.
func fillVar(template, target string) error {
	if _, err := os.Lstat(target); err == nil || !errors.Is(err, os.ErrNotExist) {
		return err
	}
	part := target + ".new"
	// What an interrupted copy left is begun again.
	if err := os.RemoveAll(part); err != nil {
		return fmt.Errorf("removing an unfinished copy of /var: %w", err)
	}
	if err := CopyTree(template, part); err != nil {
		return fmt.Errorf("copying /var to the data partition: %w", err)
	}
	// The name must not reach the disk before what it names.
	if err := syncFS(part); err != nil {
		return err
	}
	if err := os.Rename(part, target); err != nil {
		return err
	}
	return syncFS(target)
}

func syncFS(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	err = unix.Syncfs(int(f.Fd()))
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("writing %s to its disk: %w", path, err)
	}
	return nil
}
