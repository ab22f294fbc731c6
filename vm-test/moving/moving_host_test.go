//go:build host

package moving

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/api"
	"github.com/rackseed/rackseed/services/machine"
)

// The appliance hands its part over to three nodes, and is pulled: everything that
// was is there, at the same address. Then the leader dies, its disk hangs, and all die at
// once.
func TestHandoff(t *testing.T) {
	r := newRoom(t, 4, 3, func(h *host) {
		if h.name != "appliance" {
			h.ownDisk()
		}
	})
	before, lines, keys := r.events(), r.lines(), r.stick.keys()
	if len(keys) != 1 {
		t.Fatalf("the appliance has the data keys %v", keys)
	}
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
	// One plan at a time.
	err := r.client.Call(ctx, http.MethodPost, "/api/handoff/start", nil, struct{}{}, nil)
	if err == nil {
		t.Error("a second handoff was started beside the first")
	}
	// The nodes' ports pass nothing of a DHCP server: others notice it, and it does not
	// go on.
	var mend []func()
	for _, n := range r.nodes[:3] {
		mend = append(mend, n.muteDHCP())
	}
	r.reach(machine.HandoffWatching, 6*time.Minute)
	r.until("the others notice that nobody is served by DHCP", time.Minute, func() error {
		h, err := r.handoff()
		if err != nil {
			return err
		}
		for _, name := range []string{"boot script", "ignition", "console"} {
			if g := gate(h, name); !g.OK || !strings.Contains(g.Text, "from appliance: ") {
				return fmt.Errorf("%+v", g)
			}
		}
		if g := gate(h, "dhcp"); g.OK || !strings.Contains(g.Text, "from appliance: DHCP on eth0: "+service+" answers no DISCOVER") {
			return fmt.Errorf("%+v", g)
		}
		return nil
	})
	for _, f := range mend {
		f()
	}
	r.until("the others see that machines are served by DHCP", time.Minute, func() error {
		h, err := r.handoff()
		if err != nil {
			return err
		}
		if g := gate(h, "dhcp"); h.Plan != nil && h.Plan.Step == machine.HandoffWatching && !g.OK {
			return fmt.Errorf("%+v", g)
		}
		return nil
	})
	h := r.reach(machine.HandoffDone, 6*time.Minute)
	stop()
	<-carried
	if len(h.Replicas) != 3 || r.leader(h) == nil {
		t.Errorf("replicas: %+v", h.Replicas)
	}
	safe := func() error {
		s, err := r.stick.status()
		if err == nil && !s.LetGo {
			err = errors.New("it does not say so")
		}
		return err
	}
	r.until("the appliance says that it can be unplugged", time.Minute, safe)
	r.stick.kill()
	if left := r.stick.keys(); len(left) > 0 {
		t.Errorf("the appliance still has the data keys %v", left)
	}
	r.until("the nodes have one data key, which the appliance never had", time.Minute, func() error {
		now := r.nodes[0].keys()
		for _, n := range r.nodes[:3] {
			if has := n.keys(); len(has) != 1 || has[0] != now[0] || has[0] == keys[0] {
				return fmt.Errorf("%s has %v", n.name, has)
			}
		}
		return nil
	})
	r.until("the newest backups are sealed under that key", time.Minute, func() error {
		for _, n := range r.nodes[:3] {
			k, err := n.backedUp()
			if err != nil {
				return err
			}
			if now := n.keys(); k.Current != now[0] || k.Next != "" || k.Old != "" {
				return fmt.Errorf("that of %s is sealed under %s and %s, and it has %v", n.name, k.Current, k.Old, now)
			}
		}
		return nil
	})
	after := r.events()
	for i, e := range before {
		if after[i].Seq != e.Seq || after[i].Text != e.Text {
			t.Fatalf("event %d was %q and is %q", e.Seq, e.Text, after[i].Text)
		}
	}

	if now := r.lines(); len(lines) == 0 || !slices.Equal(now, lines) {
		t.Errorf("of %d lines of machines' output %d are there", len(lines), len(now))
	}

	// Booted again by mistake it serves nobody.
	r.stick.start()
	r.until("the appliance that was booted again says that it can be unplugged", time.Minute, safe)

	// A new machine netboots from the cluster, with images that the stick had.
	r.install(4)

	r.rollouts()
	after = r.events()

	old := r.settled()
	old.kill()
	r.others(old)
	r.events()
	old.start()

	// The leader's disk hangs: it goes on talking, and must not go on leading.
	old = r.hang()
	<-old.ended
	old.again()
	r.settled()

	// All power off everywhere, and on again.
	nodes := r.nodes[:3]
	for _, n := range nodes {
		n.kill()
	}
	for _, n := range nodes {
		n.start()
	}
	again := r.events()
	if again[len(after)-1].Text != after[len(after)-1].Text {
		t.Errorf("event %d was %q and is %q", len(after), after[len(after)-1].Text, again[len(after)-1].Text)
	}

	// One is lost for good, and taken away.
	dead := nodes[0]
	if r.settled() == dead {
		dead = nodes[1]
	}
	dead.kill()
	// It shows, before another one dies.
	r.until("the dead one is told of", 2*time.Minute, func() error {
		h, err := r.handoff()
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(h.Replicas, func(x api.Replica) bool { return x.Name == dead.name && x.Seen && !x.Reachable }) {
			return fmt.Errorf("it is said to be reachable: %+v", h.Replicas)
		}
		if !slices.ContainsFunc(r.events(), func(e machine.Event) bool { return e.Kind == "replica.away" && strings.HasPrefix(e.Text, dead.name) }) {
			return errors.New("no event")
		}
		leader := r.leader(h)
		if leader == nil {
			return fmt.Errorf("nobody leads: %+v", h.Replicas)
		}
		return leader.says("other replicas", "rackseed handoff remove "+dead.name)
	})
	if err := r.client.Call(t.Context(), http.MethodPost, "/api/handoff/remove", nil, api.RemoveRequest{Replica: dead.name}, nil); err != nil {
		t.Fatal(err)
	}
	var now api.Handoff
	r.read("/api/handoff", nil, &now)
	if len(now.Replicas) != 2 {
		t.Errorf("replicas: %+v", now.Replicas)
	}
}

