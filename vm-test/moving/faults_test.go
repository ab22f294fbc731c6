//go:build full

package moving

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/api"
	"github.com/rackseed/rackseed/services/machine"
)

// fault is what goes wrong with one replica.
type fault struct {
	name string
	does func(h *host)
}

var faults = []fault{
	{"power cut", func(h *host) {
		h.kill()
		h.start() // which takes a while
	}},
	{"stopped for 10 s", func(h *host) {
		h.signal(syscall.SIGSTOP)
		time.Sleep(10 * time.Second) // it is the fault, and waits for nothing
		h.signal(syscall.SIGCONT)
	}},
	{"its cable out for 10 s", func(h *host) {
		h.Run("ip", "link", "set", "eth0", "down")
		time.Sleep(10 * time.Second) // as above
		h.Run("ip", "link", "set", "eth0", "up")
	}},
}

// faultSteps are the steps at which something goes wrong.
var faultSteps = []machine.HandoffStep{
	machine.HandoffDeploying, machine.HandoffCatchingUp, machine.HandoffPromoting,
	machine.HandoffTransferring, machine.HandoffWatching, machine.HandoffSealing,
}

// Whatever happens to one replica at whatever step, the handoff ends, and nothing
// that was acknowledged is lost or there twice.
func TestFaults(t *testing.T) {
	for _, step := range faultSteps {
		for i, f := range faults {
			for _, who := range []string{"appliance", "node-1"} {
				// Each step with each fault of one of both: the other pairs are
				// those of the next step.
				if (len(step)+i)%2 == 0 != (who == "appliance") {
					continue
				}
				t.Run(fmt.Sprintf("%s/%s/%s", step, who, f.name), func(t *testing.T) { underFault(t, step, who, f) })
			}
		}
	}
}

func underFault(t *testing.T, step machine.HandoffStep, who string, f fault) {
	r := newRoom(t, 3, 3)
	ctx, stop := context.WithCancel(t.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer stop()
	all.Go(func() { r.carry(ctx) })
	var acked []string
	all.Go(func() { acked = r.write(ctx) })
	if err := r.client.Call(ctx, http.MethodPost, "/api/handoff/start", nil, struct{}{}, nil); err != nil {
		t.Fatal(err)
	}
	r.until("the handoff is "+string(step), 5*time.Minute, func() error {
		h, err := r.handoff()
		if err == nil && (h.Plan == nil || h.Plan.Step != step) {
			err = fmt.Errorf("it is %+v", h.Plan)
			if h.Plan != nil && h.Plan.Over {
				t.Fatal(err) // it was too fast, or given up
			}
		}
		return err
	})
	h := r.stick
	if who != "appliance" {
		h = r.nodes[0]
	}
	r.until("its replica runs", time.Minute, func() error {
		if !h.running() {
			return errors.New("it was not started yet")
		}
		return nil
	})
	f.does(h)
	var end api.Handoff
	r.until("the handoff is over", 25*time.Minute, func() error {
		h, err := r.handoff()
		if err == nil && !h.Plan.Over {
			err = fmt.Errorf("it is %s: %s %s %v", h.Plan.Step, h.Plan.Doing, h.Plan.Failed, h.Plan.Gates)
		}
		end = h
		return err
	})
	t.Logf("it ended as %s: %s", end.Plan.Step, end.Plan.Reason)
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
	stop()
	all.Wait()
	events := r.events()
	times := map[string]int{}
	for _, e := range events {
		times[e.Data["until"]]++
	}
	for _, until := range acked {
		if times[until] != 1 {
			t.Errorf("acknowledged, and %d times in the log: the discovery window until %s", times[until], until)
		}
	}
	if len(acked) < 20 {
		t.Errorf("only %d writes were acknowledged", len(acked))
	}
}

// write opens the discovery window again and again until ctx ends, each time for
// another time, and answers until when, of what was acknowledged.
func (r *room) write(ctx context.Context) (acked []string) {
	for n := 1; ctx.Err() == nil; n++ {
		var now api.Discovery
		one, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := r.client.Call(one, http.MethodPost, "/api/discovery/open", nil, map[string]string{"for": fmt.Sprintf("%ds", 1000*n)}, &now)
		cancel()
		if err == nil {
			acked = append(acked, now.Until.UTC().Format(time.RFC3339))
		}
		select {
		case <-ctx.Done():
		case <-time.After(250 * time.Millisecond):
		}
	}
	return acked
}
