package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/rackseed/rackseed/build/host"
)

// KVM is what came out of trying /dev/kvm.
type KVM struct {
	Works  bool
	Reason string // for people: why it is used or not, and the way out
}

// bootSector writes 0x10 to the debug-exit port 0xf4 and then halts: a guest
// that runs at all ends QEMU with status 33.
var bootSector = []byte{
	0xb0, 0x10, // mov al, 0x10
	0xe6, 0xf4, // out 0xf4, al
	0xf4,       // hlt
	0xeb, 0xfd, // jmp to the hlt
}

// TryKVM finds out whether KVM works by running guests under it: the device
// alone says little, since there are hosts on which it opens and guests hang.
// kernel is a Linux kernel that must get as far as panicking for want of a
// root; empty, only a boot sector is run.
func TryKVM(ctx context.Context, h Host, kernel string) KVM {
	if err := host.KVM(); err != nil {
		return KVM{Reason: err.Error()}
	}
	dir, err := os.MkdirTemp("", "rackseed-kvm")
	if err != nil {
		return KVM{Reason: fmt.Sprintf("KVM was not tried: %v", err)}
	}
	defer os.RemoveAll(dir)
	if err := trySector(ctx, h, dir); err != nil {
		return KVM{Reason: fmt.Sprintf("/dev/kvm opens but no guest runs (%v): machines are emulated", err)}
	}
	if kernel != "" {
		if err := tryKernel(ctx, h, kernel); err != nil {
			return KVM{Reason: fmt.Sprintf("/dev/kvm opens but a Linux guest does not run (%v): machines are emulated", err)}
		}
	}
	return KVM{Works: true, Reason: "KVM works and is used"}
}

func trySector(ctx context.Context, h Host, dir string) error {
	sector := make([]byte, 512)
	copy(sector, bootSector)
	sector[510], sector[511] = 0x55, 0xaa
	path := filepath.Join(dir, "sector")
	if err := os.WriteFile(path, sector, 0o644); err != nil {
		return err
	}
	return exitsWith(ctx, h, 15*time.Second, 33, "-drive", "if=ide,format=raw,file="+path, "-device", "isa-debug-exit,iobase=0xf4,iosize=4")
}

func tryKernel(ctx context.Context, h Host, kernel string) error {
	return exitsWith(ctx, h, 20*time.Second, 0, "-kernel", kernel, "-append", "panic=-1 quiet", "-no-reboot")
}

func exitsWith(ctx context.Context, h Host, limit time.Duration, want int, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	all := append([]string{"-machine", "pc", "-accel", "kvm", "-cpu", "host", "-m", "256", "-nodefaults", "-display", "none"}, args...)
	cmd, err := h.Tools.QEMU(ctx, all...)
	if err != nil {
		return err
	}
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("it hung for %v", limit)
	case err == nil && want == 0:
		return nil
	case errors.As(err, &exit) && exit.ExitCode() == want:
		return nil
	case err == nil:
		return errors.New("it ended otherwise than the guest asked")
	default:
		return err
	}
}
