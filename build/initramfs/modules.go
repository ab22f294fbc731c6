package initramfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rackseed/rackseed/images/pid1/kmod"
)

// Command makes the command of a private tool: depmod, here.
type Command func(ctx context.Context, name string, args ...string) (*exec.Cmd, error)

// Wide is what a machine that is not known beforehand may need to find its
// network, its disks and the stick: for the appliance and the installer. Each
// word is a folder below kernel/, with all that is below it, or one module.
var Wide = []string{
	// network
	"drivers/net/ethernet", "drivers/net/mdio", "drivers/net/phy", "drivers/net/pcs",
	"drivers/net/usb", "drivers/net/hyperv", "drivers/net/vmxnet3", "drivers/net/bonding",
	"virtio_net", "net_failover", "xen-netfront", "8021q", "af_packet",
	// storage
	"drivers/ata", "drivers/block", "drivers/cdrom", "drivers/message", "drivers/mmc",
	"drivers/nvme/host", "drivers/scsi", "drivers/usb/storage",
	// buses, and what a person at the machine types on and presses
	"drivers/hv", "drivers/usb/common", "drivers/usb/core", "drivers/usb/host", "drivers/virtio",
	"drivers/pci/controller", "drivers/hid", "drivers/input/keyboard", "drivers/input/serio",
	"evdev", "button", "drivers/char/hw_random", "virtio_console",
	// file systems
	"fs/efivarfs", "fs/ext4", "fs/fat", "fs/isofs", "fs/jbd2", "fs/nls", "fs/overlayfs", "fs/erofs",
	"loop", "crc32c*", "crc32_*", "crc64*", "xxhash*", "crc-t10dif", "crct10dif*",
}

// Root is what a node needs to find and mount its own root disk; all other
// drivers are in the root file system.
var Root = []string{
	"drivers/ata", "drivers/block", "drivers/message", "drivers/nvme/host", "drivers/scsi",
	"drivers/hv", "drivers/virtio", "drivers/pci/controller", "drivers/usb/common",
	"drivers/usb/core", "drivers/usb/host", "drivers/hid", "drivers/input/keyboard",
	"fs/efivarfs", "fs/ext4", "fs/fat", "fs/jbd2", "fs/nls", "fs/overlayfs", "fs/erofs",
	"crc32c*", "crc32_*", "crc64*", "xxhash*", "crc-t10dif", "crct10dif*",
}

// Never is left out of either list: what a server's root disk or link never
// hangs on, but large.
var Never = []string{
	"drivers/net/ethernet/dec", "drivers/usb/host/sl811*", "drivers/scsi/bfa", "drivers/scsi/qla4xxx",
	"drivers/scsi/pcmcia", "drivers/block/drbd", "drivers/block/rbd", "drivers/block/aoe",
}

// chosen lists the module files below kernel/ that words name, and all that
// they need, as PID 1 will load them.
func chosen(dir fs.FS, words, never []string) ([]string, error) {
	index, err := kmod.ReadIndex(dir)
	if err != nil {
		return nil, err
	}
	used := map[string]bool{}
	set := map[string]bool{}
	err = fs.WalkDir(dir, "kernel", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.Contains(d.Name(), ".ko") {
			return err
		}
		if slices.ContainsFunc(never, func(w string) bool { return names(w, p) }) {
			return nil
		}
		for _, w := range words {
			if !names(w, p) {
				continue
			}
			used[w] = true
			for _, s := range index.Plan(kmod.Name(p)) {
				set[s.Path] = true
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, w := range words {
		if _, builtin := index.Resolve(w); !used[w] && !builtin && !strings.ContainsAny(w, "/*") {
			return nil, fmt.Errorf("initramfs: no kernel module is named %q; was it renamed or built in?", w)
		}
	}
	list := make([]string, 0, len(set))
	for p := range set {
		list = append(list, p)
	}
	slices.Sort(list)
	return list, nil
}

// names says whether word names the module file p ("kernel/fs/ext4/ext4.ko.xz").
func names(word, p string) bool {
	if strings.Contains(word, "/") {
		p = strings.TrimPrefix(p, "kernel/")
		if strings.HasPrefix(p, word+"/") {
			return true
		}
		base, _, _ := strings.Cut(p, ".ko")
		ok, err := path.Match(word, base)
		return ok && err == nil
	}
	ok, err := path.Match(kmod.Name(word), kmod.Name(p))
	return ok && err == nil
}

// modules adds the chosen modules of the only kernel below root/usr/lib/modules,
// with indexes that know just these. scratch is an empty folder that must live
// until the archive is written.
func (t tree) modules(ctx context.Context, root, scratch string, words []string, run Command) error {
	base := filepath.Join(root, "usr")
	kernels, err := os.ReadDir(filepath.Join(base, "lib/modules"))
	if err != nil {
		return fmt.Errorf("initramfs: kernel modules: %w", err)
	}
	if len(kernels) != 1 {
		return fmt.Errorf("initramfs: %s/lib/modules holds %d kernels, one is expected", base, len(kernels))
	}
	version := kernels[0].Name()
	from := filepath.Join(base, "lib/modules", version)

	// The package has no indexes (its postinst makes them), and root is not
	// to be changed: index it from outside to know what needs what.
	all := filepath.Join(scratch, "all")
	if err := depmod(ctx, run, "-b", base, "-o", all, version); err != nil {
		return err
	}
	indexes := filepath.Join(all, "lib/modules", version)
	if err := errors.Join(
		os.Symlink(filepath.Join(from, "kernel"), filepath.Join(indexes, "kernel")),
		os.Symlink(filepath.Join(from, "modules.builtin"), filepath.Join(indexes, "modules.builtin")),
	); err != nil {
		return err
	}
	list, err := chosen(os.DirFS(indexes), words, Never)
	if err != nil {
		return err
	}

	part := filepath.Join(scratch, "part/lib/modules", version)
	for _, p := range append([]string{"modules.builtin", "modules.builtin.modinfo", "modules.order"}, list...) {
		to := filepath.Join(part, p)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if err := os.Symlink(filepath.Join(from, p), to); err != nil {
			return err
		}
	}
	if err := depmod(ctx, run, "-b", filepath.Join(scratch, "part"), version); err != nil {
		return err
	}
	at := "lib/modules/" + version
	for _, p := range list {
		t.put(path.Join(at, p), entry{mode: modeFile, file: filepath.Join(from, p)})
	}
	for _, p := range []string{"modules.dep", "modules.alias", "modules.softdep", "modules.builtin", "modules.builtin.modinfo", "modules.builtin.alias", "modules.order"} {
		b, err := os.ReadFile(filepath.Join(part, p))
		if os.IsNotExist(err) && p == "modules.builtin.alias" { // only written by some releases of depmod
			continue
		}
		if err != nil {
			return fmt.Errorf("initramfs: %w", err)
		}
		t.put(path.Join(at, p), entry{mode: modeFile, data: b})
	}
	return nil
}

func depmod(ctx context.Context, run Command, args ...string) error {
	cmd, err := run(ctx, "depmod", args...)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("initramfs: depmod %s: %w\n%s", strings.Join(args, " "), err, out.String())
	}
	return nil
}
