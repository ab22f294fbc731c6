package appliance

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// stop is how the machine is to be stopped.
type stop int

const (
	stopPowerOff stop = iota
	stopReboot
)

// waitForStop returns when somebody wants the machine to stop: the power
// button, Ctrl-Alt-Del (which the kernel sends to PID 1 as SIGINT once it is
// told not to reboot at once), or SIGTERM.
func waitForStop(ctx context.Context, log *slog.Logger) stop {
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF); err != nil {
		log.Warn("Ctrl-Alt-Del restarts the machine at once", "error", err)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM)
	defer signal.Stop(signals)
	button := make(chan struct{}, 1)
	go watchButtons(ctx, log, button)
	select {
	case <-button:
		log.Info("the power button was pressed")
		return stopPowerOff
	case s := <-signals:
		if s == unix.SIGINT {
			log.Info("Ctrl-Alt-Del was pressed")
			return stopReboot
		}
		return stopPowerOff
	case <-ctx.Done():
		return stopPowerOff
	}
}

// watchButtons reads all input devices, also those that appear later, for the
// power button.
func watchButtons(ctx context.Context, log *slog.Logger, pressed chan<- struct{}) {
	var mu sync.Mutex
	open := map[string]bool{}
	look := time.NewTicker(2 * time.Second)
	defer look.Stop()
	for {
		devices, err := filepath.Glob("/dev/input/event*")
		if err != nil { // only a bad pattern
			return
		}
		for _, d := range devices {
			mu.Lock()
			known := open[d]
			open[d] = true
			mu.Unlock()
			if known {
				continue
			}
			go func() {
				if err := readButtons(d, pressed); err != nil && !errors.Is(err, os.ErrNotExist) {
					log.Debug("input device ended", "device", d, "error", err)
				}
				mu.Lock()
				delete(open, d)
				mu.Unlock()
			}()
		}
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
	}
}

func readButtons(path string, pressed chan<- struct{}) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return powerPresses(f, func() {
		select {
		case pressed <- struct{}{}:
		default:
		}
	})
}

// powerPresses reads input events until the device ends: 24 bytes each on a
// 64-bit kernel, time, type, code, value (linux/input.h).
func powerPresses(r io.Reader, press func()) error {
	const (
		size     = 24
		evKey    = 1
		keyPower = 116
	)
	b := make([]byte, size)
	for {
		if _, err := io.ReadFull(r, b); err != nil {
			return fmt.Errorf("input events: %w", err)
		}
		le := binary.LittleEndian
		if le.Uint16(b[16:]) == evKey && le.Uint16(b[18:]) == keyPower && le.Uint32(b[20:]) == 1 {
			press()
		}
	}
}
