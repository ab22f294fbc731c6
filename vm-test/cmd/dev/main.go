// Command dev is "make dev": a boot service and its console on loopback, with
// simulated machines if MACHINES says how many.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/rackseed/rackseed/build/step"
	"github.com/rackseed/rackseed/vm-test/alone"
	"github.com/rackseed/rackseed/vm-test/child"
	"github.com/rackseed/rackseed/vm-test/simulate"
)

func main() {
	// A child's death signal comes with the end of the thread that started it.
	runtime.LockOSThread()
	// make does not hand every signal on: when it is gone, so are we.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGTERM), 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, "dev: it will outlive make if that is killed:", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := run(ctx); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "dev:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	dir := os.Getenv("DEV_DIR")
	if dir == "" {
		return errors.New("DEV_DIR: the folder for its programs and its state is expected; see make dev")
	}
	ports, err := alone.Ports(alone.Port{Variable: "CONSOLE_PORT", Number: 8443}, alone.Port{Variable: "HTTP_PORT", Number: 8080})
	if err != nil {
		return err
	}
	machines, err := alone.Number("MACHINES", 0, 0, 10_000)
	if err != nil {
		return err
	}
	site := os.Getenv("SITE")
	if site != "" {
		if info, err := os.Stat(site); err != nil || !info.Mode().IsRegular() {
			return fmt.Errorf("SITE=%s: there is no such file; give one that is there, or none", site)
		}
	}
	console, http := fmt.Sprintf("127.0.0.1:%d", ports[0].Number), fmt.Sprintf("127.0.0.1:%d", ports[1].Number)
	unlock, err := alone.Lock(dir, "make dev (https://"+console+")")
	var busy *alone.BusyError
	if errors.As(err, &busy) {
		return fmt.Errorf("%w; or start a second one beside it: %s", err, alone.Second("dev", "DEV_DIR", dir, ports...))
	}
	if err != nil {
		return err
	}
	defer unlock()
	if err := alone.Free("dev", ports...); err != nil {
		return err
	}
	// Only now: what is built anew may be what another one runs.
	if err := start(ctx, "go", "build", "-o", dir+"/", ".", "./build", "./vm-test/cmd/simulate").Run(); err != nil {
		return fmt.Errorf("go build: %w", err)
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	web, err := buildConsole(ctx, in("build"))
	if err != nil {
		return err
	}
	if err := simulate.WriteImages(in("images")); err != nil {
		return err
	}
	if site == "" {
		site = in("site.yaml")
		if err := writeSite(site); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if machines > 0 {
		m := start(ctx, in("simulate"), "-n", fmt.Sprint(machines), "-pace", "1s", "-disks", in("disks"), "-url", "http://"+http)
		if err := m.Start(); err != nil {
			return err
		}
		defer func() {
			cancel()     // when the service ended by itself
			_ = m.Wait() // what became of each machine is in its output
		}()
	}
	service := start(ctx, in("rackseed"), "serve", "--dev", "--data", in("data"), "--images", in("images"), "--site", site,
		"--console", web, "--https", console, "--http", http)
	if err := service.Run(); err != nil && ctx.Err() == nil {
		return fmt.Errorf("the boot service: %w", err)
	}
	return nil
}

// start is a program that ends with us, and tells people what it does.
func start(ctx context.Context, program string, args ...string) *exec.Cmd {
	c := child.Command(ctx, program, args...)
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	return c
}

// buildConsole has the console built by the program build, and keeps it for as long
// as we run.
func buildConsole(ctx context.Context, build string) (dir string, err error) {
	c := start(ctx, build, "path", "console")
	var out bytes.Buffer
	c.Stdout = &out
	if err := c.Run(); err != nil {
		return "", fmt.Errorf("the console: %w; what is wrong is said above", err)
	}
	dir = strings.TrimSpace(out.String())
	return dir, step.Hold(dir)
}

// writeSite writes the example, with the discovery window open for ever: the
// machines here are simulated, and all that ask may be looked at.
func writeSite(path string) error {
	example, err := os.ReadFile(filepath.Join("docs", "site.example.yaml"))
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(example, "\ndiscovery:\n  always: true\n"...), 0o644)
}
