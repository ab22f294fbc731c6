package simulate

import (
	"context"
	"crypto/ecdh"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/rackseed/rackseed/images/installer/claim"
	"github.com/rackseed/rackseed/images/installer/client"
	"github.com/rackseed/rackseed/images/installer/journal"
	"github.com/rackseed/rackseed/images/installer/report"
	"github.com/rackseed/rackseed/images/installer/session"
	"github.com/rackseed/rackseed/images/pid1"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/wire"
)

// runInstaller is one boot of the installer; nil means that the machine is
// installed and restarts.
func (m *Machine) runInstaller(ctx context.Context, b boot) error {
	sign, seal, err := wire.NewKeys()
	if err != nil {
		return err
	}
	j, key := journal.New(journal.Limit), string(sign.Public().(ed25519.PublicKey))
	log := slog.New(pid1.NewLineHandler(slog.LevelInfo, func(line string) {
		m.said(key, line)
		j.Append(line)
	}))
	log.Info("Rackseed installer", "version", "simulated", "mode", b.Kind, "service", b.Service)
	found := m.inventory()
	for _, n := range found.NICs {
		log.Info("link", "name", n.Name, "mac", n.MAC, "driver", n.Driver, "carrier", n.Carrier)
	}
	for _, d := range found.Disks {
		log.Info("disk", "path", d.Path, "transport", d.Transport, "model", d.Model, "serial", d.Serial, "bytes", d.Bytes, "contents", d.Contents)
	}
	reports := report.New()
	service := m.service(b.Service, sign, log)
	s := &session.Session{
		Client: service, Journal: j, Reports: reports, Log: log,
		Request: wire.SessionRequest{
			SignKey: sign.Public().(ed25519.PublicKey), SealKey: seal.PublicKey().Bytes(),
			Version: "simulated", Inventory: found,
		},
		Rescue: &shell{log: log},
		Install: func(ctx context.Context, order wire.Order) error {
			return (&install{Machine: m, key: key, service: service, seal: seal, reports: reports, log: log, order: order}).run(ctx)
		},
	}
	return s.Run(ctx)
}

// shell is a rescue shell that nobody can log in to.
type shell struct {
	log  *slog.Logger
	told string
}

func (s *shell) Serve(keys []string) error {
	text := "no key could log in"
	if len(keys) > 0 {
		text = fmt.Sprintf("%d keys could log in", len(keys))
	}
	if text != s.told {
		s.log.Info("rescue shell, of a simulated machine: " + text)
		s.told = text
	}
	return nil
}

func (s *shell) Drain() {}

// install is one try of an install.
type install struct {
	*Machine
	key     string // its session's signing key
	service *client.Client
	seal    *ecdh.PrivateKey
	reports *report.Reporter
	log     *slog.Logger
	order   wire.Order

	disk machine.Disk
	node wire.NodeConfig
}

// step is one of the install's. do returns what is told when it is done.
type step struct {
	name, text string
	failure    string // what Fail says
	do         func(*install, context.Context) (string, error)
}

var steps = []step{
	{wire.StepDisk, "choosing the disk", "the controller does not answer", (*install).choose},
	{wire.StepPartition, "dividing the disk", "reading the partition table again: device or resource busy", (*install).partition},
	{wire.StepImage, "writing the node image", "root.erofs: write at 214 MiB: input/output error", (*install).image},
	{wire.StepIgnition, "configuring the node", "ignition: files: no space left on device", (*install).ignition},
	{wire.StepBootloader, "installing the boot loader", "the firmware's variables are full: boot entry Rackseed was not made", (*install).bootloader},
	{wire.StepReboot, "writing everything to the disk", "flushing the disk: input/output error", (*install).finish},
}

func knownStep(name string) bool {
	return slices.ContainsFunc(steps, func(s step) bool { return s.name == name })
}

func (i *install) run(ctx context.Context) error {
	for _, s := range steps {
		i.log.Info(s.text, "step", s.name)
		i.tell(s.name, wire.StepStarted, s.text, 0, 0)
		if err := rest(ctx, i.Pace); err != nil {
			return err
		}
		text, err := s.do(i, ctx)
		if err == nil && i.Fail == s.name && !i.failed {
			i.failed = true
			err = fmt.Errorf("disk %s: %s", i.disk.Path, s.failure)
		}
		if err != nil {
			err = errors.Join(context.Cause(ctx), err)
			i.log.Error("the install failed; it can be tried again from the console", "step", s.name, "error", err)
			i.tell(s.name, wire.StepFailed, err.Error(), 0, 0)
			return fmt.Errorf("step %s: %w", s.name, err)
		}
		i.log.Info(text, "step", s.name)
		if s.name != wire.StepReboot { // the session tells that one
			i.tell(s.name, wire.StepDone, text, 0, 0)
		}
	}
	return nil
}

