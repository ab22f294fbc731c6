package install

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rackseed/rackseed/images/installer/client"
	"github.com/rackseed/rackseed/images/pid1/block"
	"github.com/rackseed/rackseed/images/pid1/gpt"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/wire"
)

// fetches is a service that permits, and whose blobs come as a function says.
type fetches struct {
	answers
	fetch func(progress func(int64)) error
}

func (f fetches) Fetch(_ context.Context, _ wire.File, _ io.WriterAt, progress func(int64)) error {
	return f.fetch(progress)
}

// Whatever a step does, the boot service hears of it at least every 10 s, in
// order, and of nothing after its end.
func TestStepsAreReportedWhileTheyRun(t *testing.T) {
	found := machine.Disk{Path: "/dev/vda", Serial: "d1", Transport: "sata", Bytes: 16 << 30, SectorSize: 512}
	path := t.TempDir() + "/slot"
	l := &lab{t: t}
	l.write(path, nil)
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var told []string
		newest := began
		i := &Installer{
			Service: fetches{answers{t, func(context.Context) error { return nil }}, func(progress func(int64)) error {
				for done := range int64(4) {
					time.Sleep(time.Second)
					progress(done << 20)
				}
				time.Sleep(25 * time.Second) // the network stands still
				return errors.New("the end")
			}},
			Permanent: client.Permanent, Log: slog.New(slog.DiscardHandler), UEFI: true,
			Report: func(r wire.Report) {
				if silent := time.Since(newest); silent > 10*time.Second {
					t.Errorf("%s %s: nothing was reported for %s before", r.Step, r.Status, silent)
				}
				newest = time.Now()
				told = append(told, fmt.Sprintf("%s %s %s: %s, %d MiB", time.Since(began), r.Step, r.Status, r.Text, r.Done>>20))
			},
			Disks:    func() ([]machine.Disk, error) { return []machine.Disk{found}, nil },
			Look:     func(string) (machine.Disk, error) { return found, nil },
			Reported: machine.Inventory{Disks: []machine.Disk{found}},
			LoadFS:   func() error { return nil },
			replaced: &edges{
				partition: func(ctx context.Context, _ string, t gpt.Table) (map[int]block.Device, error) {
					select { // discards: as long as the disk takes
					case <-time.After(95 * time.Second):
					case <-ctx.Done():
						return nil, ctx.Err()
					}
					parts := map[int]block.Device{}
					for _, p := range t.Partitions {
						parts[p.Number] = block.Device{Path: path}
					}
					return parts, nil
				},
				program: func(context.Context, string, ...string) (string, error) { time.Sleep(3 * time.Second); return "", nil },
			},
		}
		if err := i.Run(t.Context(), order(nil)); err == nil {
			t.Fatal("it ended well")
		}
		time.Sleep(time.Minute) // of the bubble's clock
		want := []string{
			"0s disk started: choosing the disk, 0 MiB",
			"0s disk done: installing on " + machine.ListDisks([]machine.Disk{found}) + ", 0 MiB",
			"0s partition started: dividing the disk, 0 MiB",
			"10s partition progress: dividing the disk, for 10s, 0 MiB",
			"20s partition progress: dividing the disk, for 20s, 0 MiB",
			"30s partition progress: dividing the disk, for 30s, 0 MiB",
			"40s partition progress: dividing the disk, for 40s, 0 MiB",
			"50s partition progress: dividing the disk, for 50s, 0 MiB",
			"1m0s partition progress: dividing the disk, for 1m0s, 0 MiB",
			"1m10s partition progress: dividing the disk, for 1m10s, 0 MiB",
			"1m20s partition progress: dividing the disk, for 1m20s, 0 MiB",
			"1m30s partition progress: dividing the disk, for 1m30s, 0 MiB",
			"1m40s partition progress: dividing the disk, for 1m40s, 0 MiB",
			"1m41s partition done: disk /dev/vda has five partitions, 0 MiB",
			"1m41s image started: writing the node image, 0 MiB",
			"1m42s image progress: writing the node image, 0 MiB",
			"1m43s image progress: writing the node image, 1 MiB",
			"1m44s image progress: writing the node image, 2 MiB",
			"1m45s image progress: writing the node image, 3 MiB",
			"1m55s image progress: writing the node image, for 14s, 3 MiB",
			"2m5s image progress: writing the node image, for 24s, 3 MiB",
			"2m10s image failed: the end, 0 MiB",
		}
		if !slices.Equal(told, want) {
			for _, line := range told {
				t.Log(line)
			}
			t.Error("reported otherwise")
		}
	})
}
