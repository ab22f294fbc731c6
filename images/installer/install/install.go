package install

import (
	"context"
	"crypto/ecdh"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/rackseed/rackseed/images/installer/claim"
	"github.com/rackseed/rackseed/images/installer/disk"
	"github.com/rackseed/rackseed/images/installer/efi"
	"github.com/rackseed/rackseed/images/pid1"
	"github.com/rackseed/rackseed/images/pid1/block"
	"github.com/rackseed/rackseed/images/pid1/gpt"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/wire"
)

const (
	target = "/mnt/root" // the new root
	esp    = "/mnt/esp"
	// programLimit bounds each program that is run; making a file system on a
	// large disk takes the longest.
	programLimit = 15 * time.Minute
	// outputGrace is how long output is read on after a program has ended.
	outputGrace = 2 * time.Second
	// aliveEvery is how long a step says nothing before it is reported again. The
	// boot service takes a machine for silent after 20 s.
	aliveEvery = 10 * time.Second
)

// Service is what an install needs of the boot service (client.Client).
type Service interface {
	claim.Service
	Ignition(context.Context) (wire.Sealed, error)
	Fetch(ctx context.Context, f wire.File, w io.WriterAt, progress func(done int64)) error
}

// Installer installs, one order at a time.
type Installer struct {
	Service   Service
	Permanent func(error) bool // tells the service's refusals from its absence
	Report    func(wire.Report)
	Log       *slog.Logger
	Children  *pid1.Children
	SealKey   *ecdh.PrivateKey
	UEFI      bool
	Disks     func() ([]machine.Disk, error)
	// Look looks at the disk at a path again.
	Look func(path string) (machine.Disk, error)
	// Reported is the inventory that the approval was given for.
	Reported machine.Inventory
	LoadFS   func() error // loads the file systems' kernel modules
	SetRTC   func() error // gives the machine's clock the time

	replaced *edges // by tests; nil is the machine's own
}

// run is one install.
type run struct {
	*Installer
	edges edges
	order wire.Order
	disk  machine.Disk
	table gpt.Table
	parts map[int]block.Device
	node  string    // the node's name, once it is configured
	boot  efi.Saved // the firmware's entries and order before they were changed

	mu     sync.Mutex
	said   wire.Report // the newest report
	saidAt time.Time
}

// step is one of the install's, in the words of wire. do returns what is to be
// told when it is done.
type step struct {
	name, text string
	do         func(*run, context.Context) (string, error)
}

var steps = []step{
	{wire.StepDisk, "choosing the disk", (*run).choose},
	{wire.StepPartition, "dividing the disk", (*run).partition},
	{wire.StepImage, "writing the node image", (*run).image},
	{wire.StepIgnition, "configuring the node", (*run).ignition},
	{wire.StepBootloader, "installing the boot loader", (*run).bootloader},
	{wire.StepReboot, "writing everything to the disk", (*run).finish},
}

// Run carries out an install order from the beginning, whatever an earlier try
// left behind, and reports each step. It ends before StepReboot is reported
// done: the caller does that once nothing can fail any more.
func (i *Installer) Run(ctx context.Context, order wire.Order) (err error) {
	r := &run{Installer: i, edges: i.system(), order: order}
	if i.replaced != nil {
		r.edges = *i.replaced
	}
	if err := unmount(); err != nil {
		return r.fail(wire.StepDisk, fmt.Errorf("what an earlier try left mounted: %w", err))
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, unmount())
		}
	}()
	return r.through(ctx, steps)
}

// through carries out steps until one fails. Then the machine boots as it did.
func (r *run) through(ctx context.Context, steps []step) error {
	for _, s := range steps {
		r.Log.Info(s.text, "step", s.name)
		r.report(s.name, wire.StepStarted, s.text, 0, 0)
		started := time.Now()
		// An order that was taken back while the last step ended must not
		// reach the next one: that may be the first that writes.
		text, err := "", ctx.Err()
		if err == nil {
			stop := r.keepAlive(s, started)
			text, err = s.do(r, ctx)
			stop()
		}
		if err != nil {
			if cause := context.Cause(ctx); cause != nil {
				err = errors.Join(cause, err)
			}
			r.putBack()
			return r.fail(s.name, err)
		}
		r.Log.Info(text, "step", s.name, "took", time.Since(started).Round(time.Millisecond))
		if s.name != wire.StepReboot {
			r.report(s.name, wire.StepDone, text, 0, 0)
		}
	}
	return nil
}

