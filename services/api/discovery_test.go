package api

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/statetest"
)

func TestDiscoveryWindow(t *testing.T) {
	r := newRig(t)
	auth := bearer(siteToken)
	ask := func(method, path, body string) Discovery {
		t.Helper()
		return decode[Discovery](t, r.want(200, method, "/api/discovery"+path, body, auth).body)
	}
	if d := ask("POST", "/close", ""); d.Open || !d.Until.IsZero() {
		t.Errorf("closed: %+v", d)
	}
	for _, c := range []struct {
		body string
		long time.Duration
	}{{"", 2 * time.Hour}, {`{"for":"30m"}`, 30 * time.Minute}, {`{"for":"720h"}`, 720 * time.Hour}} {
		if d := ask("POST", "/open", c.body); !d.Open || d.Always || d.Until.Sub(r.time()).Round(time.Second) != c.long {
			t.Errorf("opened with %s: %+v at %v", c.body, d, r.time())
		}
	}
	if d := decode[Status](t, r.want(200, "GET", "/api/status", "", auth).body).Discovery; d != ask("GET", "", "") || !d.Open {
		t.Errorf("the status says %+v", d)
	}
	for body, status := range map[string]int{`{"for":"0s"}`: 422, `{"for":"59s"}`: 422, `{"for":"-1h"}`: 422, `{"for":"soon"}`: 422, `{"for":"721h"}`: 409} {
		r.want(status, "POST", "/api/discovery/open", body, auth)
	}
	r.pass(721 * time.Hour)
	if d := ask("GET", "", ""); d.Open || !d.Until.IsZero() {
		t.Errorf("its time is over: %+v", d)
	}
	site := statetest.Site()
	site.Operators = []machine.SiteOperator{{Name: "ann", TokenSHA256: fmt.Sprintf("%x", hashToken(siteToken))}}
	site.Discovery.Always = true
	r.Must(state.SiteApply{Site: site})
	if d := ask("GET", "", ""); !d.Open || !d.Always || !d.Until.IsZero() {
		t.Errorf("opened by the site file: %+v", d)
	}
	if a := r.want(409, "POST", "/api/discovery/close", "", auth); !strings.Contains(a.detail(), "discovery.always") {
		t.Errorf("closing what the site file opens: %s", a.detail())
	}
}

func TestLookAndRescue(t *testing.T) {
	r := newRig(t)
	auth := bearer(siteToken)
	id := string(r.Waiting(1, func(i *machine.Inventory) { i.Disks[0].Contents = "ext4" }))
	path := "/api/machines/" + id
	act := func(action, body string) Machine {
		t.Helper()
		return decode[Machine](t, r.want(200, "POST", path+action, body, auth).body)
	}
	if m := decode[Machine](t, r.want(200, "GET", path, "", auth).body); m.NextBoot.Kind != machine.BootLocal || !strings.Contains(m.NextBoot.Why, "not empty") {
		t.Errorf("a known machine with a full disk boots %+v", m.NextBoot)
	}
	if m := act("/look", `{"for":"15m"}`); m.NextBoot.Kind != machine.BootDiscovery || m.Invited.Sub(r.time()).Round(time.Second) != 15*time.Minute {
		t.Errorf("invited: boots %+v, until %v", m.NextBoot, m.Invited)
	}
	if m := act("/look", `{"for":"0s"}`); m.NextBoot.Kind != machine.BootLocal || !m.Invited.IsZero() {
		t.Errorf("taken back: boots %+v, until %v", m.NextBoot, m.Invited)
	}
	if a := r.want(409, "POST", path+"/rescue", "", auth); !strings.Contains(a.detail(), "sshKeys") {
		t.Errorf("a shell that nobody can enter: %s", a.detail())
	}
	site, _ := r.View().Site()
	site.SSHKeys = []string{"ssh-ed25519 AAAA ann"}
	r.Must(state.SiteApply{Site: site})
	if m := act("/rescue", ""); m.NextBoot.Kind != machine.BootRescue || m.Rescue == nil || m.Rescue.Status != machine.IntentOpen {
		t.Errorf("rescue: boots %+v, %+v", m.NextBoot, m.Rescue)
	}
	r.want(409, "POST", path+"/rescue", "", auth)
	if m := act("/revoke", `{"reason":"not needed"}`); m.NextBoot.Kind != machine.BootLocal || m.Rescue.Status != machine.IntentRevoked || m.Phase != machine.PhaseWaiting {
		t.Errorf("taken back: boots %+v, %+v, %s", m.NextBoot, m.Rescue, m.Phase)
	}
	r.want(404, "POST", "/api/machines/none/look", "", auth)
}

// TestOneLookIsAtOneTime: the window's time may be over between two messages of one
// look, which agree all the same.
func TestOneLookIsAtOneTime(t *testing.T) {
	r := newRig(t)
	r.Waiting(1)
	r.Must(state.DiscoveryWindow{Until: r.time().Add(time.Hour)})
	at := r.time()
	f := &siteFeed{after: r.View().LastEvent(), now: func() time.Time {
		defer func() { at = at.Add(25 * time.Minute) }()
		return at
	}}
	var told []string
	for range 4 {
		if err := f.send(t.Context(), r.View(), func(m any) error {
			switch m := m.(type) {
			case StreamDiscovery:
				told = append(told, fmt.Sprint("the window is open: ", m.Discovery.Open))
			case StreamMachine:
				told = append(told, "boots "+string(m.Machine.NextBoot.Kind))
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"the window is open: true", "boots discovery", "the window is open: false", "boots local"}; !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
}

// TestStreamOfTheWindow: what machines would boot changes with the window, by
// command and by time.
func TestStreamOfTheWindow(t *testing.T) {
	r := newRig(t)
	r.server.timing.ping = 20 * time.Millisecond // how often a feed looks without cause
	id := r.Waiting(1)
	conn := r.open(fmt.Sprintf("/api/stream?after=%d", r.View().LastEvent()), bearer(siteToken))
	r.begin(conn)
	boots := func(want machine.BootKind) {
		t.Helper()
		if m := r.until(conn, func(m message) bool { return m.Type == "machine" }); m.Machine.ID != id || m.Machine.NextBoot.Kind != want {
			t.Errorf("machine %s boots %+v, want %s", m.Machine.ID, m.Machine.NextBoot, want)
		}
	}
	boots(machine.BootDiscovery)
	r.Must(state.DiscoveryWindow{})
	if m := r.until(conn, func(m message) bool { return m.Type == "discovery" }); m.Discovery.Open {
		t.Errorf("closed: %+v", m.Discovery)
	}
	boots(machine.BootLocal)
	r.Must(state.DiscoveryWindow{Until: r.time().Add(time.Hour)})
	boots(machine.BootDiscovery)
	r.pass(2 * time.Hour)
	if m := r.until(conn, func(m message) bool { return m.Type == "discovery" }); m.Discovery.Open {
		t.Errorf("its time is over: %+v", m.Discovery)
	}
	boots(machine.BootLocal)
}
