package install

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/rackseed/rackseed/images/installer/disk"
	"github.com/rackseed/rackseed/images/pid1"
	"github.com/rackseed/rackseed/services/wire"
	"golang.org/x/sys/unix"
)

// configDir, in the new root, is on a tmpfs while Ignition runs.
const configDir, configFile = "/run/rackseed", "config.ign"

// ignition fetches this machine's Ignition, opens it with the key that only
// this session has, and runs the real Ignition in the new root. The plain text
// is only ever in memory and in a tmpfs.
func (r *run) ignition(ctx context.Context) (string, error) {
	var sealed wire.Sealed
	if err := r.Service.Retry(ctx, "this machine's Ignition", r.Permanent, func(ctx context.Context) (err error) {
		sealed, err = r.Service.Ignition(ctx)
		return err
	}); err != nil {
		return "", err
	}
	config, err := wire.Open(r.SealKey, wire.IgnitionPurpose(r.order.Intent, r.order.Epoch), sealed)
	if err != nil {
		return "", fmt.Errorf("this machine's Ignition: %w", err)
	}
	if err := pid1.MountNode(target, r.parts[disk.RootA].Path, r.parts[disk.Data].Path, slot); err != nil {
		return "", err
	}
	if err := mountForPrograms(); err != nil {
		return "", err
	}
	if err := withSecret(target+configDir, configFile, config, func() error {
		for _, stage := range []string{"fetch-offline", "files"} {
			if err := r.inTarget(ctx, "/usr/lib/rackseed/ignition", "--platform=file", "--stage="+stage, "--root=/", "--log-to-stdout",
				"--config-cache="+configDir+"/ignition.json", "--state-file="+configDir+"/ignition-state.json", "--neednet="+configDir+"/neednet"); err != nil {
				return fmt.Errorf("ignition, stage %s: %w", stage, err)
			}
		}
		return nil
	}); err != nil {
		return "", err
	}
	if err := setMachineID(filepath.Join(target, "etc/machine-id")); err != nil {
		return "", err
	}
	// systemd would apply presets by itself only on a boot without machine-id.
	if err := r.inTarget(ctx, "/usr/bin/systemctl", "preset-all"); err != nil {
		return "", fmt.Errorf("enabling the node's services: %w", err)
	}
	if err := r.hostKey(ctx); err != nil {
		return "", err
	}
	name, err := os.ReadFile(filepath.Join(target, "etc/hostname"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	r.node = strings.TrimSpace(string(name))
	return "the node is configured", nil
}

// withSecret has a secret in a file of dir while use runs. However that ends,
// dir is gone then, with whatever use made of the secret in it.
func withSecret(dir, name string, secret []byte, use func() error) (err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.WriteFile(filepath.Join(dir, name), secret, 0o600); err != nil {
		return err
	}
	return use()
}

// mountForPrograms gives the new root what Debian's programs expect.
func mountForPrograms() error {
	for _, m := range []string{"proc", "sys", "dev"} {
		if err := pid1.Mount("/"+m, filepath.Join(target, m), "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return err
		}
	}
	for _, m := range []string{"run", "tmp"} {
		if err := pid1.Mount("tmpfs", filepath.Join(target, m), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
			return err
		}
	}
	return nil
}

// inTarget runs a program with the new root as its root; its output is logged.
func (r *run) inTarget(ctx context.Context, program string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, programLimit)
	defer cancel()
	cmd := command(ctx, target, program, args...)
	out := &lineWriter{write: func(line string) { r.Log.Info(filepath.Base(program) + ": " + line) }}
	cmd.Stdout, cmd.Stderr = out, out
	err := r.Children.Run(cmd)
	out.end()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", program, err, out.last)
	}
	return nil
}

// command is a program that sees root as its root.
func command(ctx context.Context, root, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin", "HOME=/root", "LANG=C.UTF-8", "SYSTEMD_OFFLINE=1",
		"IGNITION_CONFIG_FILE=" + configDir + "/" + configFile}
	// A child that outlives it must not keep the install waiting for output.
	cmd.WaitDelay = outputGrace
	return cmd
}

// lineWriter splits a program's output into lines and remembers the last.
type lineWriter struct {
	write func(string)
	rest  []byte
	last  string
}

func (w *lineWriter) Write(p []byte) (int, error) {
	w.rest = append(w.rest, p...)
	for {
		i := bytes.IndexByte(w.rest, '\n')
		if i < 0 && len(w.rest) < 64<<10 { // a line without end must not grow for ever
			return len(p), nil
		}
		if i < 0 {
			i = len(w.rest) - 1
		}
		w.line(string(w.rest[:i]))
		w.rest = w.rest[i+1:]
	}
}

func (w *lineWriter) end() {
	w.line(string(w.rest))
	w.rest = nil
}

func (w *lineWriter) line(s string) {
	if s = strings.TrimSpace(s); s != "" {
		w.last = s
		w.write(s)
	}
}

// setMachineID makes the node's ID (machine-id(5)) unless Ignition set one.
func setMachineID(path string) error {
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if s := strings.TrimSpace(string(old)); s != "" && s != "uninitialized" {
		return nil
	}
	var id [16]byte
	rand.Read(id[:]) // never fails (crypto/rand)
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	if err := os.WriteFile(path, fmt.Appendf(nil, "%x\n", id), 0o444); err != nil {
		return fmt.Errorf("the node's machine ID: %w", err)
	}
	return os.Chmod(path, 0o444)
}

// hostKey makes the node's SSH host key, of the one kind that its sshd is told
// to use, unless Ignition brought one.
func (r *run) hostKey(ctx context.Context) error {
	const key, program = "/etc/ssh/ssh_host_ed25519_key", "/usr/bin/ssh-keygen"
	if _, err := os.Stat(target + key); err == nil || !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := r.inTarget(ctx, program, "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", key); err != nil {
		return fmt.Errorf("the node's SSH host key: %w", err)
	}
	return nil
}
