package pid1

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Children starts programs and reaps orphans, which only PID 1 can. os/exec
// waits for its own; taking a status from under it would lose it, so every
// program of a PID 1 is started here and only others are reaped.
type Children struct {
	mu    sync.Mutex
	known map[int]bool
}

// Start starts cmd. Wait must follow.
func (c *Children) Start(cmd *exec.Cmd) error {
	c.mu.Lock() // no reaping between the fork and the note of its ID
	defer c.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return err
	}
	if c.known == nil {
		c.known = map[int]bool{}
	}
	c.known[cmd.Process.Pid] = true
	return nil
}

// Wait waits for a command that Start started.
func (c *Children) Wait(cmd *exec.Cmd) error {
	err := cmd.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.known, cmd.Process.Pid)
	return err
}

// Run starts cmd and waits for it.
func (c *Children) Run(cmd *exec.Cmd) error {
	if err := c.Start(cmd); err != nil {
		return err
	}
	return c.Wait(cmd)
}

// Output runs a program and returns what it printed, bounded to its last 64
// KiB. The error carries the last line.
func (c *Children) Output(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	out := &tail{limit: 64 << 10}
	cmd.Stdout, cmd.Stderr = out, out
	if err := c.Run(cmd); err != nil {
		text := strings.TrimSpace(string(out.b))
		return string(out.b), fmt.Errorf("%s: %w: %s", name, err, text[strings.LastIndexByte(text, '\n')+1:])
	}
	return string(out.b), nil
}

type tail struct {
	b     []byte
	limit int
}

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if extra := len(t.b) - t.limit; extra > 0 {
		t.b = append(t.b[:0], t.b[extra:]...)
	}
	return len(p), nil
}

// Reap reaps orphans until ctx ends. Looking for them costs a pass over /proc,
// so it is done at most once a second.
func (c *Children) Reap(ctx context.Context) {
	died := make(chan os.Signal, 1)
	signal.Notify(died, unix.SIGCHLD)
	defer signal.Stop(died)
	pause := time.NewTicker(time.Second)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-died:
		}
		c.reapOnce()
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
	}
}

func (c *Children) reapOnce() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, pid := range zombies(os.DirFS("/proc"), os.Getpid()) {
		if !c.known[pid] {
			// An error means that it is gone already, which is what was wanted.
			_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
		}
	}
}

// parseStat reads state and parent of /proc/PID/stat; the program's name in
// parentheses may hold anything.
func parseStat(stat string) (state byte, parent int, ok bool) {
	f := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(f) < 2 || len(f[0]) != 1 {
		return 0, 0, false
	}
	parent, err := strconv.Atoi(f[1])
	return f[0][0], parent, err == nil
}