func (r *run) report(name string, status wire.ReportStatus, text string, done, total int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.said = wire.Report{Intent: r.order.Intent, Epoch: r.order.Epoch, Step: name, Status: status, Text: text, Done: done, Total: total}
	r.saidAt = time.Now()
	r.Report(r.said)
}

// keepAlive reports a running step again whenever it has said nothing for
// aliveEvery, with the time that it runs: clearing a large disk, and making a
// file system on it, take minutes without a word. It ends with stop, after which
// it reports nothing any more.
func (r *run) keepAlive(s step, started time.Time) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			r.mu.Lock()
			rest := aliveEvery - time.Since(r.saidAt)
			last := r.said
			r.mu.Unlock()
			if rest <= 0 {
				text := fmt.Sprintf("%s, for %s", s.text, time.Since(started).Round(time.Second))
				r.report(s.name, wire.StepProgress, text, last.Done, last.Total)
				continue
			}
			t := time.NewTimer(rest)
			select {
			case <-ctx.Done():
				t.Stop()
				return
			case <-t.C:
			}
		}
	}()
	return func() { cancel(); <-done }
}

func (r *run) fail(name string, err error) error {
	r.Log.Error("the install failed; it can be tried again from the console", "step", name, "error", err)
	r.report(name, wire.StepFailed, err.Error(), 0, 0)
	return fmt.Errorf("step %s: %w", name, err)
}

// choose decides, and asks for the permission to write: immediately before the
// step that does. Nothing is written. What goes wrong until then is told as this
// step's: the boot service takes no other's before the claim.
func (r *run) choose(ctx context.Context) (string, error) {
	if err := check(r.order, r.UEFI); err != nil {
		return "", err
	}
	disks, err := r.Disks()
	if err != nil {
		return "", err
	}
	if r.disk, err = machine.ChooseDisk(disks, r.order.Disk); err != nil {
		return "", err
	}
	if err := writable(r.disk, r.Reported.Disks); err != nil {
		return "", err
	}
	if r.table, err = disk.Layout(r.disk.Bytes, r.disk.SectorSize, gpt.NewGUID); err != nil {
		return "", err
	}
	if err := r.LoadFS(); err != nil {
		return "", err
	}
	return "installing on " + machine.ListDisks([]machine.Disk{r.disk}), claim.Ask(ctx, r.Service, r.Permanent, r.Look, r.order, r.disk)
}

// partition divides the disk and makes the two file systems.
func (r *run) partition(ctx context.Context) (string, error) {
	var err error
	if r.parts, err = r.edges.partition(ctx, r.disk.Path, r.table); err != nil {
		return "", err
	}
	if err := r.program(ctx, "mkfs.fat", "-F", "32", "-n", "RS-ESP", r.parts[disk.ESP].Path); err != nil {
		return "", err
	}
	if err := r.program(ctx, "mke2fs", "-q", "-F", "-t", "ext4", "-E", "nodiscard", "-L", "rs-data", "-m", "1", r.parts[disk.Data].Path); err != nil {
		return "", err
	}
	return fmt.Sprintf("disk %s has five partitions", r.disk.Path), nil
}

func (r *run) program(ctx context.Context, name string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, programLimit)
	defer cancel()
	out, err := r.edges.program(ctx, name, args...)
	if err != nil {
		r.Log.Error("a program failed", "program", name, "error", err, "output", out)
	}
	return err
}

// finish leaves nothing mounted: then everything is on the disk, which is told
// to be a node's from now on.
func (r *run) finish(context.Context) (string, error) {
	if err := unmount(); err != nil {
		return "", err
	}
	if err := r.edges.finish(r.disk.Path, r.table, r.node); err != nil {
		return "", err
	}
	if err := flush(r.disk.Path); err != nil {
		return "", err
	}
	// Only now that the machine is ours: another system's clock may be in local
	// time.
	if err := r.SetRTC(); err != nil {
		r.Log.Warn("the machine's clock was not set", "error", err)
	}
	return "installed; the machine restarts into the node", nil
}

func unmount() error {
	return errors.Join(pid1.UnmountAll(target), pid1.UnmountAll(esp))
}

// bootPath is where a file of the ESP is while it is mounted.
func bootPath(path string) string { return filepath.Join(esp, path) }
