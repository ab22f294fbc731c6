package netboot

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/wire"
)

// plainOrders is an orders over plain values.
type plainOrders struct {
	site      machine.Site
	machines  map[machine.ID]machine.Machine
	profile   *machine.Profile
	intent    *machine.Intent
	bootstrap *machine.Intent
	ended     *machine.Intent
	rescue    *machine.Intent
	joining   machine.ID
}

func (o plainOrders) Site() (machine.Site, bool) { return o.site, true }
func (o plainOrders) Machine(id machine.ID) (machine.Machine, bool) {
	m, ok := o.machines[id]
	return m, ok
}
func (o plainOrders) InstallIntent(machine.ID) *machine.Intent { return o.intent }
func (o plainOrders) RescueIntent(machine.ID) *machine.Intent  { return o.rescue }
func (o plainOrders) Bootstrap() *machine.Intent               { return o.bootstrap }
func (o plainOrders) EndedBootstrap() *machine.Intent          { return o.ended }
func (o plainOrders) Joining(time.Time) machine.ID             { return o.joining }
func (o plainOrders) Profile(machine.ID) (machine.Profile, bool) {
	if o.profile == nil {
		return machine.Profile{}, false
	}
	return *o.profile, true
}

func TestInstallerOrder(t *testing.T) {
	opened := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	m := machine.Machine{ID: "m-1", Session: &machine.Session{ID: "s-2", Opened: opened}}
	now := opened.Add(29 * time.Minute)
	profile := &machine.Profile{KernelArguments: []string{"quiet"}}
	intent := func(session string, status machine.IntentStatus) *machine.Intent {
		return &machine.Intent{ID: "i-1", Session: session, Status: status, Epoch: 3, Reason: "because", Image: "sha256:aa", Disk: machine.DiskHint{Serial: "d"}}
	}
	files := func(string) ([]wire.File, error) { return []wire.File{{Name: "root.erofs"}}, nil }
	missing := func(string) ([]wire.File, error) { return nil, errors.New("not here") }
	for name, c := range map[string]struct {
		o     plainOrders
		files func(string) ([]wire.File, error)
		want  wire.OrderKind
		says  string
	}{
		"nothing":           {plainOrders{}, files, wire.OrderWait, "approval"},
		"older session's":   {plainOrders{intent: intent("s-1", machine.IntentRevoked)}, files, wire.OrderWait, "approval"},
		"open":              {plainOrders{intent: intent("s-2", machine.IntentOpen), profile: profile}, files, wire.OrderInstall, ""},
		"claimed":           {plainOrders{intent: intent("s-2", machine.IntentClaimed), profile: profile}, files, wire.OrderInstall, ""},
		"failed":            {plainOrders{intent: intent("s-2", machine.IntentFailed), profile: profile}, files, wire.OrderWait, "because"},
		"done":              {plainOrders{intent: intent("s-2", machine.IntentDone), profile: profile}, files, wire.OrderWait, "reboot"},
		"revoked":           {plainOrders{intent: intent("s-2", machine.IntentRevoked), profile: profile}, files, wire.OrderRevoked, "because"},
		"image is not here": {plainOrders{intent: intent("s-2", machine.IntentOpen), profile: profile}, missing, wire.OrderWait, "not here"},
		"no profile":        {plainOrders{intent: intent("s-2", machine.IntentOpen)}, files, wire.OrderWait, "profile"},
	} {
		t.Run(name, func(t *testing.T) {
			got := installerOrder(c.o, m, now, c.files)
			if got.Kind != c.want || !strings.Contains(got.Reason, c.says) {
				t.Fatalf("%+v, want %s: %q", got, c.want, c.says)
			}
			if c.want == wire.OrderInstall && (got.Intent != "i-1" || got.Epoch != 3 || got.Disk.Serial != "d" || got.Image.Digest != "sha256:aa" ||
				len(got.Image.Files) != 1 || strings.Join(got.KernelArguments, " ") != "quiet") {
				t.Errorf("%+v", got)
			}
		})
	}
	emulated := plainOrders{intent: intent("s-2", machine.IntentOpen), profile: profile, site: machine.Site{Emulated: true}}
	if got := strings.Join(installerOrder(emulated, m, now, files).KernelArguments, " "); got != "quiet "+strings.Join(machine.EmulatedArguments, " ") {
		t.Errorf("emulated: %q", got)
	}
	if len(profile.KernelArguments) != 1 {
		t.Error("the profile was changed")
	}
}

