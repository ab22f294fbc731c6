//go:build full

package scenario

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/images/pid1/gpt"
	"github.com/rackseed/rackseed/vm-test/qemu"
	"github.com/rackseed/rackseed/vm-test/rack"
)

// The ISO by each firmware, from each medium, until its screen shows where to
// open the console and the console answers there. From what cannot be written
// it runs in memory, serves no machine, and says so.
func TestFirmwareISO(t *testing.T) {
	table := newTable(t, "ISO")
	for _, row := range []struct {
		firmware qemu.Firmware
		medium   rack.Medium
	}{
		{qemu.BIOS, rack.Stick},
		{qemu.BIOS, rack.CD},
		{qemu.UEFI, rack.Stick},
		{qemu.UEFI, rack.CD},
		{qemu.SecureBoot, rack.Stick},
		{qemu.SecureBoot, rack.CD},
		{qemu.UEFI, rack.ReadOnlyStick},
	} {
		name := fmt.Sprintf("%s, %s", row.firmware, row.medium)
		table.run(t, name, func(t *testing.T) string {
			r, p := room(t, rack.Config{Medium: row.medium, Setup: firmware(row.firmware)})
			start := time.Now()
			if err := r.PowerOnAppliance(t.Context()); err != nil {
				t.Fatal(err)
			}
			screen, err := r.WaitScreen(within(t, 5*time.Minute))
			if err != nil {
				t.Fatal(err)
			}
			took := time.Since(start)
			console, err := r.OpenConsole(screen)
			if err != nil {
				t.Fatal(err)
			}
			eventually(t, time.Minute, "the console answers", func() error {
				_, err := console.Machines(t.Context())
				return err
			})
			kept := row.medium == rack.Stick
			eventually(t, time.Minute, "the screen says what is kept", func() error {
				printed, err := os.ReadFile(r.Appliance.SerialLog())
				if err != nil {
					return err
				}
				for text, want := range map[string]bool{"kept on /dev/": kept, "NOTHING IS KEPT": !kept, "NO MACHINE IS SERVED": !kept} {
					if strings.Contains(string(printed), text) != want {
						return fmt.Errorf("%q is shown: %v, want %v%s", text, !want, want, rack.LastLines(r.Appliance, 30))
					}
				}
				return nil
			})
			shot := filepath.Join(p.Repository, "out", "vm-test", "screen "+name+".png")
			if err := r.Appliance.Screenshot(t.Context(), shot); err != nil {
				t.Fatal(err)
			}
			where := "data on the stick"
			if !kept {
				where = "in memory, and says so"
			}
			return fmt.Sprintf("screen and console after %.0f s; %s", took.Seconds(), where)
		})
	}
	// What enforces signatures must refuse something. The file is GRUB's,
	// whose signature then is none any more.
	table.run(t, "Secure Boot, USB, GRUB changed", func(t *testing.T) string {
		r, _ := room(t, rack.Config{Setup: firmware(qemu.SecureBoot), WriteISO: tamperedISO(t)})
		start := time.Now()
		if err := r.PowerOnAppliance(t.Context()); err != nil {
			t.Fatal(err)
		}
		eventually(t, 2*time.Minute, "the changed GRUB is refused", func() error {
			printed, err := os.ReadFile(r.Appliance.SerialLog())
			if err == nil && !strings.Contains(string(printed), "Security Violation") {
				err = fmt.Errorf("it printed%s", rack.LastLines(r.Appliance, 10))
			}
			return err
		})
		return fmt.Sprintf("refused by shim after %.0f s", time.Since(start).Seconds())
	})
}

// tamperedISO writes an image in whose ESP GRUB has another byte: in the list
// of revocation names, which nothing but the signature depends on.
func tamperedISO(t *testing.T) func(ctx context.Context, path string, site []byte, emulated bool) error {
	p, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return func(ctx context.Context, path string, site []byte, emulated bool) (err error) {
		if err := p.WriteISO(ctx, path, site, emulated); err != nil {
			return err
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		info, err := f.Stat()
		if err != nil {
			return err
		}
		disk, err := gpt.Read(f, info.Size(), 512)
		if err != nil {
			return err
		}
		esp := disk.Partitions[slices.IndexFunc(disk.Partitions, func(p gpt.Partition) bool { return p.Type == gpt.TypeESP })]
		b := make([]byte, (esp.Last-esp.First+1)*512)
		if _, err := f.ReadAt(b, int64(esp.First)*512); err != nil {
			return err
		}
		at := bytes.Index(b, []byte("grub.debian,"))
		if at < 0 {
			return errors.New("GRUB was not found in the ESP")
		}
		_, err = f.WriteAt([]byte("G"), int64(esp.First)*512+int64(at))
		return err
	}
}

// firmware gives the appliance a firmware.
func firmware(f qemu.Firmware) func(int, *qemu.Machine) {
	return func(i int, m *qemu.Machine) {
		if i == 0 {
			m.Firmware = f
		}
	}
}
