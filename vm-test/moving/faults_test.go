//go:build full

package moving

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/api"
	"github.com/rackseed/rackseed/services/machine"
)

// fault is what goes wrong with one replica.
type fault struct {
	name string
	disk bool // its data are on a disk of their own
	// begin begins it, and says how it ends.
	begin func(h *host) (end func())
}

// faultTime is how long a fault lasts.
const faultTime = 10 * time.Second

var faults = []fault{
	{name: "power cut", begin: func(h *host) func() {
		h.again()
		return func() {}
	}},
	{name: "stopped", begin: func(h *host) func() {
		h.signal(syscall.SIGSTOP)
		return func() { h.signal(syscall.SIGCONT) }
	}},
	{name: "cable out", begin: func(h *host) func() {
		h.Run("ip", "link", "set", "eth0", "down")
		return func() { h.Run("ip", "link", "set", "eth0", "up") }
	}},
	{name: "hears nothing", begin: func(h *host) func() { return h.cut("ingress") }},
	{name: "says nothing", begin: func(h *host) func() { return h.cut("egress") }},
	{name: "disk full", disk: true, begin: (*host).fill},
	{name: "disk hung", disk: true, begin: (*host).freeze},
}

// cut drops all that comes in or goes out, ARP too.
func (h *host) cut(way string) (mend func()) {
	h.Run("nft", "add", "table", "netdev", "fault")
	h.Run("nft", "add", "chain", "netdev", "fault", way, "{ type filter hook "+way+" device eth0 priority 0; policy drop; }")
	return func() { h.Run("nft", "delete", "table", "netdev", "fault") }
}

// fill leaves no byte on its disk.
func (h *host) fill() (mend func()) {
	h.t.Helper()
	ballast := filepath.Join(h.dir, "data", "ballast")
	f, err := os.Create(ballast)
	if err == nil {
		_, err = io.Copy(f, zeros{})
	}
	if !errors.Is(err, syscall.ENOSPC) {
		h.t.Fatalf("filling the disk: %v", err)
	}
	if err := f.Close(); err != nil {
		h.t.Fatal(err)
	}
	return func() {
		if err := os.Remove(ballast); err != nil {
			h.t.Error(err)
		}
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// keep starts a replica again that ended by itself, as the kubelet and PID 1 do.
func (h *host) keep(ctx context.Context) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		h.mu.Lock()
		if h.process != nil {
			select {
			case <-h.ended:
				h.t.Logf("%s: %s: its replica ended by itself (%s)", time.Now().Format(time.TimeOnly), h.name, h.process.ProcessState)
				h.launch()
			default:
			}
		}
		h.mu.Unlock()
	}
}

// faultSteps are the steps at which something goes wrong, in their order.
var faultSteps = []machine.HandoffStep{
	machine.HandoffDeploying, machine.HandoffCatchingUp, machine.HandoffPromoting,
	machine.HandoffTransferring, machine.HandoffWatching, machine.HandoffSealing,
}

// At each step of a handoff something happens to the appliance or to a node's
// replica, while clients take leases, a machine is installed, people read and write,
// and somebody watches the events. Whatever it is, the handoff ends, and nothing that
// was acknowledged is lost or there twice. Chosen with, say,
// -run TestFaults/appliance/disk_hung/sealing. The steps of one fault are those of
// one handoff, or of the next where it was given up.
func TestFaults(t *testing.T) {
	for _, who := range []string{"appliance", "node"} {
		t.Run(who, func(t *testing.T) {
			for _, f := range faults {
				t.Run(f.name, func(t *testing.T) { underFault(t, who, f) })
			}
		})
	}
}

func underFault(t *testing.T, who string, f fault) {
	r := newRoom(t, 4, 3, func(h *host) {
		if f.disk && (who == "appliance") == (h.name == who) {
			h.ownDisk()
		}
	})
	w := r.witness()
	// What a process has in its hands as it is stopped is sent once it goes on.
	w.mayBeLate = f.name == "stopped"
	for _, step := range faultSteps {
		if !t.Run(string(step), func(t *testing.T) { r.within(t).suffer(w, who, f, step) }) {
			return
		}
	}
	end := r.finish()
	t.Logf("it ended as %s %s", end.Plan.Step, end.Plan.Reason)
	// Moved, or all as it was: nothing in between.
	onNodes := slices.DeleteFunc(slices.Clone(end.Replicas), func(x api.Replica) bool { return x.Machine == "" })
	switch end.Plan.Step {
	case machine.HandoffDone:
		if len(onNodes) != 3 || len(end.Replicas) != 3 {
			t.Errorf("done, and replicas are %+v", end.Replicas)
		}
	case machine.HandoffAborted:
		if len(onNodes) != 0 || len(end.Replicas) != 1 || end.Plan.Reason == "" {
			t.Errorf("given up (%s), and replicas are %+v", end.Plan.Reason, end.Replicas)
		}
	}
	w.judge()
}