// TestLeave: who was looked at and is not approved in time goes back to its disk.
func TestLeave(t *testing.T) {
	opened := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	files := func(string) ([]wire.File, error) { return nil, nil }
	short := machine.Site{Discovery: machine.SiteDiscovery{Wait: machine.Duration(time.Minute)}, SSHKeys: []string{"ssh-ed25519 AAAA ann"}}
	open := &machine.Intent{ID: "i-1", Session: "s-1", Status: machine.IntentOpen}
	rescue := &machine.Intent{ID: "r-1", Kind: machine.IntentRescue, Session: "s-1", Status: machine.IntentDone}
	for name, c := range map[string]struct {
		o     plainOrders
		after time.Duration
		left  bool
		want  wire.OrderKind
	}{
		"in time":                        {plainOrders{}, machine.DiscoveryWait - 1, false, wire.OrderWait},
		"too late":                       {plainOrders{}, machine.DiscoveryWait, false, wire.OrderLeave},
		"too late by the site file":      {plainOrders{site: short}, time.Minute, false, wire.OrderLeave},
		"told already, the clock jumped": {plainOrders{}, 0, true, wire.OrderLeave},
		"approved":                       {plainOrders{site: short, intent: open, profile: &machine.Profile{}}, time.Hour, false, wire.OrderInstall},
		"rescue":                         {plainOrders{site: short, rescue: rescue}, time.Hour, false, wire.OrderRescue},
		"rescue of an installed machine": {plainOrders{site: short, rescue: rescue, intent: &machine.Intent{Session: "s-0", Status: machine.IntentDone}}, 0, false, wire.OrderRescue},
		"the rescue of a session before": {plainOrders{site: short, rescue: &machine.Intent{Session: "s-0", Status: machine.IntentDone}}, 0, false, wire.OrderWait},
	} {
		m := machine.Machine{ID: "m-1", Session: &machine.Session{ID: "s-1", Opened: opened}}
		if c.left {
			m.Session.Left = opened.Add(time.Hour)
		}
		got := installerOrder(c.o, m, opened.Add(c.after), files)
		if got.Kind != c.want {
			t.Errorf("%s: %+v, want %s", name, got, c.want)
		}
		if got.Kind == wire.OrderWait && !got.Until.Equal(opened.Add(c.o.site.Discovery.WaitTime())) {
			t.Errorf("%s: it waits until %v", name, got.Until)
		}
		if got.Kind == wire.OrderRescue && (len(got.SSHKeys) != 1 || got.SSHKeys[0] != short.SSHKeys[0]) {
			t.Errorf("%s: keys %v", name, got.SSHKeys)
		}
	}
}

func TestNodeOrder(t *testing.T) {
	first := map[machine.ID]machine.Machine{"m-1": {ID: "m-1", Name: "node-1"}}
	control, worker := &machine.Profile{Role: machine.RoleControlPlane}, &machine.Profile{Role: machine.RoleWorker}
	bootstrap := func(status machine.IntentStatus) *machine.Intent {
		return &machine.Intent{ID: "b-1", Machine: "m-1", Status: status}
	}
	for name, c := range map[string]struct {
		o    plainOrders
		of   machine.ID
		want wire.NodeOrderKind
		says string
	}{
		"none approved":   {plainOrders{}, "m-1", wire.NodeWait, "no control plane"},
		"the first":       {plainOrders{bootstrap: bootstrap(machine.IntentOpen)}, "m-1", wire.NodeInit, ""},
		"the first again": {plainOrders{bootstrap: bootstrap(machine.IntentClaimed)}, "m-1", wire.NodeInit, ""},
		"the first, done": {plainOrders{bootstrap: bootstrap(machine.IntentDone)}, "m-1", wire.NodeWait, "never runs twice"},
		"none yet":        {plainOrders{}, "m-2", wire.NodeWait, "no control plane was approved yet"},
		"taken back": {plainOrders{ended: &machine.Intent{Machine: "m-1", Status: machine.IntentRevoked, Reason: "the wrong one"}, machines: first}, "m-2", wire.NodeWait,
			"taken back from node-1 (the wrong one): the next control plane that is approved starts it (rackseed approve NAME)"},
		"another":            {plainOrders{bootstrap: bootstrap(machine.IntentOpen), machines: first}, "m-2", wire.NodeWait, "waiting for node-1"},
		"another, forgotten": {plainOrders{bootstrap: bootstrap(machine.IntentClaimed)}, "m-2", wire.NodeWait, "waiting for m-1"},
		"a worker":           {plainOrders{bootstrap: bootstrap(machine.IntentDone), machines: first, profile: worker, joining: "m-1"}, "m-2", wire.NodeJoin, ""},
		"a control plane":    {plainOrders{bootstrap: bootstrap(machine.IntentDone), machines: first, profile: control}, "m-2", wire.NodeJoin, ""},
		"one that joins":     {plainOrders{bootstrap: bootstrap(machine.IntentDone), machines: first, profile: control, joining: "m-2"}, "m-2", wire.NodeJoin, ""},
		"while another does": {plainOrders{bootstrap: bootstrap(machine.IntentDone), machines: first, profile: control, joining: "m-1"}, "m-2", wire.NodeWait, "waiting for node-1"},
	} {
		got := NodeOrder(c.o, machine.Machine{ID: c.of}, time.Time{})
		if got.Kind != c.want || !strings.Contains(got.Reason, c.says) || (got.Kind == wire.NodeInit && got.Intent != "b-1") {
			t.Errorf("%s: %+v, want %s: %q", name, got, c.want, c.says)
		}
	}
}

func TestMayFetchIgnition(t *testing.T) {
	m := machine.Machine{ID: "m-1", Session: &machine.Session{ID: "s-1"}}
	for status, may := range map[machine.IntentStatus]bool{
		machine.IntentOpen: false, machine.IntentClaimed: true, machine.IntentFailed: false,
		machine.IntentDone: false, machine.IntentRevoked: false,
	} {
		for session, own := range map[string]bool{"s-1": true, "s-0": false} {
			intent := &machine.Intent{ID: "i-1", Session: session, Status: status}
			if got, err := mayFetchIgnition(plainOrders{intent: intent}, m); (err == nil) != (may && own) || (got != nil) != (may && own) {
				t.Errorf("%s, bound to %s: %v, %v", status, session, got, err)
			}
		}
	}
	if _, err := mayFetchIgnition(plainOrders{}, m); err == nil {
		t.Error("without any intent it may")
	}
}