func (i *install) tell(name string, status wire.ReportStatus, text string, done, total int64) {
	i.reports.Add(wire.Report{Intent: i.order.Intent, Epoch: i.order.Epoch, Step: name, Status: status, Text: text, Done: done, Total: total})
}

// lines are the output of a program, one by one.
func (i *install) lines(ctx context.Context, lines ...string) error {
	for _, l := range lines {
		i.log.Info(l)
		if err := rest(ctx, i.Pace/8); err != nil {
			return err
		}
	}
	return nil
}

// writes says that the disk is written now.
func (i *install) writes() {
	if i.Observer == nil {
		return
	}
	for _, d := range i.known().Disks {
		if d.Path == i.disk.Path {
			i.Observer.Writes(i.key, d, i.order)
		}
	}
}

// choose also asks for the permission to write, as the installer does.
func (i *install) choose(ctx context.Context) (string, error) {
	if i.order.Image == nil {
		return "", errors.New("the order names no node image")
	}
	var err error
	if i.disk, err = machine.ChooseDisk(i.inventory().Disks, i.order.Disk); err != nil {
		return "", err
	}
	return "installing on " + machine.ListDisks([]machine.Disk{i.disk}), claim.Ask(ctx, i.service, client.Permanent, i.look, i.order, i.disk)
}

func (i *install) partition(ctx context.Context) (string, error) {
	i.writes()
	i.Machine.installed = nil
	i.write(i.disk.Path, machine.BrokenOff)
	return fmt.Sprintf("disk %s has five partitions", i.disk.Path), i.lines(ctx,
		"partition 1: rs-bios, 1 MiB", "partition 2: rs-esp, 1 GiB, FAT32", "partition 3: rs-root-a, 4 GiB",
		"partition 4: rs-root-b, 4 GiB", "partition 5: rs-data, the rest, ext4")
}

// nowhere takes what would be written to the disk.
type nowhere struct{}

func (nowhere) WriteAt(b []byte, _ int64) (int, error) { return len(b), nil }

// image fetches and verifies every byte of the node image.
func (i *install) image(ctx context.Context) (string, error) {
	var total, before int64
	for _, f := range i.order.Image.Files {
		total += f.Size
	}
	for _, f := range i.order.Image.Files {
		i.writes()
		err := i.service.Fetch(ctx, f, nowhere{}, func(done int64) {
			i.tell(wire.StepImage, wire.StepProgress, f.Name, before+done, total)
		})
		if err != nil {
			return "", err
		}
		before += f.Size
		if err := i.lines(ctx, fmt.Sprintf("%s is written and verified, %s", f.Name, f.Digest)); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("node image %s is written, %d bytes", i.order.Image.Digest, total), nil
}

// ignition fetches the machine's own, opens it, and takes the node's
// configuration out of it.
func (i *install) ignition(ctx context.Context) (string, error) {
	var sealed wire.Sealed
	err := i.service.Retry(ctx, "this machine's Ignition", client.Permanent, func(ctx context.Context) (err error) {
		sealed, err = i.service.Ignition(ctx)
		return err
	})
	if err != nil {
		return "", err
	}
	plain, err := wire.Open(i.seal, wire.IgnitionPurpose(i.order.Intent, i.order.Epoch), sealed)
	if err != nil {
		return "", err
	}
	files, err := ignitionFiles(plain)
	if err != nil {
		return "", err
	}
	for n, f := range files {
		if err := i.lines(ctx, fmt.Sprintf("ignition: files: op(%x): [finished] writing file %q", n+1, f.path)); err != nil {
			return "", err
		}
		if f.path == wire.PathNodeConfig {
			if i.node, err = wire.ParseNodeConfig(f.contents); err != nil {
				return "", err
			}
		}
	}
	if i.node.Name == "" {
		return "", fmt.Errorf("the Ignition has no %s", wire.PathNodeConfig)
	}
	return fmt.Sprintf("the node is configured as %s, %d files", i.node.Name, len(files)), nil
}

func (i *install) bootloader(ctx context.Context) (string, error) {
	return "the boot loader starts slot a", i.lines(ctx,
		"/EFI/BOOT/BOOTX64.EFI: shim", "/EFI/BOOT/grubx64.efi: GRUB", "the network stays first in the boot order", "boot entry Rackseed comes at once behind it")
}

func (i *install) finish(context.Context) (string, error) {
	i.writes()
	i.Machine.installed = &contents{Path: i.disk.Path, Node: i.node}
	i.write(i.disk.Path, machine.NodeDisk(i.node.Name))
	return "installed; the machine restarts into the node", i.writeDisk()
}
