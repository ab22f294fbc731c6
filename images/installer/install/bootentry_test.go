package install

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/rackseed/rackseed/images/installer/disk"
	"github.com/rackseed/rackseed/images/installer/efi"
	"github.com/rackseed/rackseed/images/pid1/gpt"
	"github.com/rackseed/rackseed/services/wire"
)

// firmware is a folder with the variables of a machine that boots its disk
// first, then the network by which it came here. Orders keep their length: a file
// does not lose its end as a variable does.
func firmware(t *testing.T) efi.FS {
	t.Helper()
	v := efi.FS{Dir: t.TempDir()}
	old := gpt.Partition{Number: 1, ID: gpt.MustGUID("00112233-4455-6677-8899-aabbccddeeff"), First: 2048, Last: 4095}
	network := binary.LittleEndian.AppendUint32(nil, 1)
	network = append(network, 41, 0, 'P', 0, 0, 0) // 41 bytes of device path: a MAC, and its end
	network = append(append(network, 3, 11, 37, 0, 0x52, 0x54, 0, 0xd0, 0, 1), make([]byte, 27)...)
	network = append(network, 0x7f, 0xff, 4, 0)
	for name, data := range map[string][]byte{
		"Boot0000": efi.LoadOption("debian", old, `\EFI\debian\shimx64.efi`), "Boot0001": network,
		"Boot0002": efi.LoadOption("Rackseed", old, `\EFI\BOOT\BOOTX64.EFI`), "Boot0003": efi.LoadOption("Rackseed", old, `\EFI\BOOT\BOOTX64.EFI`),
		"BootOrder": {3, 0, 0, 0, 1, 0}, "BootCurrent": {1, 0},
	} {
		if err := v.Write(name, data); err != nil {
			t.Fatal(err)
		}
	}
	return v
}

func contentsOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, f := range files {
		b, err := os.ReadFile(dir + "/" + f.Name())
		if err != nil {
			t.Fatal(err)
		}
		all[f.Name()] = string(b)
	}
	return all
}

// An install that ends leaves its own entry behind the network's; one that fails
// or is taken back after that step leaves the firmware as it was, also if it is
// tried again.
func TestBootOrderIsPutBack(t *testing.T) {
	table, err := disk.Layout(16<<30, 512, gpt.NewGUID)
	if err != nil {
		t.Fatal(err)
	}
	const entered = "Boot0001 P, Boot0002 Rackseed, Boot0000 debian"
	for name, c := range map[string]struct {
		finish func(cancel context.CancelFunc) error
		failed bool
	}{
		"it ends":               {func(context.CancelFunc) error { return nil }, false},
		"the last step fails":   {func(context.CancelFunc) error { return errors.New("input/output error") }, true},
		"it is revoked in time": {func(cancel context.CancelFunc) error { cancel(); return nil }, true},
	} {
		v := firmware(t)
		before := contentsOf(t, v.Dir)
		for try := range 2 {
			ctx, cancel := context.WithCancel(t.Context())
			r := &run{
				Installer: &Installer{Log: slog.New(slog.DiscardHandler), Report: func(wire.Report) {}, UEFI: true},
				edges:     edges{firmware: v}, table: table,
			}
			err := r.through(ctx, []step{
				{wire.StepBootloader, "", func(r *run, _ context.Context) (string, error) {
					text, err := r.bootEntry()
					if b, err := efi.ReadBoot(v); err != nil || strings.Join(b.Lines(), ", ") != entered {
						t.Errorf("%s: %v, %v", name, b.Lines(), err)
					}
					return text, err
				}},
				{wire.StepIgnition, "", func(*run, context.Context) (string, error) { return "", c.finish(cancel) }},
				{wire.StepReboot, "", func(*run, context.Context) (string, error) { return "", nil }},
			})
			cancel()
			same := reflect.DeepEqual(contentsOf(t, v.Dir), before)
			if (err != nil) != c.failed || same != c.failed {
				t.Errorf("%s, try %d: %v; the firmware's variables are as they were: %v", name, try+1, err, same)
			}
		}
	}
}
