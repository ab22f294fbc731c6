//go:build vm || full

package scenario

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/vm-test/parts"
	"github.com/rackseed/rackseed/vm-test/qemu"
	"github.com/rackseed/rackseed/vm-test/rack"
)

// built are the parts of every room, built once, and tried is what came out of
// trying KVM.
var (
	built = sync.OnceValues(func() (parts.Parts, error) { return parts.Build(context.Background(), os.Stderr) })
	tried = sync.OnceValue(func() qemu.KVM {
		p, err := built()
		if err != nil {
			return qemu.KVM{Reason: err.Error()}
		}
		return qemu.TryKVM(context.Background(), qemu.Host{Tools: p.Tools}, p.Kernel)
	})
)

// clients is the folder of the programs swtpm and others, built once.
var clients = sync.OnceValues(func() (string, error) { return parts.Target(context.Background(), "clients", os.Stderr) })

// room builds a room that is taken down at the test's end. What its machines
// printed stays in out/vm-test.
func room(t *testing.T, c rack.Config) (*rack.Rack, parts.Parts) {
	t.Helper()
	p, err := built()
	if err != nil {
		t.Fatal(err)
	}
	bin, err := clients()
	if err != nil {
		t.Fatal(err)
	}
	kvm := tried()
	t.Log(kvm.Reason)
	c.Host = qemu.Host{Tools: p.Tools, KVM: kvm.Works, SWTPM: filepath.Join(bin, "bin", "swtpm")}
	c.Dir = filepath.Join(p.Repository, "out", "vm-test", t.Name())
	c.OperatorToken = rand.Text()
	if c.WriteISO == nil {
		c.WriteISO = p.WriteISO
	}
	if err := os.RemoveAll(c.Dir); err != nil {
		t.Fatal(err)
	}
	r, err := rack.New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			screens(t, r)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r, p
}

// screens keeps what the displays show when a test fails, beside what the
// machines printed; who is off shows nothing.
func screens(t *testing.T, r *rack.Rack) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // the test's own is over
	defer cancel()
	for _, vm := range append([]*qemu.VM{r.Appliance}, r.Machines...) {
		if vm == nil {
			continue
		}
		file := filepath.Join(vm.Dir, "screen.png")
		if err := vm.Screenshot(ctx, file); err != nil {
			t.Logf("no screen: %v", err)
			continue
		}
		t.Log("the screen:", file)
	}
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

// open powers the appliance on and opens its console.
func open(t *testing.T, r *rack.Rack) rack.Console {
	t.Helper()
	if err := r.PowerOnAppliance(context.WithoutCancel(t.Context())); err != nil {
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
	// The screen has its fingerprint before it is served.
	eventually(t, time.Minute, "the console's answer", func() error {
		_, err := console.Machines(t.Context())
		return err
	})
	return console
}

// texts is a timeline to read.
func texts(events []machine.Event) string {
	var b strings.Builder
	for _, e := range events {
		fmt.Fprintf(&b, "%d %s: %s\n", e.Seq, e.Kind, e.Text)
	}
	return b.String()
}
