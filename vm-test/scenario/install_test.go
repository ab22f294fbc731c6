//go:build vm

// Package scenario proves the whole in virtual machines: real firmware, real
// kernels, a real Kubernetes, on a network with no way out.
package scenario

import (
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
	"github.com/rackseed/rackseed/vm-test/rack"
)

// The ISO as a USB stick under UEFI, one empty machine, a Ready node; then the
// machine's power is cut, and it comes back by its own disk.
func TestISOToReady(t *testing.T) {
	r, p := room(t, rack.Config{Machines: 1, Approve: true})
	var sentry rack.Sentry
	if err := r.Switch.Record(&sentry); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	console := open(t, r)
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
	if seen, looked := sentry.Seen(); len(seen) > 0 || looked < 100<<20 {
		t.Errorf("in %d MiB on the wire were secrets in the clear: %q", looked>>20, seen)
	}

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
		if !slices.ContainsFunc(after, func(e machine.Event) bool { return e.Kind == "node.ready" }) {
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
