//go:build host

package specimen

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rackseed/rackseed/build/host/notrun"
)

// File writes the disk to a sparse file.
func (d *Disk) File(t testing.TB, path string) {
	t.Helper()
	if d.Fill != 0 || d.Data != nil {
		t.Fatal("a disk that is filled takes too much room as a file")
	}
	f, err := os.Create(path)
	if err == nil {
		err = f.Truncate(d.Size)
	}
	for n, b := range d.blocks {
		if err != nil {
			break
		}
		_, err = f.WriteAt(b[:min(block, d.Size-n*block)], n*block)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// Loop makes a block device of a run of a file's bytes until the test ends. (The
// kernel's own of partitions are not to be had everywhere: there are kernels
// that do not read GPTs.)
func Loop(t testing.TB, file string, first, length int64) string {
	t.Helper()
	notrun.InNamespace(t, "loop devices are the whole machine's")
	backing, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer backing.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer control.Close()
	for range 20 {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			t.Fatal(err)
		}
		path := fmt.Sprintf("/dev/loop%d", n)
		device, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		config := unix.LoopConfig{Fd: uint32(backing.Fd()), Info: unix.LoopInfo64{Offset: uint64(first), Sizelimit: uint64(length)}}
		err = unix.IoctlLoopConfigure(int(device.Fd()), &config)
		if errors.Is(err, unix.EBUSY) { // somebody else was faster
			_ = device.Close()
			continue
		}
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		t.Cleanup(func() {
			if err := errors.Join(unix.IoctlSetInt(int(device.Fd()), unix.LOOP_CLR_FD, 0), device.Close()); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		})
		return path
	}
	t.Fatal("no loop device is free")
	return ""
}
