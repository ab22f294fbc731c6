package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// namespace is a network namespace. It ends with its last process, so that
// nothing is left behind even if we are killed.
type namespace struct {
	sleep *exec.Cmd // keeps it
}

// newNamespace makes one; loopback is up.
func newNamespace(ctx context.Context) (*namespace, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("network namespaces need root: run the benches as root, or name those that need none")
	}
	n := &namespace{sleep: exec.Command("sleep", "3600")}
	n.sleep.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := n.sleep.Start(); err != nil {
		return nil, fmt.Errorf("a network namespace: %w", err)
	}
	if err := n.run(ctx, "ip", "link", "set", "lo", "up"); err != nil {
		return nil, errors.Join(err, n.close())
	}
	return n, nil
}

// inside is a command as it runs in the namespace.
func (n *namespace) inside(ctx context.Context, cmd *exec.Cmd) *exec.Cmd {
	in := exec.CommandContext(ctx, "nsenter", append([]string{"--target", n.pid(), "--net", "--", cmd.Path}, cmd.Args[1:]...)...)
	in.Env, in.WaitDelay = cmd.Env, 5*time.Second
	return in
}

// run runs a program of the host in the namespace.
func (n *namespace) run(ctx context.Context, name string, args ...string) error {
	cmd := n.inside(ctx, exec.Command(name, args...))
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %v in a network namespace: %w: %s", name, args, err, said.Bytes())
	}
	return nil
}

// do calls f on a thread that is in the namespace: sockets that f opens belong
// there, whoever uses them afterwards.
func (n *namespace) do(f func() error) (err error) {
	there, err := os.Open(filepath.Join("/proc", n.pid(), "ns/net"))
	if err != nil {
		return err
	}
	defer there.Close()
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer home.Close()
	defer func() {
		if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
			// The thread stays locked: nobody else gets it.
			err = errors.Join(err, fmt.Errorf("leaving a network namespace: %w", back))
			return
		}
		// It must not end instead: servers that it started would (Pdeathsig).
		runtime.UnlockOSThread()
	}()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("entering a network namespace: %w", err)
	}
	return f()
}

func (n *namespace) pid() string { return strconv.Itoa(n.sleep.Process.Pid) }

func (n *namespace) close() error {
	err := n.sleep.Process.Kill()
	_ = n.sleep.Wait() // tells of the kill
	return err
}

// cable is two hosts, each with an interface eth0, and nothing else.
type cable struct{ server, client *namespace }

// newCable connects two new namespaces and gives the ends addresses, with
// prefix lengths.
func newCable(ctx context.Context, server, client string) (*cable, error) {
	c := &cable{}
	var err error
	if c.server, err = newNamespace(ctx); err != nil {
		return nil, err
	}
	if c.client, err = newNamespace(ctx); err != nil {
		return nil, errors.Join(err, c.server.close())
	}
	err = c.server.run(ctx, "ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", c.client.pid())
	for n, address := range map[*namespace]string{c.server: server, c.client: client} {
		if err == nil {
			err = n.run(ctx, "ip", "addr", "add", address, "dev", "eth0")
		}
		if err == nil {
			err = n.run(ctx, "ip", "link", "set", "eth0", "up")
		}
	}
	if err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

func (c *cable) close() error { return errors.Join(c.server.close(), c.client.close()) }
