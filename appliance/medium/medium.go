package medium

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

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

// Find waits for the medium whose volume has uuid, until ctx ends. *TwinsError
// if there is more than one.
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
	if err := alone(ctx, host, uuid); err != nil {
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
	t, err := ReadTable(f, stick.Bytes)
	if err != nil {
		return block.Device{}, err
	}
	if err := write(f, t.Say(t.Entry, gpt.GUID{})); err != nil {
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
