package medium

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/rackseed/rackseed/images/pid1/block"
	"github.com/rackseed/rackseed/images/pid1/gpt"
)

// Tools runs programs of the initramfs.
type Tools interface {
	Output(ctx context.Context, name string, args ...string) (string, error)
}

// Data returns the data partition, made if it never was. The error says why
// there is none that can be used, and what a person can do; *TooSmallError for
// a stick without room. With one, the partition's content is as it was.
func (m Medium) Data(ctx context.Context, host block.Host, run Tools, log *slog.Logger) (block.Device, error) {
	if m.Disk.Name == "" || m.Disk.ReadOnly {
		return block.Device{}, fmt.Errorf("%s cannot be written (a CD, or a stick with its write protection on); start from a stick that can", m.Volume.Path)
	}
	if m.Disk.SectorSize != sector {
		return block.Device{}, fmt.Errorf("%s has sectors of %d bytes, its partition table is made for %d", m.Disk.Path, m.Disk.SectorSize, sector)
	}
	disk, err := os.OpenFile(m.Disk.Path, os.O_RDWR, 0)
	if err != nil {
		return block.Device{}, err
	}
	defer disk.Close()
	var d block.Device
	err = prepare(disk, m.Disk.Bytes, steps{
		log: log.With("stick", m.Disk.Path),
		show: func(t Table) (string, error) {
			if err := announce(disk, t); err != nil {
				return "", fmt.Errorf("telling the kernel of partition %d: %w", DataNumber, err)
			}
			var err error
			d, err = host.Wait(ctx, fmt.Sprintf("partition %d of %s", DataNumber, m.Disk.Path), func() (block.Device, bool, error) {
				d, err := m.Partition(host, DataNumber)
				return d, err == nil, nil
			})
			return d.Path, err
		},
		format: func(path string) error {
			if _, err := run.Output(ctx, "mke2fs", append(formatOptions, path)...); err != nil {
				return err
			}
			return flush(path)
		},
	})
	if err != nil {
		return block.Device{}, fmt.Errorf("%s: %w", m.Disk.Path, err)
	}
	return d, nil
}

// formatOptions of mke2fs. The block size, which it would choose by the
// partition's size, says where look finds the superblock's copies. Without
// lazy initialisation the first start would take minutes on a slow stick.
var formatOptions = []string{"-q", "-F", "-t", "ext4", "-b", fmt.Sprint(blockBytes), "-L", DataLabel, "-E", "lazy_itable_init=1,nodiscard"}

// steps are what prepare does to the outside.
type steps struct {
	log *slog.Logger
	// show makes the kernel know the partition, and returns its device.
	show func(Table) (path string, err error)
	// format makes the file system; it is on the medium when it returns.
	format func(path string) error
}

// prepare makes the data partition one that can be mounted, or says why not.
//
// The order is what makes a loss of power harmless at any moment; each step is
// on the medium before the next begins:
//
//  1. The table says Making (the backup table, then the primary). Cut off
//     before: the next start is a first one. Within: the table that is whole
//     says Absent or Making, and both mean that nothing was kept.
//  2. mke2fs. Cut off: the entry says Making, and it is made anew.
//  3. The table says Made, the backup first again. Cut off within: the table
//     that is read says Making or Made; nothing was mounted yet, and the file
//     system is whole, so that either leads to the same.
//  4. Only now it is mounted. From here on no start formats it.
//
// A stick that the image was written to anew and that has its data goes from
// Absent to Made at once, with the file system never written to here.
func prepare(disk *os.File, size int64, do steps) error {
	t, err := ReadTable(disk, size)
	if err != nil {
		return err
	}
	found, what, err := look(io.NewSectionReader(disk, t.Start, t.Bytes), t.Bytes)
	if err != nil {
		return fmt.Errorf("looking at the data partition's place: %w", err)
	}
	a := Decide(t.Entry, found)
	attributes := []any{"bytes", t.Bytes}
	if what != "" {
		attributes = append(attributes, "there", what)
	}
	do.log.Info("data partition: "+a.Why, attributes...)
	if err := write(disk, t.Say(a.Entry, gpt.NewGUID())); err != nil {
		return fmt.Errorf("writing the partition table: %w", err)
	}
	path, err := do.show(t)
	if err != nil {
		return err
	}
	switch {
	case a.Refuse:
		return &DamagedError{Path: path, Why: a.Why, There: what}
	case !a.Format:
		return nil
	}
	if err := do.format(path); err != nil {
		return fmt.Errorf("making the data partition %s: %w", path, err)
	}
	if err := write(disk, t.Say(Made, gpt.GUID{})); err != nil {
		return fmt.Errorf("writing the partition table: %w", err)
	}
	return nil
}

// DamagedError says that data is there and cannot be used. Nothing was done to
// it.
type DamagedError struct {
	Path  string // the partition
	Why   string
	There string // what is there instead; may be empty
}

func (e *DamagedError) Error() string {
	there := e.There
	if there == "" {
		there = "no file system"
	}
	return fmt.Sprintf("the data partition %s is left alone, for %s (found: %s). "+
		"Repair it on another machine: e2fsck -f PARTITION, or with the superblock's copy e2fsck -f -b %d -B %d PARTITION. "+
		"Or give up what was kept, there: mkfs.ext4 -L %s PARTITION. Then start again",
		e.Path, e.Why, there, groupBlocks, blockBytes, DataLabel)
}

func write(disk *os.File, writes []Write) error {
	for _, w := range writes {
		if _, err := disk.WriteAt(w.Data, w.Offset); err != nil {
			return err
		}
		if err := disk.Sync(); err != nil {
			return err
		}
	}
	return nil
}

// flush has everything that was written to a device on the medium.
func flush(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// announce adds the partition to what the kernel knows. Reading the whole
// table anew (BLKRRPART) fails while partition 1 is mounted.
func announce(disk *os.File, t Table) error {
	p := unix.BlkpgPartition{Start: t.Start, Length: t.Bytes, Pno: DataNumber}
	arg := unix.BlkpgIoctlArg{Op: unix.BLKPG_ADD_PARTITION, Datalen: int32(unsafe.Sizeof(p)), Data: (*byte)(unsafe.Pointer(&p))}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, disk.Fd(), blkpg, uintptr(unsafe.Pointer(&arg)))
	runtime.KeepAlive(&p)
	if errno != 0 && errno != unix.EBUSY { // busy: it is there already
		return errno
	}
	return nil
}

// blkpg is the ioctl's number (linux/blkpg.h: _IO(0x12, 105)); x/sys lacks it.
const blkpg = 0x1269
