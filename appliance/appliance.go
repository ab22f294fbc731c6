// Package appliance is PID 1 of the machine that is booted from the stick. It
// finds its medium, keeps the data partition, sets up the links that the site
// file names, keeps the boot service running, and shows where to go on.
//
// Nothing here stops the start: whatever goes wrong is shown, with the way out,
// and the rest goes on.
package appliance

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rackseed/rackseed/appliance/desk"
	"github.com/rackseed/rackseed/appliance/journal"
	"github.com/rackseed/rackseed/appliance/keep"
	"github.com/rackseed/rackseed/appliance/screen"
	"github.com/rackseed/rackseed/images/pid1"
	"github.com/rackseed/rackseed/images/pid1/kmod"
	"github.com/rackseed/rackseed/services/setup"
)

// Where things are; docs/interfaces.md, "The stick".
const (
	isoDir   = "/iso"
	siteDir  = "/site"
	dataDir  = "/data"
	siteFile = siteDir + "/site.yaml"
	images   = isoDir + "/rackseed/oci"
	webDir   = "/usr/share/rackseed/console"
	socket   = "/run/rackseed/local.sock"
)

// Wanted says whether this process has to be the appliance: as PID 1, or
// started by the kernel as /sbin/modprobe.
func Wanted() bool { return os.Getpid() == 1 || kmod.IsModprobe(os.Args[0]) }

// Main is the appliance. It does not return as PID 1.
func Main() {
	if kmod.IsModprobe(os.Args[0]) {
		os.Exit(kmod.Modprobe(os.Args[1:], os.Stderr))
	}
	a := &appliance{
		journal: &journal.Journal{}, children: &pid1.Children{},
		files: setup.FilesOf(siteFile, dataDir), kick: make(chan struct{}, 1), running: make(chan struct{}, 1), made: map[string]bool{},
	}
	how := a.run()
	end := pid1.PowerOff
	if how == stopReboot {
		end = pid1.Reboot
	}
	// If even that fails there is nothing left to do, but a PID 1 that ends
	// is a kernel panic, and the screen would be gone.
	a.log.Error("the machine can be switched off now", "error", end())
	select {}
}

type appliance struct {
	journal  *journal.Journal
	children *pid1.Children
	log      *slog.Logger
	service  *keep.Keeper
	lost     string // why nothing is kept; set before the boot service starts
	files    setup.Files
	desk     *desk.Desk
	kick     chan struct{} // has the site file and the links looked at now

	mu     sync.Mutex
	view   screen.View
	terms  []*screen.Terminal
	site   setup.InForce
	holder string          // the terminal with the setup form; empty: none
	made   map[string]bool // VLAN interfaces that were made to look around
	// endServe ends the boot service's present run; nil: there was none.
	endServe context.CancelFunc
	// running holds one: the boot service runs, or what must have it stopped.
	running chan struct{}
}

// run starts everything and returns when the machine shall stop, with all of
// it stopped.
func (a *appliance) run() stop {
	a.log = slog.New(pid1.NewLineHandler(slog.LevelInfo, a.journal.Line))
	a.desk = desk.New(world{a}, a.log)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	a.early(ctx)
	var background sync.WaitGroup
	background.Go(func() { a.children.Reap(ctx) })
	background.Go(func() { a.drivers(ctx) })

	a.storage(ctx)
	linkCtx, linksEnd := context.WithCancel(ctx)
	set := make(chan struct{})
	background.Go(func() { a.links(linkCtx, set) })
	background.Go(func() { a.desk.Run(ctx) })
	// The boot service would find its addresses missing, and wait longer than
	// a driver needs.
	select {
	case <-set:
	case <-time.After(linksFirst):
	}
	a.service = &keep.Keeper{Name: "rackseed serve", Run: a.serve, Log: a.log}
	a.service.OnChange(a.showService)
	serveCtx, serveEnd := context.WithCancel(ctx)
	serving := make(chan struct{})
	go func() {
		a.service.Keep(serveCtx)
		close(serving)
	}()
	background.Go(func() { a.poll(ctx) })

	how := waitForStop(ctx, a.log)
	a.change(func(v *screen.View) { v.Status, v.Service = nil, "the machine is being stopped" })
	// The boot service first, while its links and its disk are still there.
	serveEnd()
	select {
	case <-serving:
	case <-time.After(stopLimit + 5*time.Second):
		a.log.Error("the boot service did not end; its last writes may be missing")
	}
	linksEnd()
	if err := a.journal.Close(); err != nil {
		a.log.Warn("closing the log", "error", err)
	}
	for _, dir := range []string{dataDir, siteDir, isoDir} {
		if err := pid1.UnmountAll(dir); err != nil {
			a.log.Warn("unmounting", "error", err)
		}
	}
	a.log.Info("stopped")
	return how
}

// openFiles is how many files the boot service may have open: each machine and
// each stream of a console is a connection.
const openFiles = 65536

