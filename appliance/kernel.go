package appliance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/rackseed/rackseed/images/pid1"
)

// quietKernel takes the kernel's messages off the consoles, where they would
// scroll the screen away, unless the boot loader's entry asked for them; what it
// says of errors goes into our log instead.
func (a *appliance) quietKernel(ctx context.Context) error {
	line, err := pid1.ReadCommandLine()
	if err != nil || !line.Has("quiet") {
		return err
	}
	const consoleLevel = 8 // SYSLOG_ACTION_CONSOLE_LEVEL, syslog(2)
	// The level is passed as the length: 1 leaves emergencies only.
	if _, err := unix.Klogctl(consoleLevel, make([]byte, 1)); err != nil {
		return fmt.Errorf("quieting the kernel: %w", err)
	}
	f, err := os.Open("/dev/kmsg")
	if err != nil {
		return fmt.Errorf("the kernel's log: %w", err)
	}
	context.AfterFunc(ctx, func() { _ = f.Close() }) // ends the reading below
	go func() {
		b := make([]byte, 8<<10) // a read returns one record, or fails if it does not fit
		for {
			n, err := f.Read(b)
			switch {
			case errors.Is(err, unix.EPIPE): // records were overwritten before they were read
			case err != nil:
				if ctx.Err() == nil {
					a.log.Warn("reading the kernel's log", "error", err)
				}
				return
			default:
				if text, ok := kernelError(b[:n]); ok {
					a.journal.Line(text)
				}
			}
		}
	}()
	return nil
}

// kernelError reads a record of /dev/kmsg (Documentation/ABI/testing/dev-kmsg)
// and returns its text if it is the kernel's own, and an error or worse.
func kernelError(record []byte) (string, bool) {
	head, text, ok := bytes.Cut(record, []byte(";"))
	priority, _, _ := strings.Cut(string(head), ",")
	n, err := strconv.Atoi(priority)
	const worst = 3 // KERN_ERR; the facility is above the three lowest bits, the kernel's is 0
	if !ok || err != nil || n > worst || n < 0 {
		return "", false
	}
	line, _, _ := bytes.Cut(text, []byte("\n"))
	return "kernel: " + string(line), true
}
