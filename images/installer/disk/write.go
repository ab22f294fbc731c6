package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/rackseed/rackseed/images/installer/contents"
	"github.com/rackseed/rackseed/images/pid1/block"
	"github.com/rackseed/rackseed/images/pid1/gpt"
	"golang.org/x/sys/unix"
)

// target is an opened disk.
type target interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
	// Discard tells the disk that a run of bytes is of no use any more. The
	// error wraps errors.ErrUnsupported where it takes no such hint.
	Discard(first, length int64) error
}

// discardStep bounds one discard, between which the context is looked at: large
// disks take minutes for all.
const discardStep = 64 * gib

// settleLimit bounds the wait for new partitions, once the kernel took the table.
const settleLimit = time.Minute

// prepare makes a disk ours. The table comes first, by which the disk is known
// as that of an install that was broken off, wherever the power fails; then what
// is cleared, on the disk before anything else; then the rest is discarded.
func prepare(ctx context.Context, d target, t gpt.Table) error {
	old, err := contents.Parts(d, int64(t.Sectors)*int64(t.SectorSize), t.SectorSize)
	if err != nil {
		return fmt.Errorf("reading the old partition tables: %w", err)
	}
	if err := writeTable(d, t, true); err != nil {
		return err
	}
	zero := make([]byte, mib)
	list := wipes(t, old)
	for _, s := range list {
		for at := s.first; at < s.end; at += int64(len(zero)) {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if _, err := d.WriteAt(zero[:min(int64(len(zero)), s.end-at)], at); err != nil {
				return fmt.Errorf("clearing old contents at byte %d: %w", at, err)
			}
		}
	}
	if err := d.Sync(); err != nil {
		return fmt.Errorf("clearing old contents: %w", err)
	}
	front, back := tableEnds(t)
	for _, s := range between(list, front, back) {
		for at := s.first; at < s.end; at += discardStep {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err := d.Discard(at, min(discardStep, s.end-at)); errors.Is(err, errors.ErrUnsupported) {
				return nil
			} else if err != nil {
				return fmt.Errorf("discarding old contents at byte %d: %w", at, err)
			}
		}
	}
	return nil
}

// writeTable writes the backup and the primary table, each on the disk before
// the next. The first sector, where a BIOS's boot code is, is written if first.
func writeTable(d target, t gpt.Table, first bool) error {
	image, err := t.Encode()
	if err != nil {
		return err
	}
	from := int64(t.SectorSize)
	if first {
		from = 0
	}
	for _, w := range []struct {
		data   []byte
		offset int64
	}{{image.Backup, image.BackupOffset}, {image.Primary[from:], from}} {
		if _, err := d.WriteAt(w.data, w.offset); err != nil {
			return fmt.Errorf("writing the partition table at byte %d: %w", w.offset, err)
		}
		if err := d.Sync(); err != nil {
			return fmt.Errorf("writing the partition table: %w", err)
		}
	}
	return nil
}

// device is a block device of the kernel's.
type device struct{ *os.File }

func (d device) Discard(first, length int64) error {
	r := [2]uint64{uint64(first), uint64(length)}
	switch err := ioctlRange(d.Fd(), unix.BLKDISCARD, &r); {
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOTTY):
		return fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
	case errors.Is(err, unix.EIO), errors.Is(err, unix.EREMOTEIO):
		// Only a hint: what must be gone was written over. Disks that say they
		// take it and then do not exist.
		return fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
	default:
		return err
	}
}

// Partition divides a disk and waits until the kernel shows the partitions. It
// returns their devices by number.
func Partition(ctx context.Context, path string, t gpt.Table) (map[int]block.Device, error) {
	// Exclusively: fails if anything on the disk is mounted or in use.
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_EXCL, 0)
	if err != nil {
		return nil, fmt.Errorf("disk %s: opening it for ourselves alone: %w", path, err)
	}
	err = prepare(ctx, device{f}, t)
	if err == nil {
		err = reread(int(f.Fd()))
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("disk %s: %w", path, err)
	}
	// What came before takes as long as the disk needs: clearing a slow or a large
	// one takes minutes.
	ctx, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	parts := map[int]block.Device{}
	for _, p := range t.Partitions {
		d, err := block.System.Wait(ctx, fmt.Sprintf("disk %s: partition %d", path, p.Number), func() (block.Device, bool, error) {
			return block.System.FindPartUUID(p.ID.String())
		})
		if err != nil {
			return nil, err
		}
		parts[p.Number] = d
	}
	return parts, nil
}

// Finish says on the disk that the install has ended, and whose it is: in the
// data partition's name. Nothing may be mounted any more.
func Finish(path string, t gpt.Table, node string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	t.Partitions[Data-1].Name = contents.Finished(node)
	if err := errors.Join(writeTable(device{f}, t, false), f.Close()); err != nil {
		return fmt.Errorf("disk %s: %w", path, err)
	}
	return nil
}

// reread makes the kernel read the partition table again. Whoever probes a disk
// that just changed may hold it for a moment.
func reread(fd int) error {
	var err error
	for range 20 {
		if err = unix.IoctlSetInt(fd, unix.BLKRRPART, 0); !errors.Is(err, unix.EBUSY) {
			break
		}
		time.Sleep(250 * time.Millisecond)
	}
	if err != nil {
		return fmt.Errorf("the kernel does not take the new partition table: %w", err)
	}
	return nil
}
