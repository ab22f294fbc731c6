//go:build host

package moving

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/api"
	"github.com/rackseed/rackseed/services/machine"
)

// The appliance hands its part over to three nodes, and is pulled: everything that
// was is there, at the same address. Then the leader dies, then all of them at
// once.
func TestHandoff(t *testing.T) {
	r := newRoom(t, 4, 3)
	before, lines := r.events(), r.lines()
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
	// Nothing new is installed meanwhile.
	err := r.client.Call(ctx, http.MethodPost, "/api/handoff/start", nil, struct{}{}, nil)
	if err == nil {
		t.Error("a second handoff was started beside the first")
	}
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

	old := r.leader(h)
	old.kill()
	r.until("another replica leads", time.Minute, func() error {
		now, err := r.handoff()
		if err == nil && (r.leader(now) == nil || r.leader(now) == old) {
			err = fmt.Errorf("leads: %+v", now.Replicas)
		}
		return err
	})
	r.events()
	old.start()

	// All power off everywhere, and on again.
	nodes := r.nodes[:3]
	for _, n := range nodes {
		n.kill()
	}
	for _, n := range nodes {
		n.start()
	}
	r.until("they serve again", time.Minute, func() error {
		_, err := r.handoff()
		return err
	})
	again := r.events()
	if again[len(after)-1].Text != after[len(after)-1].Text {
		t.Errorf("event %d was %q and is %q", len(after), after[len(after)-1].Text, again[len(after)-1].Text)
	}
}

// leader is the node that leads.
func (r *room) leader(h api.Handoff) *host {
	for _, x := range h.Replicas {
		for _, n := range r.nodes {
			if x.Leads && x.Name == n.name {
				return n
			}
		}
	}
	return nil
}

// lines are the machines' output.
func (r *room) lines() (all []string) {
	r.t.Helper()
	for n := 1; n <= 3; n++ {
		var page api.List[api.Lines]
		if err := r.client.Call(r.t.Context(), http.MethodGet, fmt.Sprintf("/api/machines/node-%d/output", n), url.Values{"limit": {"200"}}, nil, &page); err != nil {
			r.t.Fatal(err)
		}
		for _, l := range page.Items {
			all = append(all, l.Lines...)
		}
	}
	return all
}

// events are all, which must have no gap.
func (r *room) events() []machine.Event {
	r.t.Helper()
	var all []machine.Event
	for {
		var page api.EventList
		var last uint64
		if len(all) > 0 {
			last = all[len(all)-1].Seq
		}
		query := url.Values{"after": {fmt.Sprint(last)}}
		if err := r.client.Call(r.t.Context(), http.MethodGet, "/api/events", query, nil, &page); err != nil {
			r.t.Fatal(err)
		}
		if len(page.Items) == 0 {
			return all
		}
		for _, e := range page.Items {
			if e.Seq != uint64(len(all))+1 {
				r.t.Fatalf("event %d follows %d", e.Seq, len(all))
			}
			all = append(all, e)
		}
	}
}
