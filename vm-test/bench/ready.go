package bench

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/vm-test/parts"
	"github.com/rackseed/rackseed/vm-test/qemu"
	"github.com/rackseed/rackseed/vm-test/rack"
)

// ISOToReady runs a virtual rack in dir until its one machine is a Ready node,
// and compares the whole way with its last part, which any way to a cluster
// has: the node's own boot and kubeadm init. The story goes to log.
func ISOToReady(ctx context.Context, dir string, log io.Writer) (line Line, err error) {
	line = Line{
		Name: "iso-to-ready", Unit: "s", Better: "less",
		Notes: []string{
			"Ours: from the appliance's power-on to node Ready: the stick boots, an empty machine netboots, is inspected, approved, installed, and starts a cluster.",
			"Peer: bare kubeadm init on the same node in the same run: from the reset after the install to Ready, images and certificates there. The ratio says what the rest costs.",
		},
	}
	if err := rack.Room(1, 1); err != nil {
		return line, fmt.Errorf("%s: %w", line.Name, err)
	}
	p, err := parts.Build(ctx, log)
	if err != nil {
		return line, fmt.Errorf("%s: %w", line.Name, err)
	}
	host := qemu.Host{Tools: p.Tools}
	kvm := qemu.TryKVM(ctx, host, p.Kernel)
	host.KVM = kvm.Works
	line.Notes = append(line.Notes, kvm.Reason+".")
	r, err := rack.New(ctx, rack.Config{
		Host: host, Dir: dir, WriteISO: p.WriteISO, Machines: 1, Approve: true, OperatorToken: rand.Text(),
	})
	if err != nil {
		return line, fmt.Errorf("%s: %w", line.Name, err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	whole, events, err := grow(ctx, r, log)
	if err != nil {
		return line, fmt.Errorf("%s: %w", line.Name, err)
	}
	last, err := fromResetToReady(events)
	if err != nil {
		return line, fmt.Errorf("%s: %w", line.Name, err)
	}
	line.Ours, line.Peer = []float64{whole.Seconds()}, []float64{last.Seconds()}
	return line, nil
}

// growLimit bounds a run; a slow emulated one takes ten minutes.
const growLimit = 40 * time.Minute

// grow powers everything on and waits until the machine is Ready. It returns
// how long that took, and the timeline.
func grow(ctx context.Context, r *rack.Rack, log io.Writer) (time.Duration, []machine.Event, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, growLimit, fmt.Errorf("not within %v", growLimit))
	defer cancel()
	begin := time.Now()
	if err := r.PowerOnAppliance(ctx); err != nil {
		return 0, nil, err
	}
	screen, err := r.WaitScreen(ctx)
	if err != nil {
		return 0, nil, err
	}
	console, err := r.OpenConsole(screen)
	if err != nil {
		return 0, nil, err
	}
	if err := r.PowerOnMachine(ctx, 1); err != nil {
		return 0, nil, err
	}
	if err := rack.Follow(ctx, console, 1, log); err != nil {
		return 0, nil, fmt.Errorf("%w\nThe machine's last words:%s", err, rack.LastLines(r.Machines[0], 20))
	}
	took := time.Since(begin)
	events, err := console.Events(ctx, 0)
	return took, events, err
}

// fromResetToReady is the time from the event with which an install ended, and
// the machine was reset, to the one with which the node was Ready.
func fromResetToReady(events []machine.Event) (time.Duration, error) {
	var reset time.Time
	for _, e := range events {
		switch {
		case e.Kind == "install.done":
			reset = e.Time
		case e.Kind == "node.ready" && !reset.IsZero():
			return e.Time.Sub(reset), nil
		}
	}
	return 0, fmt.Errorf("the timeline of %d events has no install.done with a node.ready after it", len(events))
}