// early makes the process fit to work and to be seen.
func (a *appliance) early(ctx context.Context) {
	a.try("early mounts", pid1.MountEarly())
	a.try("environment", pid1.SetEnvironment())
	a.journal.OnLine(a.toTerminals)
	kmsg, err := pid1.OpenKmsg()
	a.try("kernel log", err)
	if err == nil {
		a.journal.OnLine(func(line string) {
			_, _ = kmsg.Write([]byte(line)) // a copy; the journal has the line
			a.toTerminals(line)
		})
	}
	_, err = pid1.OpenConsole() // for what the runtime itself has to say
	a.try("console", err)
	a.openTerminals(ctx)
	a.try("kernel log", a.quietKernel(ctx))
	a.log.Info("Rackseed appliance", "built", pid1.BuildDate)
	moved, err := pid1.SetClock(time.Now())
	a.try("clock", err)
	if moved {
		a.log.Warn("the machine's clock was before the build date and was set to it")
	}
	a.try("loopback", loopback())
	a.try("open files", pid1.SetOpenFiles(openFiles))
}

// openTerminals opens the display and the serial ports; one that is not there
// is left out.
func (a *appliance) openTerminals(ctx context.Context) {
	var terms []*screen.Terminal
	start := func(path string, t *screen.Terminal, err error) {
		if err != nil {
			a.log.Debug("no terminal", "device", path, "error", err)
			return
		}
		terms = append(terms, t)
		failed := func(err error) {
			if err != nil && ctx.Err() == nil {
				a.log.Warn("a terminal failed", "device", path, "error", err)
			}
		}
		go func() { failed(t.Run(ctx)) }()
		go func() { failed(t.Listen(func(line string) { a.desk.Line(t, line) })) }()
	}
	t, err := screen.OpenDisplay("/dev/tty0", a.journal.Last)
	start("/dev/tty0", t, err)
	active, err := os.ReadFile("/sys/class/tty/console/active")
	a.try("the kernel's consoles", err)
	for _, p := range serialPorts(string(active)) {
		t, err := screen.OpenSerial(p.path, p.kernels)
		start(p.path, t, err)
	}
	a.mu.Lock()
	a.terms = terms
	a.mu.Unlock()
	a.change(func(*screen.View) {})
}

// port is a serial port.
type port struct {
	path    string
	kernels bool // a console of the kernel's too, at the speed that its command line says
}

// serialPorts are the first two serial ports of a PC, where management
// controllers have theirs too, and what else the kernel has as its consoles.
// active is /sys/class/tty/console/active.
func serialPorts(active string) []port {
	ports := []port{{path: "/dev/ttyS0"}, {path: "/dev/ttyS1"}}
	for _, name := range strings.Fields(active) {
		if rest, vt := strings.CutPrefix(name, "tty"); vt && (rest == "" || rest[0] >= '0' && rest[0] <= '9') {
			continue // a virtual console
		}
		i := slices.IndexFunc(ports, func(p port) bool { return p.path == "/dev/"+name })
		if i < 0 {
			ports, i = append(ports, port{path: "/dev/" + name}), len(ports)
		}
		ports[i].kernels = true
	}
	return ports
}

func (a *appliance) toTerminals(line string) {
	a.mu.Lock()
	terms := a.terms
	a.mu.Unlock()
	for _, t := range terms {
		t.Log(line)
	}
}

// change changes what is shown.
func (a *appliance) change(f func(*screen.View)) {
	a.mu.Lock()
	f(&a.view)
	v, terms := a.view, a.terms
	v.Links, v.Own, v.Faults = slices.Clone(v.Links), slices.Clone(v.Own), slices.Clone(v.Faults)
	a.mu.Unlock()
	for _, t := range terms {
		t.Show(v)
	}
}

// maxFaults bounds what the screen has room for; the log has all.
const maxFaults = 5

// fault shows what went wrong, and logs it.
func (a *appliance) fault(err error) {
	a.log.Error(err.Error())
	a.change(func(v *screen.View) {
		if len(v.Faults) < maxFaults {
			v.Faults = append(v.Faults, err.Error())
		}
	})
}

// try shows an error, if there is one.
func (a *appliance) try(what string, err error) {
	if err != nil {
		a.fault(fmt.Errorf("%s: %w", what, err))
	}
}

// drivers loads the drivers of what is there and of what is plugged in later.
func (a *appliance) drivers(ctx context.Context) {
	loader, err := kmod.Open(a.log)
	if err != nil {
		a.fault(fmt.Errorf("kernel modules: %w", err))
		return
	}
	// What no device asks for by itself; file systems and their tables of
	// characters the kernel asks for through /sbin/modprobe. A CD needs loop.
	a.try("kernel modules", loader.Load("loop", "usb_storage", "uas", "sd_mod", "sr_mod", "evdev", "button", "efivarfs"))
	err = loader.Coldplug(ctx, kmod.Plug{Until: func() bool { return false }})
	if ctx.Err() == nil {
		a.try("drivers", err)
	}
}
