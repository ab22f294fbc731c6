// Command simulate powers on machines that exist only as conversations with a
// boot service: for work on the console and the service without virtual
// machines ("make dev").
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/rackseed/rackseed/vm-test/simulate"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "simulate:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("simulate", flag.ContinueOnError)
	url := f.String("url", "http://127.0.0.1:8080", "the boot service's HTTP server for machines")
	n := f.Int("n", 1, "how many machines")
	first := f.Int("first", 1, "number of the first one; the same number is the same machine")
	pace := f.Duration("pace", time.Second, "rest between two steps; 0 is as fast as possible")
	fail := f.String("fail", "", "step that goes wrong once on each: disk, partition, image, ignition, bootloader, reboot")
	disks := f.String("disks", "", "folder that keeps what is installed, for the next run")
	images := f.String("images", "", "write images for simulated machines to this folder, for rackseed serve --images, and end")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if f.NArg() > 0 {
		return fmt.Errorf("%q is not understood; see -help", f.Arg(0))
	}
	if *images != "" {
		return simulate.WriteImages(*images)
	}
	if *n < 1 || *first < 1 || *first+*n > 1<<16 {
		return fmt.Errorf("-n %d -first %d: numbers from 1 to %d are expected", *n, *first, 1<<16-1)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	ended := make([]error, *n)
	var all sync.WaitGroup
	for i := range *n {
		m := &simulate.Machine{URL: *url, Inventory: simulate.Hardware(*first + i), Pace: *pace, Fail: *fail}
		m.Log = log.With("machine", m.Inventory.BootMAC)
		if *disks != "" {
			m.Disk = filepath.Join(*disks, fmt.Sprintf("%d.json", *first+i))
		}
		all.Go(func() {
			ended[i] = m.Run(ctx)
			if ended[i] == nil {
				m.Log.Info("its node is Ready")
			} else if errors.Is(ended[i], simulate.ErrOwnSystem) {
				m.Log.Info("nothing to do here", "why", ended[i])
				ended[i] = nil
			} else if ctx.Err() == nil {
				m.Log.Error("it cannot go on", "error", ended[i])
			}
		})
	}
	all.Wait()
	if ctx.Err() != nil {
		return nil // it was told to end
	}
	return errors.Join(ended...)
}
