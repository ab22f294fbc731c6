// Command nodeinit is PID 1 of an installed node's initrd. It finds the root
// slot and the data partition that the boot loader named, mounts them and hands
// over to systemd. When it cannot, it restarts the machine, and the boot
// loader's count of tries leads to the other slot.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/rackseed/rackseed/images/pid1"
	"github.com/rackseed/rackseed/images/pid1/block"
	"github.com/rackseed/rackseed/images/pid1/kmod"
)

const (
	// storageFirst is how long only disk controllers get their drivers.
	storageFirst = 15 * time.Second
	// diskLimit is enough for a SAS expander with slow disks to come up.
	diskLimit    = 3 * time.Minute
	restartAfter = 10 * time.Second
	target       = "/sysroot"
	systemd      = "/usr/lib/systemd/systemd"
)

func main() {
	if kmod.IsModprobe(os.Args[0]) {
		os.Exit(kmod.Modprobe(os.Args[1:], os.Stderr))
	}
	log := slog.New(pid1.NewLineHandler(slog.LevelInfo, func(line string) { fmt.Println(line) }))
	err := boot(&log)
	log.Error("the node did not start; the machine restarts in "+restartAfter.String()+", another slot may be tried", "error", err)
	time.Sleep(restartAfter)
	log.Error("the machine did not restart", "error", pid1.Reboot())
	os.Exit(1) // the kernel panics, and restarts because of panic=10
}

// boot returns only with an error. It replaces log by one that reaches all
// consoles and the kernel's log, once there are any.
func boot(log **slog.Logger) error {
	if err := errors.Join(pid1.SetEnvironment(), pid1.MountEarly()); err != nil {
		return err
	}
	console, err := pid1.OpenConsole()
	if err != nil {
		return err
	}
	kmsg, err := pid1.OpenKmsg()
	if err != nil {
		return err
	}
	*log = slog.New(pid1.NewLineHandler(slog.LevelInfo, func(line string) {
		// What cannot be shown anywhere has nowhere to be told.
		_, _ = fmt.Fprintln(console, line)
		_, _ = fmt.Fprintln(kmsg, line)
	}))
	line, err := pid1.ReadCommandLine()
	if err != nil {
		return err
	}
	root, rootErr := line.PartUUID("root")
	data, dataErr := line.PartUUID("rackseed.data")
	if err := errors.Join(rootErr, dataErr); err != nil {
		return err
	}
	slot := line.Get("rackseed.slot")
	(*log).Info("starting the node", "slot", slot, "root", root, "data", data)
	modules, err := kmod.Open(*log)
	if err != nil {
		return err
	}
	if err := modules.Load("erofs", "ext4", "overlay"); err != nil {
		return err
	}
	rootDev, dataDev, err := findDisks(modules, root, data)
	if err != nil {
		return err
	}
	if err := pid1.MountNode(target, rootDev.Path, dataDev.Path, slot); err != nil {
		return err
	}
	(*log).Info("handing over to systemd", "root", rootDev.Name, "data", dataDev.Name)
	if err := kmsg.Close(); err != nil {
		return err
	}
	return pid1.SwitchRoot(target, systemd, nil, []string{"TERM=linux"})
}

// findDisks loads storage drivers, and after storageFirst all others, until
// both partitions are there.
func findDisks(modules *kmod.Loader, root, data string) (rootDev, dataDev block.Device, err error) {
	var lastErr error
	both := func() bool {
		var rootFound, dataFound bool
		var rootErr, dataErr error
		rootDev, rootFound, rootErr = block.System.FindPartUUID(root)
		if rootFound {
			dataDev, dataFound, dataErr = block.System.FindPartUUID(data)
		}
		lastErr = errors.Join(rootErr, dataErr)
		return rootFound && dataFound
	}
	for _, stage := range []struct {
		only  func(string) bool
		limit time.Duration
	}{{kmod.Storage, storageFirst}, {nil, diskLimit}} {
		ctx, cancel := context.WithTimeout(context.Background(), stage.limit)
		err = modules.Coldplug(ctx, kmod.Plug{Only: stage.only, Until: both})
		cancel()
		if err == nil {
			return rootDev, dataDev, nil
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			return block.Device{}, block.Device{}, err
		}
	}
	return block.Device{}, block.Device{}, fmt.Errorf("the partitions root %s and data %s were not both found on %s: %w",
		root, data, block.System.Names(), errors.Join(err, lastErr))
}
