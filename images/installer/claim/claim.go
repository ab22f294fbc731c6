// Package claim asks for the permission to write a disk.
package claim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/wire"
)

// Fresh is the age at which a granted claim is asked for again.
const Fresh = 10 * time.Second

// ErrChanged is wrapped by what is said of a disk that is another now.
var ErrChanged = errors.New("it is not the disk that was approved")

// Service grants a claim, or does not (client.Client).
type Service interface {
	Claim(context.Context, wire.ClaimRequest) error
	Retry(ctx context.Context, what string, permanent func(error) bool, do func(context.Context) error) error
}

// Ask asks for the permission to write a disk until the answer is no, or a fresh
// yes: an old one may have been overtaken by a revocation. Asking again is
// harmless; the same session is granted the same claim again while it holds. Each
// time look looks at the disk at that path anew: the boot service compares what is
// on it with what may be lost. permanent tells the service's refusals from its
// absence.
func Ask(ctx context.Context, s Service, permanent func(error) bool, look func(path string) (machine.Disk, error), order wire.Order, disk machine.Disk) error {
	final := func(err error) bool {
		return permanent(err) || errors.Is(err, ErrChanged) || errors.Is(err, os.ErrNotExist)
	}
	return s.Retry(ctx, "permission to write to "+disk.Path, final, func(ctx context.Context) error {
		now, err := look(disk.Path)
		if err != nil {
			return err
		}
		if err := Same(disk, now); err != nil {
			return err
		}
		asked := time.Now()
		if err := s.Claim(ctx, wire.ClaimRequest{Intent: order.Intent, Epoch: order.Epoch, Disk: now}); err != nil {
			return err
		}
		if time.Since(asked) > Fresh {
			return fmt.Errorf("the permission took over %s to come and may have ended meanwhile", Fresh)
		}
		return nil
	})
}

// Same says in what a disk, looked at again, is another one: nil if in nothing
// that names a disk. Its contents may have changed, and its path.
func Same(was, is machine.Disk) error {
	for _, c := range []struct{ what, was, is string }{
		{"serial number", was.Serial, is.Serial}, {"WWN", was.WWN, is.WWN},
		{"size", machine.Size(was.Bytes).String(), machine.Size(is.Bytes).String()},
		{"sector size", fmt.Sprint(was.SectorSize), fmt.Sprint(is.SectorSize)},
	} {
		if c.was != c.is {
			return fmt.Errorf("disk %s: its %s was %q and is %q now: %w; restart the machine, look, and approve again", is.Path, c.what, c.was, c.is, ErrChanged)
		}
	}
	return nil
}
