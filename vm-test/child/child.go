// Package child runs programs that end with us, and all that they started with
// them.
package child

import (
	"context"
	"os/exec"
	"syscall"
	"time"
)

// stopTimeout is how long one may take to end.
const stopTimeout = 20 * time.Second

// Command is exec.CommandContext for a program with a group of its own. Ctrl-C
// reaches us alone, so that the group is told once to end, by SIGTERM, and does so
// in order. Its first program gets SIGTERM also when the thread that starts it
// ends: start it from one that is locked (runtime.LockOSThread).
func Command(ctx context.Context, program string, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, program, args...)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGTERM) }
	c.WaitDelay = stopTimeout
	return c
}
