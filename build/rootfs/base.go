// Package rootfs makes the node's root file system: Debian packages, our
// programs and files, the kernel's modules and the container images, as one
// erofs image with the same bytes each time.
//
//	Base    Debian alone, by mmdebstrap: slow, and changes with the lock only
//	Kernel  vmlinuz and the modules
//	Image   everything together, assembled as a tar and made into erofs
package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/rackseed/rackseed/build/debian"
	"github.com/rackseed/rackseed/build/pins"
	"github.com/rackseed/rackseed/build/step"
	"github.com/rackseed/rackseed/build/tools"
)

// cleanup deletes what packages generate for one machine alone, and what
// differs from build to build. It runs in the new root's parent, "$1" is the
// root.
const cleanup = `rm -rf "$1"/etc/ssh/ssh_host_* "$1"/etc/hostname "$1"/etc/resolv.conf "$1"/etc/nvme/hostid "$1"/etc/nvme/hostnqn ` +
	`"$1"/etc/machine-id "$1"/var/lib/dbus/machine-id "$1"/var/lib/systemd/random-seed "$1"/var/log/* "$1"/var/cache/* "$1"/var/lib/apt/lists/* ` +
	`"$1"/etc/apt/sources.list "$1"/etc/apt/apt.conf.d/99mmdebstrap "$1"/etc/ssl/certs/java "$1"/tmp/* "$1"/run/*`

// mounted ends a run whose new root has no /proc. mmdebstrap only warns when it
// cannot mount, and packages' scripts then leave out files in silence. It is no
// input of the step: a run that passes it makes what it made without it.
const mounted = `test -e "$1/proc/self/status" || { echo "/proc could not be mounted in the new root:` +
	` install the package mount; a container must be allowed to (docker run --privileged)" >&2; exit 1; }`

// Base is a step that makes base.tar: the packages of the set "node",
// installed. toolsStep is the set "tools", unpacked.
func Base(ctx context.Context, archive *debian.Archive, toolsStep *step.Step) (*step.Step, error) {
	l, err := archive.Lock(ctx)
	if err != nil {
		return nil, err
	}
	packages, err := l.Set("node")
	if err != nil {
		return nil, err
	}
	return &step.Step{
		Name:   "node-base",
		Inputs: append([]string{"1", strconv.Itoa(pins.SourceDateEpoch), cleanup}, debian.Inputs(packages)...),
		Deps:   []*step.Step{toolsStep},
		Make: func(ctx context.Context, out string, deps []string, log io.Writer) (err error) {
			files, err := archive.Fetch(ctx, packages)
			if err != nil {
				return err
			}
			mode, err := bootstrapMode(os.Geteuid(), exec.LookPath, os.ReadFile)
			if err != nil {
				return err
			}
			repository, err := os.MkdirTemp("", "rackseed-debian-")
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, os.RemoveAll(repository)) }()
			if err := os.Chmod(repository, 0o755); err != nil {
				return err
			}
			if err := writeRepository(ctx, repository, packages, files); err != nil {
				return err
			}
			return bootstrap(ctx, tools.Root(deps[0]), mode, repository, packages, filepath.Join(out, "base.tar"), log)
		},
	}, nil
}

func bootstrap(ctx context.Context, root tools.Root, mode, repository string, packages []debian.Package, out string, log io.Writer) error {
	var names []string
	for _, p := range packages {
		names = append(names, p.Name)
	}
	cmd, err := root.Command(ctx, "mmdebstrap", "--mode="+mode, "--variant=apt", "--format=tar",
		"--include="+strings.Join(names, ","),
		`--aptopt=APT::Install-Recommends "false"`, `--aptopt=Acquire::Languages "none"`,
		"--extract-hook="+mounted, "--customize-hook="+cleanup,
		// cleanup has done it, and has deleted the settings by which apt would
		// find the new root: it would clean the host's lists instead.
		"--skip=cleanup/apt",
		pins.DebianSuite, out, "deb [trusted=yes] copy:"+repository+" ./")
	if err != nil {
		return err
	}
	cmd.Env = append(cmd.Env, "SOURCE_DATE_EPOCH="+strconv.Itoa(pins.SourceDateEpoch))
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("mmdebstrap --mode=%s: %w", mode, err)
	}
	return nil
}

// bootstrapMode is mmdebstrap's mode: as root, or in a user namespace, which
// an ordinary user needs newuidmap and a range of user IDs for.
func bootstrapMode(uid int, lookPath func(string) (string, error), readFile func(string) ([]byte, error)) (string, error) {
	if uid == 0 {
		return "root", nil
	}
	for _, program := range []string{"newuidmap", "newgidmap"} {
		if _, err := lookPath(program); err != nil {
			return "", fmt.Errorf("making a root file system as an ordinary user needs %s; install it once with: sudo apt-get install uidmap", program)
		}
	}
	name := strconv.Itoa(uid)
	if u, err := user.LookupId(name); err == nil {
		name = u.Username
	}
	for _, file := range []string{"/etc/subuid", "/etc/subgid"} {
		b, err := readFile(file)
		if err != nil || !hasRange(string(b), name, strconv.Itoa(uid)) {
			return "", fmt.Errorf("making a root file system as an ordinary user needs 65536 IDs in %s; give them once with: sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 %s", file, name)
		}
	}
	return "unshare", nil
}

// hasRange says whether a subuid(5) file gives one of the names enough IDs.
func hasRange(text string, names ...string) bool {
	for line := range strings.Lines(text) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) != 3 {
			continue
		}
		count, err := strconv.Atoi(f[2])
		for _, name := range names {
			if f[0] == name && err == nil && count >= 65536 {
				return true
			}
		}
	}
	return false
}
