package pid1

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// syncLimit bounds the last sync: a dead disk must not keep a machine from
// restarting.
const syncLimit = 60 * time.Second

// Reboot writes everything to disk and restarts the machine. It returns only
// with an error.
func Reboot() error { return restart(unix.LINUX_REBOOT_CMD_RESTART, "restarting") }

// PowerOff writes everything to disk and switches the machine off.
func PowerOff() error { return restart(unix.LINUX_REBOOT_CMD_POWER_OFF, "switching off") }

func restart(command int, what string) error {
	done := make(chan struct{})
	go func() {
		unix.Sync()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(syncLimit):
	}
	if err := unix.Reboot(command); err != nil {
		return fmt.Errorf("%s the machine: %w", what, err)
	}
	return nil
}

// SetEnvironment gives PID 1 and its children what a login would: the kernel
// sets only HOME=/ and TERM=linux.
func SetEnvironment() error {
	for key, value := range map[string]string{
		"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "TERM": "linux", "LANG": "C.UTF-8",
	} {
		if err := os.Setenv(key, value); err != nil {
			return err
		}
	}
	return nil
}
