package install

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/rackseed/rackseed/images/installer/disk"
	"github.com/rackseed/rackseed/images/pid1/block"
	"github.com/rackseed/rackseed/services/wire"
	"golang.org/x/sys/unix"
)

// pushEvery is how much may wait in memory before the kernel is told to write
// it: otherwise most of an image would wait for the last sync, unseen.
const pushEvery = 32 << 20

// pusher writes to a block device and keeps the disk busy meanwhile.
type pusher struct {
	f      *os.File
	pushed int64
}

func (p *pusher) WriteAt(b []byte, offset int64) (int, error) {
	n, err := p.f.WriteAt(b, offset)
	if end := offset + int64(n); end-p.pushed >= pushEvery || end < p.pushed {
		// Only a hint: an error comes back from the sync that counts.
		_ = unix.SyncFileRange(int(p.f.Fd()), min(p.pushed, offset), end-min(p.pushed, offset), unix.SYNC_FILE_RANGE_WRITE)
		p.pushed = end
	}
	return n, err
}

// Fetcher is where blobs come from; client.Client is one.
type Fetcher interface {
	Fetch(ctx context.Context, f wire.File, w io.WriterAt, progress func(done int64)) error
}

// Stream fetches a blob onto a partition, from its first byte on, verified
// while it is written. When it returns without an error the disk has it all.
func Stream(ctx context.Context, from Fetcher, blob wire.File, to *os.File, progress func(done int64)) error {
	if err := from.Fetch(ctx, blob, &pusher{f: to}, progress); err != nil {
		return err
	}
	if err := to.Sync(); err != nil {
		return fmt.Errorf("partition %s: writing it to the disk: %w", to.Name(), err)
	}
	return nil
}

// image streams the root into slot A, verified while it is written.
func (r *run) image(ctx context.Context) (text string, err error) {
	root, _ := file(r.order.Image, rootImage)
	slotA := r.parts[disk.RootA]
	f, err := os.OpenFile(slotA.Path, os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := Stream(ctx, r.Service, root, f, func(done int64) {
		r.report(wire.StepImage, wire.StepProgress, "writing the node image", done, root.Size)
	}); err != nil {
		return "", err
	}
	// From the disk, not from memory.
	if err := r.edges.forget(f); err != nil {
		return "", err
	}
	s, err := block.Probe(f, slotA.Bytes)
	if err != nil {
		return "", fmt.Errorf("partition %s: reading it back: %w", slotA.Path, err)
	}
	if s.Type != "erofs" {
		return "", fmt.Errorf("partition %s: holds %q where the node image's erofs was written: is the disk sound?", slotA.Path, s.Type)
	}
	return fmt.Sprintf("node image %s written and verified, %d MiB", r.order.Image.Digest, root.Size>>20), nil
}

// flush writes what the kernel still holds for a disk.
func flush(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("disk %s: the last write: %w", path, err)
	}
	unix.Sync()
	return nil
}
