package medium

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/rackseed/rackseed/images/pid1/block"
	"github.com/rackseed/rackseed/images/pid1/gpt"
)

// siteNumber is the partition with the site file.
const siteNumber = 3

// SitePartition is the path of a device with the site file's partition. Of a CD
// the kernel reads no partitions: there it is a loop device, for reading only,
// which stays until the machine is switched off.
func (m Medium) SitePartition(host block.Host) (string, error) {
	if m.Disk.Name != "" {
		p, err := m.Partition(host, siteNumber)
		return p.Path, err
	}
	f, err := os.Open(m.Volume.Path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	offset, bytes, err := sitePlace(f, m.Volume.Bytes)
	if err != nil {
		return "", fmt.Errorf("%s: %w", m.Volume.Path, err)
	}
	path, err := loop(f, offset, bytes)
	if err != nil {
		return "", fmt.Errorf("%s: a loop device over its partition %d: %w", m.Volume.Path, siteNumber, err)
	}
	return path, nil
}

// sitePlace is where a medium of size bytes has the site file's partition: the
// image's table counts in 512 bytes, whatever the drive's sectors are.
func sitePlace(r io.ReaderAt, size int64) (offset, bytes uint64, err error) {
	t, err := gpt.Read(r, size, sector)
	if err != nil {
		return 0, 0, fmt.Errorf("partition table: %w", err)
	}
	for _, p := range t.Partitions {
		if p.Number == siteNumber {
			return p.First * sector, (p.Last - p.First + 1) * sector, nil
		}
	}
	return 0, 0, fmt.Errorf("it has no partition %d", siteNumber)
}

// loop makes a loop device for reading a part of a file (loop(4)).
func loop(f *os.File, offset, bytes uint64) (path string, err error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, control.Close()) }()
	n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return "", err
	}
	path = fmt.Sprintf("/dev/loop%d", n)
	device, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, device.Close()) }()
	return path, unix.IoctlLoopConfigure(int(device.Fd()), &unix.LoopConfig{
		Fd:   uint32(f.Fd()),
		Info: unix.LoopInfo64{Offset: offset, Sizelimit: bytes, Flags: unix.LO_FLAGS_READ_ONLY},
	})
}
