package pid1

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// CopyTree copies a folder with everything that makes a root file system:
// owners, modes, times, extended attributes, hard links, symbolic links, device
// nodes (an overlay's white-outs are some) and FIFOs. It does not cross into
// other file systems and does not take sockets. target must not exist.
func CopyTree(source, target string) error {
	var top unix.Stat_t
	if err := unix.Lstat(source, &top); err != nil {
		return fmt.Errorf("%s: %w", source, err)
	}
	c := copier{device: top.Dev, links: map[uint64]string{}, buffer: make([]byte, 1<<20)}
	return c.copy(source, target)
}

type copier struct {
	device uint64
	links  map[uint64]string // inode → where its first name was copied to
	buffer []byte
}

func (c *copier) copy(source, target string) error {
	var st unix.Stat_t
	if err := unix.Lstat(source, &st); err != nil {
		return &fs.PathError{Op: "lstat", Path: source, Err: err}
	}
	kind := st.Mode & unix.S_IFMT
	if kind == unix.S_IFSOCK {
		return nil
	}
	if kind != unix.S_IFDIR && st.Nlink > 1 {
		if first, ok := c.links[st.Ino]; ok {
			return os.Link(first, target)
		}
		c.links[st.Ino] = target
	}
	if err := c.make(source, target, st); err != nil {
		return err
	}
	if kind == unix.S_IFDIR && st.Dev == c.device {
		entries, err := os.ReadDir(source)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := c.copy(filepath.Join(source, e.Name()), filepath.Join(target, e.Name())); err != nil {
				return err
			}
		}
	}
	return c.attributes(source, target, st)
}

func (c *copier) make(source, target string, st unix.Stat_t) error {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return os.Mkdir(target, 0o700)
	case unix.S_IFLNK:
		to, err := os.Readlink(source)
		if err != nil {
			return err
		}
		return os.Symlink(to, target)
	case unix.S_IFREG:
		return c.file(source, target)
	}
	if err := unix.Mknod(target, st.Mode, int(st.Rdev)); err != nil {
		return &fs.PathError{Op: "mknod", Path: target, Err: err}
	}
	return nil
}

func (c *copier) file(source, target string) (err error) {
	from, err := os.Open(source)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	to, err := os.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	// The plain types keep io.CopyBuffer to the buffer: between different file
	// systems copy_file_range and splice only fail first.
	_, err = io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, c.buffer)
	return err
}

// attributes sets what the creation did not: owner first, since it clears the
// set-user-ID bit, times last.
func (c *copier) attributes(source, target string, st unix.Stat_t) error {
	if err := os.Lchown(target, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	link := st.Mode&unix.S_IFMT == unix.S_IFLNK
	if !link {
		if err := unix.Chmod(target, st.Mode&0o7777); err != nil {
			return &fs.PathError{Op: "chmod", Path: target, Err: err}
		}
	}
	if err := copyXattrs(source, target); err != nil {
		return err
	}
	times := []unix.Timespec{st.Atim, st.Mtim}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, target, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &fs.PathError{Op: "utimensat", Path: target, Err: err}
	}
	return nil
}

func copyXattrs(source, target string) error {
	n, err := unix.Llistxattr(source, nil)
	if errors.Is(err, unix.ENOTSUP) || n == 0 && err == nil {
		return nil
	}
	if err != nil {
		return &fs.PathError{Op: "listxattr", Path: source, Err: err}
	}
	names := make([]byte, n)
	if n, err = unix.Llistxattr(source, names); err != nil {
		return &fs.PathError{Op: "listxattr", Path: source, Err: err}
	}
	for _, name := range splitZero(names[:n]) {
		value := make([]byte, 64<<10) // XATTR_SIZE_MAX
		size, err := unix.Lgetxattr(source, name, value)
		if err != nil {
			return &fs.PathError{Op: "getxattr " + name, Path: source, Err: err}
		}
		if err := unix.Lsetxattr(target, name, value[:size], 0); err != nil {
			return &fs.PathError{Op: "setxattr " + name, Path: target, Err: err}
		}
	}
	return nil
}

func splitZero(b []byte) []string {
	var list []string
	start := 0
	for i, c := range b {
		if c == 0 {
			list = append(list, string(b[start:i]))
			start = i + 1
		}
	}
	return list
}
