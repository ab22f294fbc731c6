package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	readyLimit = 30 * time.Second
	stopLimit  = 20 * time.Second
)

// daemon is a server that a bench started and stops.
type daemon struct {
	name string
	cmd  *exec.Cmd
	log  string // the file of what it prints
	done chan struct{}
	err  error // why it ended; after done
}

// start starts a server whose words go to the file log. It ends with us at the
// latest.
func start(name string, cmd *exec.Cmd, log string) (*daemon, error) {
	f, err := os.Create(log)
	if err != nil {
		return nil, fmt.Errorf("%s: its log: %w", name, err)
	}
	defer f.Close() // the server has its own
	cmd.Stdout, cmd.Stderr = f, f
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: starting it: %w", name, err)
	}
	d := &daemon{name: name, cmd: cmd, log: log, done: make(chan struct{})}
	go func() {
		d.err = cmd.Wait()
		close(d.done)
	}()
	return d, nil
}

// await asks whether the server is ready until it is, at most for half a minute.
func (d *daemon) await(ctx context.Context, ready func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-d.done:
			return fmt.Errorf("%s ended: %w; at last it said:\n%s", d.name, errors.Join(d.err, err), d.lastWords())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready after %v: %w; at last it said:\n%s", d.name, readyLimit, err, d.lastWords())
		}
	}
}

// stop ends the server, by force if it takes long. How it ends is no matter
// of a bench, that it took force is.
func (d *daemon) stop() error {
	select {
	case <-d.done:
		return fmt.Errorf("%s ended before its time: %w; at last it said:\n%s", d.name, d.err, d.lastWords())
	default:
	}
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("%s: stopping it: %w", d.name, err)
	}
	limit := time.NewTimer(stopLimit)
	defer limit.Stop()
	select {
	case <-d.done:
		return nil
	case <-limit.C:
	}
	err := d.cmd.Process.Kill()
	<-d.done
	return errors.Join(fmt.Errorf("%s did not end within %v of being told to; its log is %s", d.name, stopLimit, d.log), err)
}

func (d *daemon) lastWords() string {
	b, err := os.ReadFile(d.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-10):], "\n")
}

// fresh is an empty folder of that name in dir.
func fresh(dir, name string) (string, error) {
	path := filepath.Join(dir, name)
	if err := os.RemoveAll(path); err != nil {
		return "", err
	}
	return path, os.MkdirAll(path, 0o755)
}
