package containerimages

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/rackseed/rackseed/build/pins"
)

// config is containerd's, without the plugins that are not needed to import or
// would look at the build host.
const config = `version = 3
root = '%s'
state = '%s'
disabled_plugins = ['io.containerd.grpc.v1.cri', 'io.containerd.cri.v1.images', 'io.containerd.cri.v1.runtime',
  'io.containerd.nri.v1.nri', 'io.containerd.snapshotter.v1.blockfile', 'io.containerd.snapshotter.v1.native',
  'io.containerd.snapshotter.v1.erofs', 'io.containerd.internal.v1.tracing', 'io.containerd.tracing.processor.v1.otlp',
  'io.containerd.internal.v1.opt', 'io.containerd.ttrpc.v1.otelttrpc']
[grpc]
address = '%s'
[ttrpc]
address = '%s'
`

const (
	startLimit  = 60 * time.Second
	importLimit = 10 * time.Minute
	stopLimit   = 20 * time.Second
)

// containerd is a daemon of ours on a root of its own, in a mount namespace of
// its own; as an ordinary user in a user namespace in which the caller is root.
type containerd struct {
	cmd    *exec.Cmd
	state  string // a short path: a socket's is at most 107 bytes
	socket string
	exited chan error
}

func startContainerd(ctx context.Context, program, root string, log io.Writer) (c *containerd, err error) {
	state, err := os.MkdirTemp("", "rs-ctd-")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(state))
		}
	}()
	socket := filepath.Join(state, "s")
	file := filepath.Join(state, "config.toml")
	if err := os.WriteFile(file, fmt.Appendf(nil, config, root, filepath.Join(state, "state"), socket, socket+".ttrpc"), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program, "--config", file)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopLimit
	cmd.SysProcAttr = namespaces(os.Geteuid(), os.Getegid())
	if err := cmd.Start(); err != nil {
		if os.Geteuid() != 0 && errors.Is(err, os.ErrPermission) {
			return nil, fmt.Errorf("containerd in a user namespace: %w; unprivileged user namespaces are switched off here: build as root, or allow them with: sudo sysctl kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0", err)
		}
		return nil, fmt.Errorf("containerd: %w", err)
	}
	c = &containerd{cmd: cmd, state: state, socket: socket, exited: make(chan error, 1)}
	go func() { c.exited <- cmd.Wait() }()
	if err := c.waitReady(ctx); err != nil {
		return nil, errors.Join(err, c.stop())
	}
	return c, nil
}

// namespaces are a private mount namespace, and for an ordinary user a user
// namespace where it is root, which is all that unpacking root's files needs.
func namespaces(uid, gid int) *syscall.SysProcAttr {
	if uid == 0 {
		return &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	}
	return &syscall.SysProcAttr{
		Cloneflags:                 syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings:                []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}},
		GidMappings:                []syscall.SysProcIDMap{{ContainerID: 0, HostID: gid, Size: 1}},
		GidMappingsEnableSetgroups: false,
	}
}

func (c *containerd) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit, fmt.Errorf("containerd did not open its socket within %s", startLimit))
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if conn, err := net.Dial("unix", c.socket); err == nil {
			return conn.Close()
		}
		select {
		case err := <-c.exited:
			c.exited <- err
			return fmt.Errorf("containerd ended at its start: %w", err)
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// stop ends the daemon; its databases are complete after it.
func (c *containerd) stop() error {
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	var err error
	select {
	case err = <-c.exited:
	case <-time.After(stopLimit):
		err = errors.Join(errors.New("containerd did not end in time and was killed"), c.cmd.Process.Kill(), <-c.exited)
	}
	return errors.Join(err, os.RemoveAll(c.state))
}

func (c *containerd) ctr(ctx context.Context, program string, log io.Writer, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, importLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, append([]string{"--address", c.socket, "--namespace", pins.ContainerdImageNS}, args...)...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("ctr %s %s: %w", args[0], args[1], err)
	}
	return nil
}

// importArgs of ctr are an input of the step: the store has what they say.
var importArgs = []string{
	"images", "import", "--local", "--snapshotter", "overlayfs", "--discard-unpacked-layers", "--label", "io.cri-containerd.image=managed",
	// There is nowhere to pull them from again: the kubelet must not collect
	// them on a full disk (KEP-2040).
	"--label", "io.cri-containerd.pinned=pinned",
}

// importArchive fills root, containerd's folder, with an archive's images,
// unpacked. The layers themselves are thrown away afterwards, as containerd
// does with discard_unpacked_layers: a snapshot has all that is in them.
func importArchive(ctx context.Context, programs, ctr, root, archive string, log io.Writer) (err error) {
	c, err := startContainerd(ctx, programs, root, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	for _, args := range [][]string{
		append(slices.Clone(importArgs), archive),
		// Collects what nothing refers to, and returns when it is gone.
		{"content", "prune", "references"},
	} {
		if err := c.ctr(ctx, ctr, log, args...); err != nil {
			return err
		}
	}
	return nil
}
