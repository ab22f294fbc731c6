// Package initramfs makes the three initial file systems that kernels of ours
// start from. Each is a static Go program as /init with kernel modules and a
// few Debian programs beside it; the same inputs give the same bytes.
package initramfs

import (
	"bufio"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/klauspost/compress/zstd"
)

// Spec says what goes into one initramfs.
type Spec struct {
	Init     string            // the program that becomes /init
	Kernel   string            // unpacked Debian root with the kernel's modules
	Modules  []string          // Wide or Root
	Programs []Debian          // beside it
	Files    map[string]string // path in the initramfs → file or folder on the host
	Epoch    int64             // date of everything, seconds
	Run      Command           // runs depmod
}

// Debian are programs of an unpacked Debian root, at their own paths:
// "usr/sbin/mke2fs".
type Debian struct {
	Root  string
	Paths []string
}

// Format changes when the same Spec gives other bytes: an input of the steps.
const Format = "1"

// Write makes the initramfs, compressed with zstd.
func Write(ctx context.Context, out string, s Spec) error {
	scratch, err := os.MkdirTemp("", "rackseed-initramfs-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	t := tree{}
	for _, d := range []string{"dev", "etc", "proc", "run", "sys", "tmp", "sbin", "bin"} {
		t.put(d, entry{mode: modeDir})
	}
	// The kernel opens it before /init has mounted anything.
	t.put("dev/console", entry{mode: modeChar, dev: [2]uint32{5, 1}})
	t.put("init", entry{mode: modeProg, file: s.Init})
	t.put("sbin/modprobe", entry{mode: modeLink, data: []byte("/init")})
	if err := t.modules(ctx, s.Kernel, scratch, s.Modules, s.Run); err != nil {
		return err
	}
	for _, p := range s.Programs {
		if err := t.programs(p.Root, p.Paths...); err != nil {
			return err
		}
	}
	for at, from := range s.Files {
		if err := t.add(at, from); err != nil {
			return err
		}
	}
	return compress(out, t, s.Epoch)
}

// add puts a file, or a folder with all below it, at a path.
func (t tree) add(at, from string) error {
	return filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("initramfs /%s: %w", clean(at), err)
		}
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		to := path.Join(at, filepath.ToSlash(rel))
		info, err := os.Stat(p)
		switch {
		case err != nil:
			return fmt.Errorf("initramfs /%s: %w", clean(to), err)
		case info.IsDir():
			t.put(to, entry{mode: modeDir})
		case info.Mode().IsRegular() && info.Mode()&0o111 != 0:
			t.put(to, entry{mode: modeProg, file: p})
		case info.Mode().IsRegular():
			t.put(to, entry{mode: modeFile, file: p})
		default:
			return fmt.Errorf("initramfs /%s: %s is neither file nor folder", clean(to), p)
		}
		return nil
	})
}

// compress uses one thread, so that where blocks end does not hang on the
// number of cores.
func compress(out string, t tree, epoch int64) (err error) {
	f, err := os.Create(out)
	if err != nil {
		return err
	}
	defer func() {
		if e := f.Close(); err == nil {
			err = e
		}
	}()
	z, err := zstd.NewWriter(f, zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(z, 1<<20)
	if err := t.write(w, epoch); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return z.Close()
}
