// Command rack is "make run": a virtual rack that turns an empty machine into
// a Ready Kubernetes node before one's eyes.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rackseed/rackseed/vm-test/alone"
	"github.com/rackseed/rackseed/vm-test/parts"
	"github.com/rackseed/rackseed/vm-test/qemu"
	"github.com/rackseed/rackseed/vm-test/rack"
)

const usage = `usage: go run ./vm-test/cmd/rack run

Variables: MACHINES (1), CONTROL_PLANES (1; the other machines are workers),
APPROVE=hand (machines wait for you in the console),
CONSOLE_PORT (8443), KUBERNETES_PORT (16443); KVM=off emulates in any case.
`

func main() {
	if len(os.Args) != 2 || os.Args[1] != "run" {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	// make and go run do not hand every signal on: when they are gone, so are we.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGTERM), 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, "rack: it will outlive make if that is killed:", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx)
	if ctx.Err() != nil {
		fmt.Println("\nThe rack is taken down; its disks and logs are in out/rack.")
		err = nil
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "rack:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	const most = 100 // more than any host has memory for
	controlPlanes, err := alone.Number("CONTROL_PLANES", 1, 1, most)
	if err != nil {
		return err
	}
	machines, err := alone.Number("MACHINES", controlPlanes, 1, most)
	if err != nil {
		return err
	}
	ports, err := alone.Ports(alone.Port{Variable: "CONSOLE_PORT", Number: 8443}, alone.Port{Variable: "KUBERNETES_PORT", Number: 16443})
	if err != nil {
		return err
	}
	if controlPlanes > machines {
		return fmt.Errorf("CONTROL_PLANES=%d: there are only %d machines (MACHINES)", controlPlanes, machines)
	}
	if v := os.Getenv("APPROVE"); v != "" && v != "hand" {
		return fmt.Errorf("APPROVE=%s: expected hand, or nothing", v)
	}
	if v := os.Getenv("KVM"); v != "" && v != "off" {
		return fmt.Errorf("KVM=%s: expected off, or nothing", v)
	}
	if err := rack.Room(machines, controlPlanes); err != nil {
		return err
	}
	fmt.Println("Building (what is cached is taken from there):")
	p, err := parts.Build(ctx, os.Stdout)
	if err != nil {
		return err
	}
	host := qemu.Host{Tools: p.Tools}
	if os.Getenv("KVM") == "off" {
		fmt.Println("KVM=off: machines are emulated.")
	} else {
		kvm := qemu.TryKVM(ctx, host, p.Kernel)
		host.KVM = kvm.Works
		fmt.Println(kvm.Reason + ".")
		if !kvm.Works {
			fmt.Println("Without it the first node is Ready after five to ten minutes.")
		}
	}
	config := rack.Config{
		Host: host, Dir: filepath.Join(p.Repository, "out", "rack"), WriteISO: p.WriteISO,
		Machines: machines, ControlPlanes: controlPlanes, Approve: os.Getenv("APPROVE") != "hand", OperatorToken: rand.Text(),
		ConsolePort: ports[0].Number, KubernetesPort: ports[1].Number,
	}
	if !config.Approve { // nor listed: it is looked at while the discovery window is open
		config.Site = "discovery:\n  always: true\n"
	}
	unlock, err := alone.Lock(config.Dir, fmt.Sprintf("make run (https://127.0.0.1:%d)", config.ConsolePort))
	var busy *alone.BusyError
	if errors.As(err, &busy) {
		return fmt.Errorf("%w; a second one runs in another clone, with other ports", err)
	}
	if err != nil {
		return err
	}
	defer unlock()
	if err := alone.Free("run", ports...); err != nil {
		return err
	}
	if err := os.RemoveAll(config.Dir); err != nil {
		return err
	}
	r, err := rack.New(ctx, config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return tell(ctx, r, p)
}

// tell powers the rack on and tells what happens until it is taken down.
func tell(ctx context.Context, r *rack.Rack, p parts.Parts) error {
	start := time.Now()
	if err := r.PowerOnAppliance(ctx); err != nil {
		return err
	}
	fmt.Println("The appliance boots from the stick (its serial line: out/rack/appliance/serial.log) …")
	limited, cancel := context.WithTimeoutCause(ctx, 5*time.Minute, errors.New("not within five minutes"))
	defer cancel()
	screen, err := r.WaitScreen(limited)
	if err != nil {
		return err
	}
	fmt.Printf(`
  Console      %s
  Fingerprint  %s
               %s
  Setup code   %s

`, r.ConsoleURL(), screen.Fingerprint[:48], screen.Fingerprint[48:], screen.SetupCode)
	console, err := r.OpenConsole(screen)
	if err != nil {
		return err
	}
	for i := range r.Machines {
		if err := r.PowerOnMachine(ctx, i+1); err != nil {
			return err
		}
	}
	if !r.Approve {
		fmt.Println("Machines will wait for you: approve them in the console.")
	}
	bounded := ctx
	if r.Approve {
		var cancel context.CancelFunc
		bounded, cancel = context.WithTimeoutCause(ctx, time.Hour, errors.New("not within an hour"))
		defer cancel()
	}
	if err := rack.Follow(bounded, console, len(r.Machines), os.Stdout); err != nil {
		return err
	}
	fmt.Printf("\nReady %.0f s after the appliance's power-on.\n\n", time.Since(start).Seconds())
	kubeconfig := filepath.Join(p.Repository, "out", "kubeconfig")
	if err := saveKubeconfig(ctx, r, console, kubeconfig); err != nil {
		return err
	}
	show := exec.CommandContext(ctx, p.Kubectl, "--kubeconfig", kubeconfig, "get", "nodes", "-o", "wide")
	show.Stdout, show.Stderr = os.Stdout, os.Stderr
	fmt.Printf("$ kubectl get nodes\n")
	if err := show.Run(); err != nil {
		return fmt.Errorf("kubectl get nodes: %w", err)
	}
	fmt.Printf(`
Try next, from another terminal (out/bin/rackseed is the command line):
  out/bin/kubectl --kubeconfig out/kubeconfig get pods -A
  out/bin/kubectl --kubeconfig out/kubeconfig run hello --image=rackseed.local/pause:3.10.2
  open %s and look at the machine's timeline and log
  move the boot service into the cluster, on the console's page Handoff: when the
  appliance's screen says that it is safe, the stick is pulled here

Ctrl-C takes the rack down.
`, r.ConsoleURL())
	return pull(ctx, r)
}

// pull pulls the stick once the appliance's screen says that it is safe.
func pull(ctx context.Context, r *rack.Rack) error {
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		safe, err := r.SafeToUnplug()
		if err != nil {
			return err
		}
		if safe {
			break
		}
	}
	if err := r.PullStick(ctx); err != nil {
		return err
	}
	fmt.Printf("\nThe appliance's screen says SAFE TO UNPLUG: its stick is pulled, and its machine off.\nThe console and the Kubernetes API are where they were, served by the cluster: %s\n", r.ConsoleURL())
	<-ctx.Done()
	return nil
}

func saveKubeconfig(ctx context.Context, r *rack.Rack, console rack.Console, path string) error {
	b, err := console.Kubeconfig(ctx, r.KubernetesURL())
	if err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o600)
}
