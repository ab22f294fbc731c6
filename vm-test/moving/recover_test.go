//go:build host

package moving

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/api"
	"github.com/rackseed/rackseed/services/identity"
	"github.com/rackseed/rackseed/services/machine"
)

// Copies of the stick, with what its flash may have lost, serve nobody. Then the
// majority is lost for ever: the boot service goes on from the one replica that is
// left, and an old one that comes back is told.
func TestRecover(t *testing.T) {
	r := newRoom(t, 3, 3)
	code, err := os.ReadFile(filepath.Join(r.stick.dir, "data", "setup-code"))
	if err != nil {
		t.Fatal(err)
	}
	ann := api.SetupRequest{Code: strings.TrimSpace(string(code)), Name: "ann", Password: "correct horse"}
	if err := r.client.Call(t.Context(), http.MethodPost, "/api/setup", nil, ann, nil); err != nil {
		t.Fatal(err)
	}
	before := r.copyStick("before")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	carried := make(chan struct{})
	go func() {
		defer close(carried)
		r.carry(ctx)
	}()
	if err := r.client.Call(ctx, http.MethodPost, "/api/handoff/start", nil, struct{}{}, nil); err != nil {
		t.Fatal(err)
	}
	r.reach(machine.HandoffCatchingUp, 3*time.Minute)
	lost := r.copyStick("lost")
	r.reach(machine.HandoffDone, 6*time.Minute)
	stop()
	<-carried
	r.stick.kill()
	events := r.events()

	// The copy's log is from before the votes, and what was written beside it is not.
	if err := os.Rename(filepath.Join(r.stick.dir, "data", "identity", "named.json"), filepath.Join(lost, "identity", "named.json")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ data, part, says string }{
		{lost, "state", "it never serves again"},
		{before, "address", "This very cluster answers there"},
	} {
		r.stick.runOn(c.data)
		r.until("the copy "+filepath.Base(c.data)+" serves nobody", time.Minute, func() error { return r.stick.says(c.part, c.says) })
		r.stick.kill()
	}
	if now := r.events(); len(now) < len(events) {
		t.Errorf("of %d events %d are there", len(events), len(now))
	}

	// Two of three are lost for ever. Nobody can be let in without a leader.
	survivor, dead := r.nodes[0], r.nodes[1:3]
	for _, n := range dead {
		n.kill()
	}
	r.until("nobody leads", time.Minute, func() error { return survivor.says("machines", "no replica leads") })
	if out, err := survivor.command("break-glass", "--local", filepath.Join(survivor.dir, "local.sock")); err == nil || !strings.Contains(out, "no replica leads") {
		t.Errorf("break-glass without a leader: %v\n%s", err, out)
	}
	if out, err := survivor.command("recover", "--data", filepath.Join(survivor.dir, "data"), "--yes"); err == nil || !strings.Contains(out, "stop it first") {
		t.Errorf("recovering one that runs: %v\n%s", err, out)
	}
	survivor.kill()
	// The copy without its newest entries knows nobody who answers.
	r.stick.runOn(lost)
	r.until("the copy waits for those that were named", time.Minute, func() error { return r.stick.says("state", "did not answer") })
	if out, err := r.stick.command("recover", "--data", lost, "--dry-run"); err == nil || !strings.Contains(out, "stop it first") {
		t.Errorf("recovering one that waits: %v\n%s", err, out)
	}
	r.stick.kill()
	if out, err := r.stick.command("recover", "--data", lost, "--dry-run"); err != nil || !strings.Contains(out, "Silent is not dead") {
		t.Errorf("a look at what could be recovered: %v\n%s", err, out)
	}
	r.stick.Run("rm", "-r", filepath.Join(lost, "keyring"))
	if out, err := r.stick.command("recover", "--data", lost, "--dry-run"); err == nil || !strings.Contains(out, "bring the recovery key") {
		t.Errorf("a look at what could not be recovered: %v\n%s", err, out)
	}

	out, err := survivor.command("recover", "--data", filepath.Join(survivor.dir, "data"), "--yes")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("recover said:\n%s", out)
	survivor.start()
	now := r.events()                          // at the same address
	for i, e := range events[:len(events)-1] { // the newest may have been on its way to this one
		if now[i].Text != e.Text {
			t.Fatalf("event %d was %q and is %q", e.Seq, e.Text, now[i].Text)
		}
	}
	if !slices.ContainsFunc(now, func(e machine.Event) bool { return e.Kind == "cluster.recovered" && e.Data["generation"] == "2" }) {
		t.Error("no event says that it was recovered")
	}
	if err := r.client.Call(t.Context(), http.MethodPost, "/api/login", nil, api.LoginRequest{Name: ann.Name, Password: ann.Password}, nil); err != nil {
		t.Errorf("its user: %v", err)
	}
	var h api.Handoff
	r.read("/api/handoff", nil, &h)
	if len(h.Replicas) != 1 || h.Replicas[0].Name != survivor.name || !h.Replicas[0].Leads {
		t.Errorf("replicas: %+v", h.Replicas)
	}

	// An old one that comes back is told, and its node is told to end it. It has the state
	// of its snapshot, so that its parts say it.
	dead[0].start()
	r.until("the old replica says that it is over", time.Minute, func() error { return dead[0].says("machines", "is over") })
	old, err := identity.Load(filepath.Join(dead[0].data(), "identity"))
	if err != nil {
		t.Fatal(err)
	}
	order, err := r.boxes[1].ReplicaOrder(t.Context(), old.Name)
	if err != nil || order.Run || !slices.Contains(order.Left, old.ID) {
		t.Errorf("its node's order: %+v, %v", order, err)
	}

	// A majority of the old generation elects a leader, which finds the address taken.
	dead[1].start()
	r.until("the old leader says that the address is the new generation's", time.Minute, func() error {
		if err := dead[0].says("address", "This very cluster answers there"); err == nil {
			return nil
		}
		return dead[1].says("address", "This very cluster answers there")
	})
	for look := range 15 {
		for _, n := range r.nodes {
			out, err := n.Command("ip", "-o", "-4", "address").CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if holds := strings.Contains(string(out), " "+service+"/"); holds != (n == survivor) {
				t.Fatalf("look %d: %s has the service address: %v", look, n.name, holds)
			}
		}
		if h, err := r.handoff(); err != nil || len(h.Replicas) != 1 || h.Replicas[0].Name != survivor.name {
			t.Fatalf("look %d: %+v, %v", look, h.Replicas, err)
		}
		time.Sleep(time.Second)
	}
}

// copyStick copies the stick's data, as it is on its flash at one moment.
func (r *room) copyStick(name string) string {
	r.t.Helper()
	to := filepath.Join(r.stick.dir, name)
	r.stick.signal(syscall.SIGSTOP)
	r.stick.Run("cp", "-a", filepath.Join(r.stick.dir, "data"), to)
	r.stick.signal(syscall.SIGCONT)
	// Stopped for longer than its address is valid it takes that anew.
	var now api.Handoff
	r.read("/api/handoff", nil, &now)
	return to
}

// runOn starts its replica on other data.
func (h *host) runOn(data string) {
	h.t.Helper()
	h.args[slices.Index(h.args, "--data")+1] = data
	h.start()
}

// says returns nil if its screen shows a part that is not well with a text.
func (h *host) says(part, text string) error {
	s, err := h.status()
	if err != nil {
		return err
	}
	for _, x := range s.Health {
		if x.Name == part && !x.OK && strings.Contains(x.Text, text) {
			return nil
		}
	}
	return fmt.Errorf("%s does not say %q: %+v", part, text, s.Health)
}

// command runs the program on this host, as its root does.
func (h *host) command(args ...string) (string, error) {
	out, err := h.Command(h.program, args...).CombinedOutput()
	return string(out), err
}
