//go:build vm

// Package scenario proves the whole in virtual machines: real firmware, real
// kernels, a real Kubernetes, on a network with no way out.
package scenario

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/vm-test/parts"
	"github.com/rackseed/rackseed/vm-test/qemu"
	"github.com/rackseed/rackseed/vm-test/rack"
)

// The ISO as a USB stick under UEFI, one empty machine, a Ready node; then the
// machine's power is cut, and it comes back by its own disk.
func TestISOToReady(t *testing.T) {
	r, p := room(t, rack.Config{Machines: 1, Approve: true})
	start := time.Now()
	if err := r.PowerOnAppliance(t.Context()); err != nil {
		t.Fatal(err)
	}
	screen, err := r.WaitScreen(within(t, 5*time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	console, err := r.OpenConsole(screen)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.PowerOnMachine(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if err := rack.Follow(within(t, 20*time.Minute), console, 1, t.Output()); err != nil {
		t.Fatalf("%v\nmachine:%s", err, rack.LastLines(r.Machines[0], 30))
	}
	t.Logf("Ready %.0f s after the appliance's power-on", time.Since(start).Seconds())

	events, err := console.Events(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	checkStory(t, events)

	config, err := console.Kubeconfig(t.Context(), r.KubernetesURL())
	if err != nil {
		t.Fatal(err)
	}
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(kubeconfig, config, 0o600); err != nil {
		t.Fatal(err)
	}
	kubectl := func(args ...string) (string, error) {
		out, err := exec.CommandContext(within(t, time.Minute), p.Kubectl, append([]string{"--kubeconfig", kubeconfig}, args...)...).CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	eventually(t, 10*time.Minute, "the system's pods run", func() error {
		out, err := kubectl("-n", "kube-system", "wait", "--for=condition=Ready", "--timeout=30s", "pod", "--all")
		if err != nil {
			return errors.New(out)
		}
		for _, name := range []string{"coredns", "etcd", "kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler"} {
			if !strings.Contains(out, "pod/"+name) {
				return fmt.Errorf("no pod of %s: %s", name, out)
			}
		}
		return nil
	})
	// A pod of our own gets an address of the pod network.
	if out, err := kubectl("run", "probe", "--image=rackseed.local/pause:3.10.2", "--image-pull-policy=Never"); err != nil {
		t.Fatal(out)
	}
	eventually(t, 5*time.Minute, "a pod runs", func() error {
		out, err := kubectl("get", "pod", "probe", "-o", "jsonpath={.status.phase} {.status.podIP}")
		if err != nil || !strings.HasPrefix(out, "Running 10.244.") {
			return fmt.Errorf("%s (%w)", out, err)
		}
		return nil
	})

	// Power cut: it boots its own disk, nothing is installed again.
	before := events[len(events)-1].Seq
	if err := r.Machines[0].Kill(); err != nil {
		t.Fatal(err)
	}
	if err := r.PowerOnMachine(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	var after []machine.Event
	eventually(t, 10*time.Minute, "the node is Ready after a power cut", func() error {
		var err error
		if after, err = console.Events(t.Context(), before); err != nil {
			return err
		}
		if !slices.ContainsFunc(after, func(e machine.Event) bool { return e.Data["event"] == "ready" || e.Kind == "node.ready" }) {
			return fmt.Errorf("events since: %s", texts(after))
		}
		return nil
	})
	for _, e := range after {
		if strings.HasPrefix(e.Kind, "install.") || strings.HasPrefix(e.Kind, "session.") {
			t.Errorf("after a power cut: %s", e.Text)
		}
	}
}

// checkStory holds what the timeline must tell, in order, without a gap.
func checkStory(t *testing.T, events []machine.Event) {
	t.Helper()
	for i, e := range events {
		if e.Seq != uint64(i+1) {
			t.Errorf("event %d has the number %d", i+1, e.Seq)
		}
		if strings.Contains(fmt.Sprint(e), "PRIVATE KEY") {
			t.Errorf("event %d carries a key", e.Seq)
		}
	}
	told := texts(events)
	at := 0
	for _, want := range []string{
		"DHCP discover by " + rack.MachineMAC(1), "leased", "Installer session 1", "Approved", "Permitted to write",
		"written and verified", "Ignition fetched", "it reboots", "Boots its own disk", "kubeadm", "The node is Ready",
	} {
		i := strings.Index(told[at:], want)
		if i < 0 {
			t.Fatalf("the timeline does not tell %q after what came before it:\n%s", want, told)
		}
		at += i
	}
}

func texts(events []machine.Event) string {
	var b strings.Builder
	for _, e := range events {
		fmt.Fprintf(&b, "%d %s: %s\n", e.Seq, e.Kind, e.Text)
	}
	return b.String()
}

// room builds a room that is taken down at the test's end. What its machines
// printed stays in out/vm-test.
func room(t *testing.T, c rack.Config) (*rack.Rack, parts.Parts) {
	t.Helper()
	p, err := parts.Build(t.Context(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	c.Host = qemu.Host{Tools: p.Tools}
	kvm := qemu.TryKVM(t.Context(), c.Host, p.Kernel)
	t.Log(kvm.Reason)
	c.Host.KVM = kvm.Works
	c.Dir = filepath.Join(p.Repository, "out", "vm-test", t.Name())
	c.WriteISO, c.OperatorToken = p.WriteISO, rand.Text()
	if err := os.RemoveAll(c.Dir); err != nil {
		t.Fatal(err)
	}
	r, err := rack.New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r, p
}

// within is a context that ends after a time, or with the test.
func within(t *testing.T, limit time.Duration) context.Context {
	ctx, cancel := context.WithTimeoutCause(t.Context(), limit, fmt.Errorf("not within %v", limit))
	t.Cleanup(cancel)
	return ctx
}

// eventually asks once a second until it is so.
func eventually(t *testing.T, limit time.Duration, what string, is func() error) {
	t.Helper()
	ctx := within(t, limit)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		err := is()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: %v; at last: %v", what, context.Cause(ctx), err)
		}
	}
}
