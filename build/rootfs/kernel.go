package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/rackseed/rackseed/build/step"
	"github.com/rackseed/rackseed/build/tools"
)

// Kernel is a step that makes vmlinuz, the node's modules below
// lib/modules/VERSION with depmod's indexes and the kernel's configuration (which
// kubeadm's preflight checks), and the file version. boot is the set "boot",
// unpacked.
func Kernel(boot, toolsStep *step.Step) *step.Step {
	return &step.Step{
		Name:   "node-kernel",
		Inputs: append([]string{"2"}, droppedModules...),
		Deps:   []*step.Step{boot, toolsStep},
		Make: func(ctx context.Context, out string, deps []string, log io.Writer) error {
			version, err := KernelVersion(deps[0])
			if err != nil {
				return err
			}
			from, to := filepath.Join(deps[0], "usr/lib/modules", version), filepath.Join(out, "lib/modules", version)
			if err := copyModules(to, from); err != nil {
				return fmt.Errorf("modules of kernel %s: %w", version, err)
			}
			cmd, err := tools.Root(deps[1]).Command(ctx, "depmod", "-b", out, version)
			if err != nil {
				return err
			}
			cmd.Stdout, cmd.Stderr = log, log
			if err := cmd.Run(); err != nil {
				return fmt.Errorf("depmod %s: %w", version, err)
			}
			return errors.Join(
				copyFile(filepath.Join(to, "config"), filepath.Join(deps[0], "boot/config-"+version), 0o644),
				copyFile(filepath.Join(out, "vmlinuz"), filepath.Join(deps[0], "boot/vmlinuz-"+version), 0o644),
				os.WriteFile(filepath.Join(out, "version"), []byte(version+"\n"), 0o644))
		},
	}
}

// KernelVersion is the version of the one kernel in an unpacked set "boot".
func KernelVersion(boot string) (string, error) {
	found, err := filepath.Glob(filepath.Join(boot, "boot/vmlinuz-*"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("%s/boot: one vmlinuz is expected, there are %d", boot, len(found))
	}
	return filepath.Base(found[0])[len("vmlinuz-"):], nil
}

func copyModules(to, from string) error {
	return filepath.WalkDir(from, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, file)
		if err != nil {
			return err
		}
		switch {
		case dropModule(filepath.ToSlash(rel)):
			return nil
		case d.IsDir():
			if dropModule(filepath.ToSlash(rel) + "/") {
				return filepath.SkipDir
			}
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		case d.Type().IsRegular():
			return copyFile(filepath.Join(to, rel), file, 0o644)
		}
		return nil // "build" and "source", links to headers that are not there
	})
}
