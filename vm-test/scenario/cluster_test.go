//go:build vm || full

package scenario

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/vm-test/parts"
	"github.com/rackseed/rackseed/vm-test/rack"
)

// follow waits until so many nodes are Ready, and shows what happens meanwhile.
func follow(t *testing.T, r *rack.Rack, console rack.Console, nodes int) {
	t.Helper()
	start := time.Now()
	if err := rack.Follow(within(t, 25*time.Minute), console, nodes, t.Output()); err != nil {
		last := ""
		for _, m := range r.Machines {
			if m != nil {
				last += "\n" + m.Name + ":" + rack.LastLines(m, 30)
			}
		}
		t.Fatalf("%v%s", err, last)
	}
	t.Logf("%d Ready after %.0f s", nodes, time.Since(start).Seconds())
}

func powerOn(t *testing.T, r *rack.Rack, machines ...int) {
	t.Helper()
	for _, i := range machines {
		if err := r.PowerOnMachine(t.Context(), i); err != nil {
			t.Fatal(err)
		}
	}
}

// kubectl runs kubectl with an administrator's kubeconfig.
type kubectl struct {
	t      *testing.T
	p      parts.Parts
	config string
}

func (k kubectl) run(args ...string) (string, error) { return k.with("", args...) }

func (k kubectl) with(stdin string, args ...string) (string, error) {
	cmd := exec.CommandContext(within(k.t, time.Minute), k.p.Kubectl, append([]string{"--kubeconfig", k.config}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out)), err
}

// administrator is kubectl as whoever opened the console may use it.
func administrator(t *testing.T, r *rack.Rack, p parts.Parts, console rack.Console) kubectl {
	t.Helper()
	config, err := console.Kubeconfig(t.Context(), r.KubernetesURL())
	if err != nil {
		t.Fatal(err)
	}
	k := kubectl{t, p, filepath.Join(t.TempDir(), "kubeconfig")}
	if err := os.WriteFile(k.config, config, 0o600); err != nil {
		t.Fatal(err)
	}
	return k
}

// until is run until it prints what is wanted.
func (k kubectl) until(limit time.Duration, what string, want func(out string) bool, args ...string) (out string) {
	k.t.Helper()
	eventually(k.t, limit, what, func() (err error) {
		out, err = k.run(args...)
		if err == nil && !want(out) {
			err = errors.New(out)
		}
		return err
	})
	return out
}
