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
	"strconv"
	"syscall"
	"time"

	"github.com/rackseed/rackseed/vm-test/parts"
	"github.com/rackseed/rackseed/vm-test/qemu"
	"github.com/rackseed/rackseed/vm-test/rack"
)

const usage = `usage: go run ./vm-test/cmd/rack run

Variables: MACHINES (1), APPROVE=hand (machines wait for you in the console),
CONSOLE_PORT (8443), KUBERNETES_PORT (16443); KVM=off emulates in any case.
`

func main() {
	if len(os.Args) != 2 || os.Args[1] != "run" {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
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
	machines, err := number("MACHINES", 1)
	if err != nil {
		return err
	}
	if err := rack.Room(machines); err != nil {
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
	}
	config := rack.Config{
		Host: host, Dir: filepath.Join(p.Repository, "out", "rack"), WriteISO: p.WriteISO,
		Machines: machines, Approve: os.Getenv("APPROVE") != "hand", OperatorToken: rand.Text(),
	}
	if config.ConsolePort, err = number("CONSOLE_PORT", 8443); err != nil {
		return err
	}
	if config.KubernetesPort, err = number("KUBERNETES_PORT", 16443); err != nil {
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
Try next, from another terminal:
  out/bin/kubectl --kubeconfig out/kubeconfig get pods -A
  out/bin/kubectl --kubeconfig out/kubeconfig run hello --image=rackseed.local/pause:3.10.2
  open %s and look at the machine's timeline and log

Ctrl-C takes the rack down.
`, r.ConsoleURL())
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

func number(variable string, otherwise int) (int, error) {
	text := os.Getenv(variable)
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > 65535 {
		return 0, fmt.Errorf("%s=%s: a number from 1 is expected", variable, text)
	}
	return n, nil
}
