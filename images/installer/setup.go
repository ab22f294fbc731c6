package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/rackseed/rackseed/images/installer/client"
	"github.com/rackseed/rackseed/images/installer/journal"
	"github.com/rackseed/rackseed/images/pid1"
	"github.com/rackseed/rackseed/images/pid1/kmod"
	"github.com/rackseed/rackseed/images/pid1/link"
)

const (
	// dhcpClass is the vendor class of all of Rackseed's own clients, which its
	// DHCP server serves: rackseed- and what they are.
	dhcpClass = "rackseed-installer"
	// quiet is the silence after which all devices are taken to be there.
	quiet = time.Second
	// late is the same for a look again, at disks that took long to come up.
	late = 300 * time.Millisecond
	// look is how long one look for devices, or for a carrier, lasts before it
	// is told that the machine still waits.
	look = 30 * time.Second
)

// openLog makes every line go to all consoles, the kernel's log and the boot
// service.
func openLog(log **slog.Logger, j *journal.Journal) error {
	console, err := pid1.OpenConsole()
	if err != nil {
		return err
	}
	kmsg, err := pid1.OpenKmsg()
	if err != nil {
		return err
	}
	*log = slog.New(pid1.NewLineHandler(slog.LevelInfo, func(line string) {
		// What cannot be shown here is still in the journal.
		_, _ = fmt.Fprintln(console, line)
		_, _ = fmt.Fprintln(kmsg, line)
		j.Append(line)
	}))
	return nil
}

// connect loads the machine's drivers and sets up the link that it netbooted
// from. It waits for ever, saying for what.
func connect(ctx context.Context, modules *kmod.Loader, line pid1.CommandLine, log *slog.Logger) (link.Link, error) {
	var bootMAC net.HardwareAddr
	if v := line.Get("BOOTIF"); v != "" {
		mac, err := link.ParseBOOTIF(v)
		if err != nil {
			return link.Link{}, err
		}
		bootMAC = mac
	}
	// Raw sockets for DHCP, and the firmware's variables.
	if err := modules.Load("af_packet", "efivarfs"); err != nil && !errors.Is(err, kmod.ErrUnknown) {
		log.Warn("a kernel module was not loaded", "error", err)
	}
	if err := link.Up("lo"); err != nil {
		return link.Link{}, err
	}
	nic, err := findLink(ctx, modules, bootMAC, log)
	if err != nil {
		return link.Link{}, err
	}
	lease, err := link.Acquire(ctx, nic.Name, dhcpClass, func(err error) { log.Warn("waiting for DHCP", "error", err) })
	if err != nil {
		return link.Link{}, err
	}
	const resolvConf = "/etc/resolv.conf"
	if err := os.MkdirAll(filepath.Dir(resolvConf), 0o755); err != nil {
		return link.Link{}, err
	}
	if err := lease.Apply(nic.Name, resolvConf); err != nil {
		return link.Link{}, err
	}
	log.Info("network is up", "link", nic.Name, "mac", nic.MAC, "driver", nic.Driver, "address", lease.Address, "router", lease.Router, "server", lease.Server)
	go link.Keep(ctx, nic.Name, dhcpClass, resolvConf, lease, log)
	return nic, nil
}

// findLink returns the link with that hardware address once it has a carrier;
// without an address (a loader that does not tell) the first link that has one.
func findLink(ctx context.Context, modules *kmod.Loader, mac net.HardwareAddr, log *slog.Logger) (link.Link, error) {
	plug := kmod.Plug{Quiet: quiet}
	for {
		round, cancel := context.WithTimeout(ctx, look)
		err := modules.Coldplug(round, plug)
		cancel()
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return link.Link{}, err
		}
		links, err := link.List()
		if err != nil {
			return link.Link{}, err
		}
		for _, l := range links {
			if mac != nil && l.MAC.String() != mac.String() {
				continue
			}
			if err := link.Up(l.Name); err != nil {
				log.Warn("a link was not brought up", "error", err)
				continue
			}
			round, cancel := context.WithTimeout(ctx, look)
			err := link.WaitCarrier(round, l.Name)
			cancel()
			if err == nil {
				return l, nil
			}
			log.Warn("waiting for a carrier", "error", err)
		}
		if ctx.Err() != nil {
			return link.Link{}, ctx.Err()
		}
		log.Warn("waiting for the link that this machine netbooted from; does this kernel have its driver?", "mac", mac, "links", names(links))
		// Whatever appears from now on is looked at after a longer silence.
		plug.Quiet = 5 * quiet
	}
}

// plugLate gives drivers to devices that appeared since the last look, as disks
// behind an expander do.
func plugLate(ctx context.Context, modules *kmod.Loader, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(ctx, look)
	defer cancel()
	if err := modules.Coldplug(ctx, kmod.Plug{Quiet: late}); err != nil {
		log.Warn("looking for late devices", "error", err)
	}
}

func names(links []link.Link) string {
	text := "none"
	for i, l := range links {
		if i == 0 {
			text = ""
		} else {
			text += ", "
		}
		text += fmt.Sprintf("%s %s (%s)", l.Name, l.MAC, l.Driver)
	}
	return text
}

// setTime takes the boot service's clock: certificates and logs need one that
// is about right. Not to get it is no reason to stop. The machine's own clock is
// left alone until a node is installed.
func setTime(ctx context.Context, service *client.Client, log *slog.Logger) {
	var now time.Time
	err := service.Retry(ctx, "the boot service's clock", client.Permanent, func(ctx context.Context) (err error) {
		now, err = service.Time(ctx)
		return err
	})
	changed := false
	if err == nil {
		changed, err = pid1.SetClock(now)
	}
	if err == nil && changed {
		log.Info("the kernel's clock was set", "to", now.UTC().Format(time.RFC3339))
	}
	if err != nil {
		log.Warn("the clock was not set", "error", err)
	}
}

// loadFileSystems loads what an install mounts. The tables for FAT's names are
// modules of their own, which the kernel asks for by other names on each build.
func loadFileSystems(modules *kmod.Loader, log *slog.Logger) error {
	if err := modules.Load("erofs", "ext4", "overlay", "vfat"); err != nil {
		return err
	}
	if err := modules.Load("nls_cp437", "nls_ascii", "nls_utf8", "nls_iso8859_1"); err != nil && !errors.Is(err, kmod.ErrUnknown) {
		log.Warn("a name table was not loaded", "error", err)
	}
	return nil
}
