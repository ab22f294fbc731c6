package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/rackseed/rackseed/images/pid1/block"
	"github.com/rackseed/rackseed/images/pid1/gpt"
	"golang.org/x/sys/unix"
)

// wiped is how much is cleared at the beginning of each partition and at both
// ends of the disk: every known signature lies within (ZFS's labels take 512
// KiB, btrfs's first superblock is at 64 KiB).
const wiped = mib

// span is a run of bytes to be cleared.
type span struct{ offset, length int64 }

// wipeSpans lists what is cleared before the table is written, so that no old
// file system, RAID member or volume shines through the new partitions.
func wipeSpans(t gpt.Table) []span {
	ss := int64(t.SectorSize)
	bytes := int64(t.Sectors) * ss
	spans := []span{{0, wiped}, {bytes - wiped, wiped}}
	for _, p := range t.Partitions {
		first, end := int64(p.First)*ss, int64(p.Last+1)*ss
		spans = append(spans, span{first, wiped})
		if end-wiped > first {
			spans = append(spans, span{end - wiped, wiped})
		}
	}
	return spans
}

// writeTable clears old signatures, then writes the backup and the primary
// table, each on the disk before the next.
func writeTable(f interface {
	io.WriterAt
	Sync() error
}, t gpt.Table) error {
	image, err := t.Encode()
	if err != nil {
		return err
	}
	zero := make([]byte, wiped)
	for _, s := range wipeSpans(t) {
		if _, err := f.WriteAt(zero[:s.length], s.offset); err != nil {
			return fmt.Errorf("clearing old contents at byte %d: %w", s.offset, err)
		}
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("clearing old contents: %w", err)
	}
	for _, w := range []struct {
		data   []byte
		offset int64
	}{{image.Backup, image.BackupOffset}, {image.Primary, 0}} {
		if _, err := f.WriteAt(w.data, w.offset); err != nil {
			return fmt.Errorf("writing the partition table at byte %d: %w", w.offset, err)
		}
		if err := f.Sync(); err != nil {
			return fmt.Errorf("writing the partition table: %w", err)
		}
	}
	return nil
}

// Partition divides a disk and waits until the kernel shows the partitions. It
// returns their devices by number.
func Partition(ctx context.Context, path string, t gpt.Table) (map[int]block.Device, error) {
	// Exclusively: fails if anything on the disk is mounted or in use.
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_EXCL, 0)
	if err != nil {
		return nil, fmt.Errorf("disk %s: opening it for ourselves alone: %w", path, err)
	}
	err = writeTable(f, t)
	if err == nil {
		err = reread(int(f.Fd()))
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("disk %s: %w", path, err)
	}
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
