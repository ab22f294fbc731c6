// Package simulate is a machine without hardware: it says to a boot service
// over HTTP what iPXE, the installer and the node agent say, with real keys,
// and only what would touch a disk or run Kubernetes is played. The installer's
// half of the conversation is the installer's own code.
//
// It serves whoever works on the boot service or the console, and tests of
// both. What it proves nothing about is named in vm-test's scenarios: firmware,
// kernels, disks, kubeadm.
package simulate

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/rackseed/rackseed/images/installer/client"
	"github.com/rackseed/rackseed/images/installer/session"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/wire"
)

// restarts bounds how often a machine whose sessions are revoked starts again.
const restarts = 20

// Machine is one simulated machine. Its fields are not changed while it runs.
type Machine struct {
	URL       string            // of the boot service's HTTP server for machines
	Inventory machine.Inventory // what its installer will find; BootMAC is the NIC it netboots from
	Pace      time.Duration     // rest between two steps or lines; 0 is as fast as possible
	// Fail names a step of the install (wire.StepImage …) that goes wrong the
	// first time it is tried; "" is none.
	Fail string
	// Disk is a file that keeps what the install left, for the next process;
	// "": it is kept in memory.
	Disk string
	Log  *slog.Logger
	// Transport carries requests; nil: the network.
	Transport http.RoundTripper
	// Observer sees what a machine does that its requests do not say; nil: nobody.
	Observer Observer
	// Joins says that the boot service has a cluster, or the likeness of one: the
	// node asks for what it joins by.
	Joins bool

	installed *contents         // of the disk, or nil
	written   map[string]string // contents of disks that installers wrote, by their paths
	failed    bool              // Fail has happened
}

// Observer sees what a machine does that its requests do not say. boot is the
// signing key of the installer's session, or the node's boot ID.
type Observer interface {
	// Said is called for each line of a boot's log.
	Said(boot, line string)
	// Finds is called when somebody looks at a disk, with what is known to be on
	// it, and says what is: others than the installer write to disks, too.
	Finds(disk machine.Disk) (contents string)
	// Writes is called before anything is written to a disk, with what installers
	// left on it, and with the order that says so.
	Writes(boot string, disk machine.Disk, order wire.Order)
}

// ErrOwnSystem says that the boot service sent a machine to what was on its disk
// before.
var ErrOwnSystem = errors.New("it boots the system that is on its own disk")

// inventory is what the installer finds now.
func (m *Machine) inventory() machine.Inventory {
	i := m.known()
	if m.Observer != nil {
		for n, d := range i.Disks {
			i.Disks[n].Contents = m.Observer.Finds(d)
		}
	}
	return i
}

// look looks at the disk at a path again.
func (m *Machine) look(path string) (machine.Disk, error) {
	for _, d := range m.known().Disks {
		if d.Path != path {
			continue
		}
		if m.Observer != nil {
			d.Contents = m.Observer.Finds(d)
		}
		return d, nil
	}
	return machine.Disk{}, fmt.Errorf("disk %s is gone: %w", path, fs.ErrNotExist)
}

// known is the inventory with what installers left on the disks.
func (m *Machine) known() machine.Inventory {
	i := m.Inventory
	i.Disks = slices.Clone(i.Disks)
	for n, d := range i.Disks {
		if text, ok := m.written[d.Path]; ok {
			i.Disks[n].Contents = text
		}
	}
	return i
}

// write says what an installer left on a disk.
func (m *Machine) write(path, text string) {
	if m.written == nil {
		m.written = map[string]string{}
	}
	m.written[path] = text
}

// said tells the observer of a line.
func (m *Machine) said(boot, line string) {
	if m.Observer != nil {
		m.Observer.Said(boot, line)
	}
}

// service is the client of one boot, which signs by its key.
func (m *Machine) service(base string, key ed25519.PrivateKey, log *slog.Logger) *client.Client {
	c := client.New(base, key, log)
	if m.Transport != nil {
		c.Over(m.Transport)
	}
	return c
}

// system says whether a machine that was never installed has anything to boot.
func (m *Machine) system() bool {
	i := m.inventory()
	return i.Occupied(machine.DiskHint{}) != nil
}

// Run powers the machine on. It returns nil when its node is Ready, and an error
// when the boot service tells it what no machine could do, or when ctx ends.
func (m *Machine) Run(ctx context.Context) error {
	if err := m.run(ctx); err != nil {
		return fmt.Errorf("machine %s: %w", m.Inventory.BootMAC, err)
	}
	return nil
}

func (m *Machine) run(ctx context.Context) error {
	if m.Fail != "" && !knownStep(m.Fail) {
		return fmt.Errorf("there is no step %q that could fail", m.Fail)
	}
	if err := m.readDisk(); err != nil {
		return err
	}
	done := false
	for range restarts {
		b, err := m.netboot(ctx)
		switch {
		case err != nil:
			return fmt.Errorf("netboot: %w", err)
		case b.Kind == machine.BootLocal && m.installed == nil && m.system():
			return fmt.Errorf("%w: %s", ErrOwnSystem, b.Why)
		case b.Kind == machine.BootLocal && m.installed == nil:
			return fmt.Errorf("it is told to boot its own disk, which is empty: %s", b.Why)
		case b.Kind == machine.BootLocal:
			return m.runNode(ctx)
		case done && b.Kind != machine.BootRescue:
			return fmt.Errorf("it is installed, and told to boot the installer again: %s", b.Why)
		}
		err = m.runInstaller(ctx, b)
		switch {
		case errors.Is(err, session.ErrRevoked), errors.Is(err, session.ErrLeft):
			m.Log.Info("the session has ended; the machine restarts", "error", err)
		case err != nil:
			return fmt.Errorf("installer: %w", err)
		default:
			done = true
		}
		if err := rest(ctx, m.Pace); err != nil {
			return err
		}
	}
	return fmt.Errorf("it was restarted %d times and has no end", restarts)
}

// rest waits for d, or until ctx ends.
func rest(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return context.Cause(ctx)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
