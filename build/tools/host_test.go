//go:build host

package tools_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rackseed/rackseed/build/debian"
	"github.com/rackseed/rackseed/build/step"
	"github.com/rackseed/rackseed/build/tools"
)

// Every tool that the build names starts, and says which it is.
func TestToolsRun(t *testing.T) {
	cache, err := step.DefaultDir()
	if err != nil {
		t.Fatal(err)
	}
	repository, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	archive := &debian.Archive{Repository: repository, Cache: cache, Log: t.Output()}
	unpacked, err := archive.Unpacked(t.Context(), "tools")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := (&step.Cache{Dir: cache, Progress: t.Output()}).Get(t.Context(), unpacked)
	if err != nil {
		t.Fatal(err)
	}
	root := tools.Root(dir)
	for _, c := range []struct{ name, arg, want string }{
		{"qemu-system-x86_64", "--version", "QEMU emulator version 10."},
		{"qemu-img", "--version", "qemu-img version 10."},
		{"xorriso", "--version", "xorriso 1.5"},
		{"mkfs.erofs", "--version", "lz4hc"},
		{"fsck.erofs", "--version", "fsck.erofs"},
		{"mkfs.fat", "--help", "mkfs.fat"},
		{"mcopy", "--version", "mcopy (GNU mtools) 4"},
		{"mmd", "--version", "mmd (GNU mtools) 4"},
		{"grub-mkimage", "--version", "GRUB) 2.12"},
		{"grub-script-check", "--version", "GRUB) 2.12"},
		{"mmdebstrap", "--version", "mmdebstrap 1."},
		{"zstd", "--version", "v1.5"},
		{"depmod", "--version", "kmod version"},
		{"mke2fs", "-V", "mke2fs 1.47"},
		{"sfdisk", "--version", "sfdisk from util-linux"},
	} {
		cmd, err := root.Command(t.Context(), c.name, c.arg)
		if err != nil {
			t.Error(err)
			continue
		}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), c.want) {
			t.Errorf("%s %s: %v, printed %q, want %q in it", c.name, c.arg, err, out, c.want)
		}
	}
	qemu, err := root.QEMU(t.Context(), "-machine", "q35", "-netdev", "help")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := qemu.CombinedOutput(); err != nil || !strings.Contains(string(out), "stream") {
		t.Errorf("qemu -netdev help: %v, printed %q, want stream in it", err, out)
	}
	for _, f := range []string{"OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd", "OVMF_CODE_4M.secboot.fd", "OVMF_VARS_4M.ms.fd"} {
		if _, err := os.Stat(root.OVMF(f)); err != nil {
			t.Error(err)
		}
	}
}