// hang has the leader's disk hang until it gives the lead up for that, and another one
// leads.
func (r *room) hang() *host {
	r.t.Helper()
	for range 5 {
		h := r.settled()
		log := filepath.Join(h.dir, "log")
		before, err := os.ReadFile(log)
		if err != nil {
			r.t.Fatal(err)
		}
		thaw := h.freeze()
		ctx, enough := context.WithCancel(r.t.Context())
		written := make(chan struct{})
		go func() { // or nothing would hang
			defer close(written)
			r.writes(ctx)
		}()
		r.others(h)
		enough()
		<-written
		thaw()
		now, err := os.ReadFile(log)
		if err != nil {
			r.t.Fatal(err)
		}
		if strings.Contains(string(now[len(before):]), "this replica leads no more") {
			return h
		}
		r.t.Logf("%s led no more already when its disk hung", h.name)
	}
	r.t.Fatal("no leader gave the lead up for its disk")
	return nil
}

// muteDHCP drops what a DHCP server sends, and says how that ends.
func (h *host) muteDHCP() (mend func()) {
	h.Run("nft", "add", "table", "netdev", "mute")
	h.Run("nft", "add", "chain", "netdev", "mute", "out", "{ type filter hook egress device eth0 priority 0; }")
	h.Run("nft", "add", "rule", "netdev", "mute", "out", "udp", "sport", "67", "drop")
	return func() { h.Run("nft", "delete", "table", "netdev", "mute") }
}

// gate is what a plan waits for, by its name.
func gate(h api.Handoff, name string) (found api.HandoffGate) {
	if h.Plan != nil {
		for _, g := range h.Plan.Gates {
			if g.Name == name {
				found = g
			}
		}
	}
	return found
}