// within is the room in a sub-test.
func (r *room) within(t *testing.T) *room {
	sub := *r
	sub.t = t
	return &sub
}

// suffer has a fault happen at a step, and waits until the plan goes on.
func (r *room) suffer(w *witness, who string, f fault, step machine.HandoffStep) {
	t := r.t
	r.begin()
	r.until("the handoff is "+string(step), 5*time.Minute, func() error {
		h, err := r.handoff()
		if err == nil && h.Plan.Step != step {
			err = fmt.Errorf("it is %s: %s", h.Plan.Step, h.Plan.Reason)
			if h.Plan.Over {
				t.Fatal(err) // it was too fast, or given up
			}
		}
		return err
	})
	h := r.stick
	if who == "node" {
		h = r.nodes[0]
		if now, err := r.handoff(); err == nil && r.leader(now) != nil {
			h = r.leader(now)
		}
	}
	r.until("its replica runs", time.Minute, func() error {
		if !h.running() {
			return errors.New("it was not started yet")
		}
		return nil
	})
	if step == machine.HandoffWatching { // which is long enough to wait: one fault at a time
		r.until("all replicas are there", time.Minute, func() error {
			now, err := r.handoff()
			if err == nil && (now.Plan.Step != step || !now.Plan.Known || slices.ContainsFunc(now.Replicas, func(x api.Replica) bool { return !x.Reachable })) {
				err = fmt.Errorf("it is %s, replicas are %+v", now.Plan.Step, now.Replicas)
			}
			return err
		})
	}
	// From then on a node leads others: one whose disk hangs is followed by another.
	led := f.name == "disk hung" && who == "node" && (step == machine.HandoffWatching || step == machine.HandoffSealing)
	w.client.reset()
	begun := time.Now()
	end := f.begin(h)
	if led {
		r.others(h)
		t.Logf("another replica answered people %v after %s's disk hung", time.Since(begun).Round(100*time.Millisecond), h.name)
	}
	for time.Since(begun) < faultTime { // it is the fault, and waits for nothing
		now, err := r.handoff()
		if step == machine.HandoffPromoting && err == nil && now.Plan.Step != step {
			break // the next step is so short that it would be over
		}
		time.Sleep(200 * time.Millisecond)
	}
	end()
	var now api.Handoff
	r.until("the plan goes on", 25*time.Minute, func() (err error) {
		if now, err = r.handoff(); err == nil && now.Plan.Step == step {
			err = fmt.Errorf("it is %s: %s %s %v", now.Plan.Step, now.Plan.Doing, now.Plan.Failed, strings.Join(gates(now), "; "))
		}
		return err
	})
	t.Logf("%s at %s: then %s %s, after %v; without a DHCP answer for %v", h.name, step, now.Plan.Step, now.Plan.Reason,
		time.Since(begun).Round(time.Second), w.client.silence().Round(100*time.Millisecond))
}

// begin begins a handoff, if none is under way.
func (r *room) begin() {
	r.until("a handoff begins", 20*time.Minute, func() error {
		h, err := r.handoff()
		switch {
		case err != nil:
			return err
		case h.Plan != nil && h.Plan.Step == machine.HandoffDone:
			r.t.Fatal("it is done before something could happen at this step")
		case h.Plan != nil && h.Plan.Step == machine.HandoffAborting:
			return errors.New("the one before is being given up")
		case h.Plan != nil && !h.Plan.Over:
			return nil
		}
		ctx, cancel := context.WithTimeout(r.t.Context(), 5*time.Second)
		defer cancel()
		return r.client.Call(ctx, http.MethodPost, "/api/handoff/start", nil, struct{}{}, nil)
	})
}

// finish waits for the end of the handoff.
func (r *room) finish() (end api.Handoff) {
	r.until("the handoff is over", 25*time.Minute, func() error {
		h, err := r.handoff()
		if err == nil && !h.Plan.Over {
			err = fmt.Errorf("it is %s: %s %s %v", h.Plan.Step, h.Plan.Doing, h.Plan.Failed, strings.Join(gates(h), "; "))
		}
		end = h
		return err
	})
	return end
}

func gates(h api.Handoff) (list []string) {
	for _, g := range h.Plan.Gates {
		if !g.OK {
			list = append(list, g.Name+": "+g.Text)
		}
	}
	return list
}
