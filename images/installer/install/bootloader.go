package install

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/rackseed/rackseed/images/installer/disk"
	"github.com/rackseed/rackseed/images/installer/efi"
	"github.com/rackseed/rackseed/images/pid1"
	"github.com/rackseed/rackseed/services/wire"
	"golang.org/x/sys/unix"
)

// bootloader fills the ESP and makes the machine boot from it.
func (r *run) bootloader(ctx context.Context) (string, error) {
	part := r.parts[disk.ESP]
	if err := pid1.Mount(part.Path, esp, "vfat", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "umask=0077"); err != nil {
		return "", err
	}
	for _, f := range espFiles {
		blob, _ := file(r.order.Image, f.name)
		if err := r.fetchFile(ctx, blob, bootPath(f.path)); err != nil {
			return "", err
		}
	}
	line, err := commandLine(disk.Part(r.table, disk.RootA).ID, disk.Part(r.table, disk.Data).ID, r.order.KernelArguments)
	if err != nil {
		return "", err
	}
	if err := writeFile(bootPath("rackseed/"+slot+"/cmdline.cfg"), []byte(line)); err != nil {
		return "", err
	}
	// Last: without it GRUB has nothing to choose from.
	if err := writeFile(bootPath("boot/grub/grubenv"), grubenv()); err != nil {
		return "", err
	}
	if !r.UEFI {
		return "boot loader for BIOS installed", r.bios(ctx)
	}
	return r.bootEntry()
}

// bootEntry makes the firmware boot the ESP behind the network. What was there
// before is kept until the install has ended.
func (r *run) bootEntry() (string, error) {
	order, before, err := efi.AddEntry(r.edges.firmware, "Rackseed", string(r.Reported.BootMAC), disk.Part(r.table, disk.ESP), `\EFI\BOOT\BOOTX64.EFI`)
	if err != nil {
		// Some firmware does not let its variables be written, or has no room
		// left. The loader is at the default path, so most find it all the same.
		r.Log.Warn("the firmware took no boot entry; it has to find the disk by itself", "error", err)
		return "boot loader installed, without an entry in the firmware: " + err.Error(), nil
	}
	r.boot = before
	r.Log.Info("the firmware's boot order", "was", strings.Join(r.Reported.BootOrder, ", "), "is", strings.Join(order, ", "))
	// The rest of the firmware's list is noise.
	return "boot loader installed; the firmware boots " + strings.Join(order[:min(2, len(order))], ", then "), nil
}

// putBack makes the firmware's boot order what it was before an install that
// failed.
func (r *run) putBack() {
	if r.boot == nil {
		return
	}
	if err := r.boot.Restore(r.edges.firmware); err != nil {
		r.Log.Error("the firmware's boot order is not what it was before", "was", strings.Join(r.Reported.BootOrder, ", "), "error", err)
		return
	}
	r.Log.Info("the firmware's boot order is what it was before", "order", strings.Join(r.Reported.BootOrder, ", "))
}

// fetchFile fetches a blob into a file, on the disk when it returns.
func (r *run) fetchFile(ctx context.Context, blob wire.File, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	err = r.Service.Fetch(ctx, blob, f, nil)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func writeFile(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// bios writes GRUB's boot code into the first sector and its core into the
// BIOS boot partition.
func (r *run) bios(ctx context.Context) (err error) {
	files := map[string]*memory{bootImage: {}, coreImage: {}}
	for name, m := range files {
		blob, _ := file(r.order.Image, name)
		if blob.Size > disk.ESPBytes {
			return fmt.Errorf("%s has %d bytes", name, blob.Size)
		}
		m.b = make([]byte, blob.Size)
		if err := r.Service.Fetch(ctx, blob, m, nil); err != nil {
			return err
		}
	}
	part := disk.Part(r.table, disk.BIOS)
	code, core, err := biosLoader(files[bootImage].b, files[coreImage].b, part.First, int(part.Last-part.First+1)*r.table.SectorSize)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(r.disk.Path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.WriteAt(core, int64(part.First)*int64(r.table.SectorSize)); err != nil {
		return err
	}
	if _, err := f.WriteAt(code, 0); err != nil {
		return err
	}
	return f.Sync()
}

// memory is an io.WriterAt into bytes.
type memory struct{ b []byte }

func (m *memory) WriteAt(p []byte, offset int64) (int, error) {
	if offset < 0 || offset+int64(len(p)) > int64(len(m.b)) {
		return 0, fmt.Errorf("%d bytes at %d do not fit", len(p), offset)
	}
	return copy(m.b[offset:], p), nil
}
