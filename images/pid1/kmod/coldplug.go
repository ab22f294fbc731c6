package kmod

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Plug says which devices get their drivers, and when it is enough.
type Plug struct {
	// Only, if set, passes over the devices for which it is false.
	Only func(modalias string) bool
	// Until, if set, is asked after each batch of devices and at least every
	// 200 ms; true ends the waiting. Without it, Quiet without a new device
	// does.
	Until func() bool
	Quiet time.Duration
}

// tick bounds the time between two calls of Until.
const tick = 200 * time.Millisecond

// Coldplug loads the drivers of all devices that are present and of those that
// appear while it waits. It returns nil when Plug says enough, and ctx's error
// when that comes first. A driver that refuses its device is logged, no more.
func (l *Loader) Coldplug(ctx context.Context, p Plug) error {
	events, err := openUevents()
	if err != nil {
		return err
	}
	defer unix.Close(events)
	seen := map[string]bool{}
	// Everything is looked through again only after events were lost.
	whole := true
	quietSince := time.Now()
	buffer := make([]byte, 16<<10)
	for {
		if whole {
			for _, m := range present() {
				l.plug(m, p.Only, seen)
			}
			whole, quietSince = false, time.Now()
		}
		if p.Until != nil && p.Until() {
			return nil
		}
		if p.Until == nil && time.Since(quietSince) >= p.Quiet {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("waiting for devices: %w", err)
		}
		wait := tick
		if p.Until == nil {
			wait = min(tick, max(p.Quiet-time.Since(quietSince), time.Millisecond))
		}
		ready, err := poll(events, wait)
		if err != nil {
			return fmt.Errorf("waiting for devices: %w", err)
		}
		for ready {
			n, _, err := unix.Recvfrom(events, buffer, unix.MSG_DONTWAIT)
			if errors.Is(err, unix.EAGAIN) {
				break
			}
			if errors.Is(err, unix.ENOBUFS) {
				whole = true
				break
			}
			if err != nil {
				return fmt.Errorf("reading device events: %w", err)
			}
			if add, modalias := parseUevent(buffer[:n]); add {
				quietSince = time.Now()
				if modalias != "" {
					l.plug(modalias, p.Only, seen)
				}
			}
		}
	}
}

func (l *Loader) plug(modalias string, only func(string) bool, seen map[string]bool) {
	if seen[modalias] || only != nil && !only(modalias) {
		return
	}
	seen[modalias] = true
	for _, module := range l.index.aliases.match(modalias) {
		if _, ours := l.index.files[module]; !ours || l.done[module] || l.failed[module] != nil {
			continue
		}
		if err := l.loadModule(module); err != nil {
			// ENODEV is how a driver says that the device is not for it.
			if errors.Is(err, unix.ENODEV) {
				continue
			}
			l.log.Warn("a driver was not loaded", "device", modalias, "error", err)
		}
	}
}

// present lists the modaliases of all devices on all buses. Walking
// /sys/devices would read ten thousand files more.
func present() []string {
	files, err := filepath.Glob("/sys/bus/*/devices/*/modalias")
	if err != nil { // only a bad pattern
		return nil
	}
	var list []string
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil { // the device went away
			continue
		}
		if m := strings.TrimSpace(string(b)); m != "" {
			list = append(list, m)
		}
	}
	return list
}

func openUevents() (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return -1, fmt.Errorf("the kernel's device events: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		return -1, errors.Join(fmt.Errorf("the kernel's device events: %w", err), unix.Close(fd))
	}
	return fd, nil
}

func poll(fd int, wait time.Duration) (bool, error) {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(wait.Milliseconds()))
	if errors.Is(err, unix.EINTR) {
		return false, nil
	}
	return n > 0, err
}

// parseUevent reads "add@/devices/…\0ACTION=add\0MODALIAS=…\0". add is true for
// a device that appeared, or changed as a disk whose partitions were read.
func parseUevent(message []byte) (add bool, modalias string) {
	for _, field := range bytes.Split(message, []byte{0}) {
		switch key, value, _ := strings.Cut(string(field), "="); key {
		case "ACTION":
			add = value == "add" || value == "change" || value == "bind"
		case "MODALIAS":
			modalias = value
		}
	}
	return add, modalias
}

// Storage tells the devices that can carry a root disk, and what such disks
// hang on. Loading only these first saves a node seconds of its boot.
func Storage(modalias string) bool {
	bus, rest, _ := strings.Cut(modalias, ":")
	switch bus {
	case "virtio": // virtio:d00000002v…: 2 is a block device, 8 a SCSI host
		return strings.HasPrefix(rest, "d00000002") || strings.HasPrefix(rest, "d00000008")
	case "pci": // …bc01sc06i01: class 01 is storage; class 06 are bridges
		_, class, found := strings.Cut(rest, "bc")
		return found && (strings.HasPrefix(class, "01") || strings.HasPrefix(class, "06"))
	case "scsi", "nvme", "vmbus", "xen", "ata":
		return true
	}
	return false
}
