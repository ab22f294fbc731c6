package appliance

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/rackseed/rackseed/appliance/journal"
	"github.com/rackseed/rackseed/appliance/screen"
)

const (
	// stopLimit is how long the boot service may take to end.
	stopLimit = 20 * time.Second
	// lookAgain is how often the site file and the links are looked at.
	lookAgain = time.Second
	// linksFirst is how long the boot service waits for the links at most.
	linksFirst = 5 * time.Second
	// askAgain is how often the boot service is asked for what the screen shows.
	askAgain = time.Second
)

// serve runs the boot service once.
func (a *appliance) serve(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Dir(socket), 0o700); err != nil {
		return err
	}
	ctx, end := context.WithCancel(ctx)
	defer end()
	a.mu.Lock()
	a.endServe = end
	a.mu.Unlock()
	select {
	case a.running <- struct{}{}:
		defer func() { <-a.running }()
	case <-ctx.Done():
		return ctx.Err()
	}
	cmd := exec.CommandContext(ctx, "/init", serveArguments(a.lost)...)
	cmd.Args[0] = "rackseed"
	out := &journal.Writer{Journal: a.journal}
	cmd.Stdout, cmd.Stderr = out, out // the same: os/exec then has one writer
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopLimit
	return a.children.Run(cmd)
}

// withoutService stops the boot service for as long as do takes: it has its folder
// to itself. Then it is started again. It returns without do if ctx ends before.
func (a *appliance) withoutService(ctx context.Context, do func()) error {
	for {
		a.mu.Lock()
		end := a.endServe
		a.mu.Unlock()
		if end != nil {
			end()
		}
		select {
		case a.running <- struct{}{}:
			defer func() { <-a.running }()
			do()
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(stopLimit): // another run had begun
		}
	}
}

// serveArguments start the boot service. lost says why its data is in memory.
func serveArguments(lost string) []string {
	args := []string{"serve", "--data", dataDir, "--images", images, "--site", siteFile, "--console", webDir, "--local", socket}
	if lost != "" {
		args = append(args, "--volatile", lost)
	}
	return args
}

// showService shows how the boot service is, as a program.
func (a *appliance) showService() {
	s := a.service.State()
	a.change(func(v *screen.View) {
		v.Service = ""
		if s.Why != "" {
			v.Service = s.Why
			if s.Running {
				v.Service = fmt.Sprintf("%s; started again, for the %d. time", s.Why, s.Restarts)
			}
		}
		if !s.Running {
			v.Status = nil
		}
	})
}

// poll keeps what the boot service says of itself on the screen.
func (a *appliance) poll(ctx context.Context) {
	client := statusClient(socket)
	tick := time.NewTicker(askAgain)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		status, err := askStatus(ctx, client)
		if err != nil {
			a.log.Debug("asking the boot service", "error", err)
			status = nil
		}
		if a.service.State().Running {
			a.change(func(v *screen.View) { v.Status = status })
		}
	}
}
