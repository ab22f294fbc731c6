package medium

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rackseed/rackseed/images/pid1/block"
)

// othersAfter is how much later than the first another medium may show up: the
// kernel waits a second before it looks at a stick (usb_storage.delay_use), and
// controllers are found one after the other.
const othersAfter = 3 * time.Second

// TwinsError says that several media hold the volume that was booted: all sticks
// of one build have the same. Which of them was booted cannot be told, and so
// not either whose data is this cluster's.
type TwinsError struct{ Paths []string }

func (e *TwinsError) Error() string {
	return fmt.Sprintf("%s are media of the same build, and which of them this machine was started from cannot be told: unplug all but the one that has the data; none is used before",
		strings.Join(e.Paths, " and "))
}

// alone returns a *TwinsError if more than one medium holds the volume, also
// one that shows up a little later than the first.
func alone(ctx context.Context, host block.Host, uuid string) error {
	select {
	case <-time.After(othersAfter):
	case <-ctx.Done():
		return fmt.Errorf("looking for a second stick: %w", ctx.Err())
	}
	list, err := host.List()
	if err != nil {
		return err
	}
	paths := map[string]string{} // by disk
	for _, d := range list {
		s, err := host.Probe(d)
		if err != nil || s.Type != "iso9660" || s.UUID != uuid {
			continue // what cannot be read is not used either
		}
		if d.Disk == "" {
			paths[d.Name] = d.Path
		} else if paths[d.Disk] == "" {
			paths[d.Disk] = d.Path
		}
	}
	if len(paths) < 2 {
		return nil
	}
	e := &TwinsError{}
	for _, p := range paths {
		e.Paths = append(e.Paths, p)
	}
	slices.Sort(e.Paths)
	return e
}
