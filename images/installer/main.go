// Command installer is PID 1 of the netbooted initramfs. It tells the boot
// service what the machine is, waits for an order, and writes the node onto the
// machine's disk. Without an order it only looks.
package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/rackseed/rackseed/images/installer/client"
	"github.com/rackseed/rackseed/images/installer/efi"
	"github.com/rackseed/rackseed/images/installer/install"
	"github.com/rackseed/rackseed/images/installer/inventory"
	"github.com/rackseed/rackseed/images/installer/journal"
	"github.com/rackseed/rackseed/images/installer/report"
	"github.com/rackseed/rackseed/images/installer/rescue"
	"github.com/rackseed/rackseed/images/installer/session"
	"github.com/rackseed/rackseed/images/pid1"
	"github.com/rackseed/rackseed/images/pid1/block"
	"github.com/rackseed/rackseed/images/pid1/kmod"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/wire"
)

// Version is set by the linker.
var Version = "development"

const (
	restartLeft    = 5 * time.Second
	restartRevoked = 10 * time.Second
	restartFailed  = 60 * time.Second
)

func main() {
	switch {
	case kmod.IsModprobe(os.Args[0]):
		os.Exit(kmod.Modprobe(os.Args[1:], os.Stderr))
	case filepath.Base(os.Args[0]) == rescue.Command:
		os.Exit(rescue.Helper(os.Args[1:], os.Stdout, os.Stderr))
	}
	j := journal.New(journal.Limit)
	log := slog.New(pid1.NewLineHandler(slog.LevelInfo, func(line string) { fmt.Println(line) }))
	wait := restartFailed
	switch err := run(&log, j); {
	case err == nil:
		log.Info("restarting into the installed node")
		wait = 0
	case errors.Is(err, session.ErrLeft):
		log.Info("the machine restarts in "+restartLeft.String(), "why", err)
		wait = restartLeft
	case errors.Is(err, session.ErrRevoked):
		log.Warn("the machine restarts in "+restartRevoked.String(), "error", err)
		wait = restartRevoked
	default:
		log.Error("the installer cannot go on; the machine restarts in "+restartFailed.String(), "error", err)
	}
	time.Sleep(wait)
	log.Error("the machine did not restart", "error", pid1.Reboot())
	select {} // PID 1 must not end
}

// run returns nil when the machine is installed and shall restart.
func run(log **slog.Logger, j *journal.Journal) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("a fault of the installer: %v", p)
		}
	}()
	ctx := context.Background()
	if err := errors.Join(pid1.SetEnvironment(), pid1.MountEarly()); err != nil {
		return err
	}
	if err := openLog(log, j); err != nil {
		return err
	}
	line, err := pid1.ReadCommandLine()
	if err != nil {
		return err
	}
	(*log).Info("Rackseed installer", "version", Version, "mode", line.Get("rackseed.mode"), "service", line.Get("rackseed.url"))
	url := line.Get("rackseed.url")
	if url == "" {
		return errors.New("kernel command line: rackseed.url is missing: expected as rackseed.url=http://192.0.2.1")
	}
	if _, err := pid1.SetClock(time.Now()); err != nil {
		(*log).Warn("the clock was not corrected", "error", err)
	}
	children := &pid1.Children{}
	go children.Reap(ctx)
	go followSignals(*log)
	modules, err := kmod.Open(*log)
	if err != nil {
		return err
	}
	// From here on the machine waits for others, who may be gone.
	discovery := line.Get("rackseed.mode") == string(machine.BootDiscovery)
	ctx, stay := session.NewStay(ctx, discovery)
	nic, err := connect(ctx, modules, line, *log)
	if left := context.Cause(ctx); left != nil {
		return left
	}
	if err != nil {
		return err
	}
	sign, seal, err := wire.NewKeys()
	if err != nil {
		return err
	}
	service := client.New(url, sign, *log)
	setTime(ctx, service, *log)

	variables, err := pid1.MountEFIVars()
	if err != nil {
		(*log).Warn("the firmware's variables are not to be had", "error", err)
	}
	plugLate(ctx, modules, *log)
	found := inventory.Collect(nic.MAC, pid1.IsUEFI(), variables && efi.SecureBoot(efi.System), *log)
	if variables {
		boot, err := efi.ReadBoot(efi.System)
		if err != nil {
			(*log).Warn("part of the inventory is missing", "part", "boot order", "error", err)
		}
		found.BootOrder = boot.Lines()
	}
	for _, d := range found.Disks {
		(*log).Info("disk", "path", d.Path, "transport", d.Transport, "model", d.Model, "serial", d.Serial, "bytes", d.Bytes, "contents", d.Contents)
	}
	reports := report.New()
	installer := &install.Installer{
		Service: service, Permanent: client.Permanent, Report: reports.Add, Log: *log, Children: children, SealKey: seal, UEFI: pid1.IsUEFI(),
		Disks: func() ([]machine.Disk, error) {
			plugLate(ctx, modules, *log)
			return inventory.Disks(block.System)
		},
		Look:     func(path string) (machine.Disk, error) { return inventory.Look(block.System, path) },
		Reported: found,
		LoadFS:   func() error { return loadFileSystems(modules, *log) },
		SetRTC:   func() error { return pid1.SetRTC(time.Now()) },
	}
	s := &session.Session{
		Client: service, Journal: j, Reports: reports, Log: *log, Install: installer.Run, Stay: stay,
		Rescue:  &shell{Server: rescueServer(nic.Name, children, *log), modules: modules, children: children, log: *log},
		Request: wire.SessionRequest{SignKey: sign.Public().(ed25519.PublicKey), SealKey: seal.PublicKey().Bytes(), Version: Version, Inventory: found},
	}
	return s.Run(ctx)
}
