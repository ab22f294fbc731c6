package disk

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// ioctlRange makes an ioctl of linux/fs.h that takes a range of bytes, for which
// package unix has no function.
func ioctlRange(fd uintptr, request uint, r *[2]uint64) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, uintptr(request), uintptr(unsafe.Pointer(r))); errno != 0 {
		return errno
	}
	return nil
}
