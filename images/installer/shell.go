package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"time"

	"github.com/rackseed/rackseed/images/installer/rescue"
	"github.com/rackseed/rackseed/images/pid1"
	"github.com/rackseed/rackseed/images/pid1/kmod"
	"golang.org/x/sys/unix"
)

const greeting = `
Rackseed rescue shell. Nothing is mounted, and nothing is written but by you.

  rackseed-rescue mount    mount the node's file systems below /mnt/node, read-only
  chroot /mnt/node/a       the node's own programs: mdadm, lvm, smartctl, nvme, …
  reboot                   restart the machine, which ends the rescue

`

// busybox is where Debian has it.
const busybox = "/usr/bin/busybox"

// shell is the rescue shell, with what it needs made when it is first asked for.
type shell struct {
	*rescue.Server
	modules  *kmod.Loader
	children *pid1.Children
	log      *slog.Logger
	made     bool
}

// Serve is rescue.Server's.
func (s *shell) Serve(keys []string) error {
	if !s.made {
		if err := s.make(); err != nil {
			return err
		}
		s.made = true
	}
	return s.Server.Serve(keys)
}

// make gives the initramfs the names of busybox's programs. Debian's own, in
// /usr/sbin, come first in the PATH.
func (s *shell) make() error {
	for _, dir := range []string{"/root", "/mnt", "/usr/local/sbin"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := os.Symlink("/init", "/usr/local/sbin/"+rescue.Command); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := s.children.Output(ctx, busybox, "--install", "-s", "/bin"); err != nil {
		return fmt.Errorf("the rescue shell's programs: %w", err)
	}
	if err := loadFileSystems(s.modules, s.log); err != nil {
		s.log.Warn("file systems cannot all be mounted", "error", err)
	}
	return nil
}

func rescueServer(nic string, children *pid1.Children, log *slog.Logger) *rescue.Server {
	return &rescue.Server{
		Log: log, Children: children, Address: func() string { return addressOf(nic) },
		Shell: []string{"/bin/sh", "-l"}, Greeting: greeting,
	}
}

// addressOf is the link's first IPv4 address, for people.
func addressOf(nic string) string {
	i, err := net.InterfaceByName(nic)
	if err != nil {
		return nic
	}
	addresses, err := i.Addrs()
	if err != nil {
		return nic
	}
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil {
			return n.IP.String()
		}
	}
	return nic
}

// followSignals does what an init is asked for by reboot, halt and poweroff of
// busybox, and by kill 1.
func followSignals(log *slog.Logger) {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, unix.SIGTERM, unix.SIGINT, unix.SIGUSR1, unix.SIGUSR2)
	for s := range asked {
		log.Info("asked to end", "signal", s)
		end := pid1.Reboot
		if s == unix.SIGUSR1 || s == unix.SIGUSR2 {
			end = pid1.PowerOff
		}
		log.Error("the machine goes on", "error", end())
	}
}
