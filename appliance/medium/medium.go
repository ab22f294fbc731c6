package medium

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/rackseed/rackseed/images/pid1/block"
	"github.com/rackseed/rackseed/images/pid1/gpt"
)

// Medium is what the appliance was booted from.
type Medium struct {
	// Volume is the device that holds the ISO9660 volume: partition 1 of a
	// stick (with the whole disk mounted, its other partitions could not be
	// used), or a whole CD.
	Volume block.Device
	// Disk is the stick; without a name on a CD.
	Disk block.Device
}

// Find waits for the medium whose volume has uuid, until ctx ends.
func Find(ctx context.Context, host block.Host, uuid string) (Medium, error) {
	if uuid == "" {
		return Medium{}, errors.New("the kernel's command line lacks rackseed.medium=UUID: this was not started from an image of ours")
	}
	var whole time.Time
	d, err := host.Wait(ctx, "the stick, an ISO9660 volume with UUID "+uuid, func() (block.Device, bool, error) {
		d, found, err := host.FindSignature(func(_ block.Device, s block.Signature) bool {
			return s.Type == "iso9660" && s.UUID == uuid
		})
		if !found || d.Disk != "" || isCD(d) {
			return d, found, err
		}
		// A stick shows up before its partitions do.
		if whole.IsZero() {
			whole = time.Now()
		}
		return d, time.Since(whole) > partitionsAfter, err
	})
	if err != nil {
		return Medium{}, err
	}
	m := Medium{Volume: d}
	if d.Disk == "" {
		if isCD(d) {
			return m, nil
		}
		// A stick whose table the kernel cannot read.
		if m.Volume, err = repair(ctx, host, d); err != nil {
			return Medium{Volume: d}, nil // it is a volume all the same; Data will say what is wrong
		}
		d = m.Volume
	}
	list, err := host.List()
	if err != nil {
		return Medium{}, err
	}
	for _, disk := range list {
		if disk.Name == d.Disk {
			m.Disk = disk
			return m, nil
		}
	}
	return Medium{}, fmt.Errorf("%s is on %s, which is gone", d.Path, d.Disk)
}

// partitionsAfter is how long the kernel may take to read a stick's table.
const partitionsAfter = 5 * time.Second

// isCD says whether a whole disk has no partitions to wait for.
func isCD(d block.Device) bool { return d.ReadOnly || d.SectorSize != sector }

// repair finishes a table that an earlier start was cut off in writing, and
// returns the volume's partition.
func repair(ctx context.Context, host block.Host, stick block.Device) (block.Device, error) {
	f, err := os.OpenFile(stick.Path, os.O_RDWR, 0)
	if err != nil {
		return block.Device{}, err
	}
	defer f.Close()
	t, err := PlanTable(f, stick.Bytes, gpt.NewGUID())
	if err != nil {
		return block.Device{}, err
	}
	if err := write(f, t.Writes); err != nil {
		return block.Device{}, err
	}
	if err := unix.IoctlSetInt(int(f.Fd()), unix.BLKRRPART, 0); err != nil {
		return block.Device{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return host.Wait(ctx, "partition 1 of "+stick.Path, func() (block.Device, bool, error) {
		d, err := Medium{Volume: stick, Disk: stick}.Partition(host, 1)
		return d, err == nil, nil
	})
}

// Partition finds a partition of the stick.
func (m Medium) Partition(host block.Host, number int) (block.Device, error) {
	list, err := host.List()
	if err != nil {
		return block.Device{}, err
	}
	for _, p := range block.Partitions(list, m.Disk.Name) {
		if p.Number == number && m.Disk.Name != "" {
			return p, nil
		}
	}
	return block.Device{}, fmt.Errorf("%s has no partition %d", m.Volume.Path, number)
}

// Tools runs programs of the initramfs.
type Tools interface {
	Output(ctx context.Context, name string, args ...string) (string, error)
}

// Data returns the data partition, made if it is not there. The error says why
// there is none; *TooSmallError for a stick without room.
func (m Medium) Data(ctx context.Context, host block.Host, run Tools, log *slog.Logger) (block.Device, error) {
	if m.Disk.Name == "" || m.Disk.ReadOnly {
		return block.Device{}, fmt.Errorf("%s cannot be written (a CD, or a stick with its write protection on)", m.Volume.Path)
	}
	if m.Disk.SectorSize != sector {
		return block.Device{}, fmt.Errorf("%s has sectors of %d bytes, its partition table is made for %d", m.Disk.Path, m.Disk.SectorSize, sector)
	}
	disk, err := os.OpenFile(m.Disk.Path, os.O_RDWR, 0)
	if err != nil {
		return block.Device{}, err
	}
	defer disk.Close()
	t, err := PlanTable(disk, m.Disk.Bytes, gpt.NewGUID())
	if err != nil {
		return block.Device{}, fmt.Errorf("%s: %w", m.Disk.Path, err)
	}
	found, err := block.Probe(io.NewSectionReader(disk, t.Start, t.Bytes), t.Bytes)
	if err != nil {
		return block.Device{}, fmt.Errorf("%s: looking at the data partition's place: %w", m.Disk.Path, err)
	}
	do := Decide(t, found)
	log.Info("data partition: "+do.Why, "stick", m.Disk.Path, "bytes", t.Bytes, "there", found.Type)
	if do.Add || len(t.Writes) > 0 {
		if err := write(disk, t.Writes); err != nil {
			return block.Device{}, fmt.Errorf("%s: writing the partition table: %w", m.Disk.Path, err)
		}
		if err := announce(disk, t); err != nil {
			return block.Device{}, fmt.Errorf("%s: telling the kernel of partition %d: %w", m.Disk.Path, DataNumber, err)
		}
	}
	d, err := host.Wait(ctx, fmt.Sprintf("partition %d of %s", DataNumber, m.Disk.Path), func() (block.Device, bool, error) {
		d, err := m.Partition(host, DataNumber)
		return d, err == nil, nil
	})
	if err != nil {
		return block.Device{}, err
	}
	if do.Format {
		// Lazy initialisation would keep a slow stick busy for minutes after
		// the start, when machines want to be installed from it.
		if _, err := run.Output(ctx, "mke2fs", "-q", "-F", "-t", "ext4", "-L", DataLabel, "-E", "lazy_itable_init=1,nodiscard", d.Path); err != nil {
			return block.Device{}, fmt.Errorf("making the data partition %s: %w", d.Path, err)
		}
	}
	return d, nil
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
