package api

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/netboot"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/statetest"
	"github.com/rackseed/rackseed/services/wire"
)

func TestActions(t *testing.T) {
	ready := machine.Machine{ID: "m-1", Phase: machine.PhaseWaiting, Session: &machine.Session{}, Inventory: &machine.Inventory{}}
	phase := func(p machine.Phase) machine.Machine { m := ready; m.Phase = p; return m }
	left := ready
	left.Session = &machine.Session{Left: time.Unix(1, 0)}
	intent := func(s machine.IntentStatus) *machine.Intent { return &machine.Intent{Status: s} }
	install := func(s machine.IntentStatus) machine.Orders { return machine.Orders{Install: intent(s)} }
	start := func(m machine.ID, s machine.IntentStatus) machine.Orders {
		return machine.Orders{Install: intent(machine.IntentDone), Bootstrap: &machine.Intent{ID: "b-1", Kind: machine.IntentBootstrap, Machine: m, Status: s}}
	}
	keys := []string{"ssh-ed25519 AAAA ann"}
	for _, c := range []struct {
		name string
		m    machine.Machine
		o    machine.Orders
		keys []string
		want string // the allowed ones
	}{
		{"only seen", machine.Machine{Phase: machine.PhaseSeen}, machine.Orders{}, keys, "forget look rescue"},
		{"waiting", ready, machine.Orders{}, keys, "approve forget look rescue"},
		{"went back to its disk", left, machine.Orders{}, keys, "forget look rescue"},
		{"approved", phase(machine.PhaseApproved), install(machine.IntentOpen), keys, "revoke rescue"},
		{"installing", phase(machine.PhaseInstalling), install(machine.IntentClaimed), keys, "revoke"},
		{"failed", phase(machine.PhaseFailed), install(machine.IntentFailed), keys, "retry revoke rescue"},
		{"installed", phase(machine.PhaseInstalled), install(machine.IntentDone), keys, "forget rescue"},
		{"installed, will start the cluster", phase(machine.PhaseInstalled), start("m-1", machine.IntentOpen), keys, "revoke rescue"},
		{"starts the cluster", phase(machine.PhaseJoining), start("m-1", machine.IntentClaimed), keys, "rescue"},
		{"started the cluster", phase(machine.PhaseReady), start("m-1", machine.IntentDone), keys, "forget rescue"},
		{"another will start it", phase(machine.PhaseBooted), start("m-2", machine.IntentOpen), keys, "forget rescue"},
		{"ready", phase(machine.PhaseReady), install(machine.IntentDone), keys, "forget rescue"},
		{"netbooted again", ready, install(machine.IntentDone), keys, "forget rescue"},
		{"revoked", ready, install(machine.IntentRevoked), keys, "approve forget look rescue"},
		{"rescue asked for", ready, machine.Orders{Rescue: intent(machine.IntentOpen)}, keys, "approve revoke forget look"},
		{"in rescue", phase(machine.PhaseRescue), machine.Orders{Rescue: intent(machine.IntentDone)}, keys, "forget look rescue"},
		{"went to its own disk", phase(machine.PhaseLocal), machine.Orders{}, keys, "forget look rescue"},
		{"nobody could log in", ready, machine.Orders{}, nil, "approve forget look"},
	} {
		var allowed []string
		for _, a := range Actions(c.m, c.o, c.keys) {
			if a.Allowed != (a.Reason == "") {
				t.Errorf("%s: %s: allowed %v with the reason %q", c.name, a.Name, a.Allowed, a.Reason)
			}
			if a.Allowed {
				allowed = append(allowed, string(a.Name))
			}
		}
		if got := strings.Join(allowed, " "); got != c.want {
			t.Errorf("%s: %q is allowed, want %q", c.name, got, c.want)
		}
	}
}

func TestApproveAndRetry(t *testing.T) {
	r := newRig(t)
	id := string(r.Waiting(1))
	auth := bearer(siteToken)

	if a := r.want(409, "POST", "/api/machines/"+id+"/approve", "", auth); !strings.Contains(a.detail(), "image") {
		t.Errorf("without an image: %s", a.detail())
	}
	r.Image()
	if a := r.want(422, "POST", "/api/machines/"+id+"/approve", `{"address":"one"}`, auth); a.detail() != `address: "one": expected an IPv4 address, as 192.0.2.20` {
		t.Errorf("no address: %s", a.detail())
	}
	r.want(422, "POST", "/api/machines/"+id+"/approve", `{"nane":"x"}`, auth)
	m := decode[Machine](t, r.want(200, "POST", "/api/machines/"+id+"/approve",
		`{"name":"alpha","address":"192.0.2.20","disk":{"serial":"S1"}}`, auth).body)
	if m.Name != "alpha" || m.Address.String() != "192.0.2.20" || m.Phase != machine.PhaseApproved ||
		m.Install == nil || m.Install.Status != machine.IntentOpen || m.Install.Disk.Serial != "S1" {
		t.Errorf("approved: %+v, intent %+v", m.Machine, m.Install)
	}
	if a := r.want(409, "POST", "/api/machines/alpha/approve", "", auth); !strings.Contains(a.detail(), "approved already") {
		t.Errorf("approved twice: %s", a.detail())
	}
	r.want(409, "POST", "/api/machines/alpha/retry", "", auth)

	r.Failed(m.ID, "the disk does not answer")
	m = decode[Machine](t, r.want(200, "GET", "/api/machines/52:54:00:00:00:01", "", auth).body)
	if m.Phase != machine.PhaseFailed || !strings.Contains(m.Reason, "does not answer") {
		t.Errorf("failed: %s, %q", m.Phase, m.Reason)
	}
	if a := r.want(409, "POST", "/api/machines/alpha/retry", `{"disk":{"serial":"S2"}}`, auth); !strings.Contains(a.detail(), "S1") {
		t.Errorf("a disk that it has not: %s", a.detail())
	}
	m = decode[Machine](t, r.want(200, "POST", "/api/machines/alpha/retry", `{"disk":{"path":"/dev/vda"}}`, auth).body)
	if m.Install.Epoch != 2 || m.Install.Status != machine.IntentOpen || m.Install.Disk != (machine.DiskHint{Serial: "S1"}) {
		t.Errorf("retried: %+v", m.Install)
	}

	events := decode[EventList](t, r.want(200, "GET", "/api/events?limit=1000&machine=alpha", "", auth).body)
	var told bool
	for _, e := range events.Items {
		if e.Machine != m.ID {
			t.Errorf("an event of %s among those of %s", e.Machine, m.ID)
		}
		told = told || strings.Contains(e.Text, "ann")
	}
	if !told {
		t.Errorf("no event says who approved: %+v", events.Items)
	}
}

// What is on a disk is lost only if whoever approves names it, word for word.
func TestPlanAndErase(t *testing.T) {
	r := newRig(t)
	r.Image()
	auth := bearer(siteToken)
	const contents = "GPT, 1 partition: BitLocker"
	id := string(r.Waiting(1, func(i *machine.Inventory) {
		i.Disks[0].Contents = contents
		i.Disks = append(i.Disks, machine.Disk{Path: "/dev/vdb", Transport: "virtio", Serial: "S2", Bytes: 64 << 30, SectorSize: 512, Contents: machine.Empty},
			machine.Disk{Path: "/dev/sda", Transport: "usb", Bytes: 64 << 30, SectorSize: 512, Contents: machine.Empty})
	}))
	path := "/api/machines/" + id
	m := decode[Machine](t, r.want(200, "GET", path, "", auth).body)
	if len(m.Disks) != 3 || m.Disks[0].Erase != contents || !m.Disks[0].Usable || m.Disks[0].Hint != (machine.DiskHint{Serial: "S1"}) ||
		m.Disks[1].Erase != "" || m.Disks[2].Usable || !strings.Contains(m.Disks[2].Reason, "USB") {
		t.Errorf("disks: %+v", m.Disks)
	}
	if a := r.want(409, "POST", path+"/plan", "", auth); !strings.Contains(a.detail(), "S1") || !strings.Contains(a.detail(), "S2") {
		t.Errorf("of two disks one must be chosen: %s", a.detail())
	}
	plan := func(body string) Plan {
		t.Helper()
		return decode[Plan](t, r.want(200, "POST", path+"/plan", body, auth).body)
	}
	if p := plan(`{"disk":{"serial":"S2"}}`); p.Disk.Path != "/dev/vdb" || p.Erase != "" || p.Name != "node-1" || p.Profile.Name != "control-plane" || !p.Starts || p.Address.String() != "192.0.2.10" {
		t.Errorf("onto the empty disk: %+v", p)
	}
	if p := plan(`{"name":"alpha","profile":"worker","disk":{"path":"/dev/vda"}}`); p.Disk.Path != "/dev/vda" || p.Erase != contents || p.Name != "alpha" || p.Starts || p.ProfileWhy == "" {
		t.Errorf("onto the full disk: %+v", p)
	}
	if v := r.View(); v.InstallIntent(machine.ID(id)) != nil {
		t.Error("planning ordered something")
	}
	seen := plan(`{"disk":{"path":"/dev/vda"}}`).Session
	if seen != r.View().Machines()[0].Session.ID {
		t.Errorf("the plan is about session %q", seen)
	}
	if a := r.want(409, "POST", path+"/approve", marshal(t, ApproveRequest{Disk: &machine.DiskHint{Path: "/dev/vda"}, Session: "older"}), auth); !strings.Contains(a.detail(), "restarted since it was looked at") {
		t.Errorf("approved in a session that nobody looked at: %s", a.detail())
	}
	for _, erase := range []string{"", "ext4", "gpt, 1 partition: bitlocker", machine.Empty} {
		body := marshal(t, ApproveRequest{Disk: &machine.DiskHint{Serial: "S1"}, Erase: erase})
		if a := r.want(409, "POST", path+"/approve", body, auth); !strings.Contains(a.detail(), contents) {
			t.Errorf("approved with erase %q: %s", erase, a.detail())
		}
	}
	m = decode[Machine](t, r.want(200, "POST", path+"/approve", marshal(t, ApproveRequest{Disk: &machine.DiskHint{Serial: "S1"}, Erase: contents, Session: seen}), auth).body)
	if m.Install == nil || m.Install.Erase != contents || m.Install.Disk != (machine.DiskHint{Serial: "S1"}) {
		t.Errorf("approved: %+v", m.Install)
	}
}

// A join that is not over can be taken back, and is not granted again.
func TestRevokeJoin(t *testing.T) {
	r := newRig(t)
	r.Image()
	auth := bearer(siteToken)
	first, second := r.Waiting(1), r.Waiting(2)
	for id, profile := range map[machine.ID]string{first: "control-plane", second: "worker"} {
		r.want(200, "POST", "/api/machines/"+string(id)+"/approve", `{"profile":"`+profile+`"}`, auth)
		r.Installed(id)
	}
	r.Must(state.BootstrapClaim{Machine: first})
	r.Must(state.NodeReport{Machine: first, Report: wire.NodeReport{BootID: "boot", Number: 1, Event: wire.NodeReady}})
	r.Must(state.JoinClaim{Machine: second, Intent: "j-1"})
	m := decode[Machine](t, r.want(200, "POST", "/api/machines/"+string(second)+"/revoke", `{"reason":"the wrong rack"}`, auth).body)
	if m.Join == nil || m.Join.Status != machine.IntentRevoked {
		t.Errorf("revoked: %+v", m.Join)
	}
	if _, err := r.Propose(t.Context(), "node", state.JoinClaim{Machine: second, Intent: "j-2"}); err == nil || !strings.Contains(err.Error(), "the wrong rack") {
		t.Errorf("it joins all the same: %v", err)
	}
}

// Taking an approval back ends the install and, while it is only to come, the
// start of the cluster, which then is another's.
func TestRevoke(t *testing.T) {
	r := newRig(t)
	r.Image()
	auth := bearer(siteToken)
	id, other := string(r.Waiting(1)), string(r.Waiting(2))
	r.want(404, "POST", "/api/machines/none/revoke", "", auth)
	if a := r.want(409, "POST", "/api/machines/"+id+"/revoke", "", auth); !strings.Contains(a.detail(), "nothing is open that could be taken back") {
		t.Errorf("not approved: %s", a.detail())
	}
	r.want(200, "POST", "/api/machines/"+id+"/approve", `{"name":"alpha","profile":"control-plane"}`, auth)
	r.want(422, "POST", "/api/machines/alpha/revoke", `{"reason":"`+strings.Repeat("x", 201)+`"}`, auth)
	words := func(list []machine.Intent) string {
		var words []string
		for _, i := range list {
			words = append(words, string(i.Kind)+" "+string(i.Status))
		}
		return strings.Join(words, ", ")
	}
	if got := words(decode[Machine](t, r.want(200, "GET", "/api/machines/alpha", "", auth).body).Open); got != "install open, bootstrap open" {
		t.Errorf("open: %q", got)
	}
	m := decode[Revoked](t, r.want(200, "POST", "/api/machines/alpha/revoke", `{"reason":"the wrong one"}`, auth).body)
	if got := words(m.Revoked); got != "install revoked, bootstrap revoked" || len(m.Open) != 0 {
		t.Errorf("taken back: %q; still open: %+v", got, m.Open)
	}
	if m.Phase != machine.PhaseWaiting || m.Install.Status != machine.IntentRevoked || m.Install.Reason != "the wrong one" {
		t.Errorf("revoked: %s, %+v", m.Phase, m.Install)
	}
	if b := r.View().Bootstrap(); b != nil {
		t.Errorf("the start of the cluster is still %s's: %+v", b.Machine, b)
	}
	r.want(409, "POST", "/api/machines/alpha/revoke", "", auth)
	r.want(200, "POST", "/api/machines/"+other+"/approve", `{"name":"beta","profile":"control-plane"}`, auth)
	if b := r.View().Bootstrap(); b == nil || string(b.Machine) != other {
		t.Errorf("the next control plane does not start the cluster: %+v", b)
	}
	events := r.View().Events(0, machine.ID(id), 0)
	var kinds []string
	for _, e := range events {
		if strings.Contains(e.Text, "ann") && strings.Contains(e.Text, "the wrong one") {
			kinds = append(kinds, e.Kind)
		}
	}
	if got := strings.Join(kinds, " "); got != "intent.revoked bootstrap.revoked" {
		t.Errorf("who revoked, and why, is told in %q", got)
	}
}

func TestWaitingFor(t *testing.T) {
	first := &machine.Intent{ID: "b-1", Machine: "m-1", Status: machine.IntentOpen}
	started := &machine.Intent{ID: "b-1", Machine: "m-1", Status: machine.IntentDone}
	for _, c := range []struct {
		name  string
		id    machine.ID
		phase machine.Phase
		start *machine.Intent
		want  string // a part of it; "": nothing
	}{
		{"no control plane", "m-2", machine.PhaseBooted, nil, "no control plane was approved"},
		{"another starts it", "m-2", machine.PhaseBooted, first, "waiting for alpha to start"},
		{"another control plane joins", "m-2", machine.PhaseBooted, started, "waiting for alpha"},
		{"it may join", "m-3", machine.PhaseBooted, started, ""},
		{"it starts it", "m-1", machine.PhaseBooted, first, ""},
		{"it started it, and restarted", "m-1", machine.PhaseBooted, started, ""},
		{"not installed", "m-2", machine.PhaseInstalling, started, ""},
		{"in the cluster", "m-2", machine.PhaseReady, started, ""},
	} {
		got := waitingFor(starts{intent: c.start}, machine.Machine{ID: c.id, Phase: c.phase}, time.Time{})
		if !strings.Contains(got, c.want) || c.want == "" && got != "" {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// starts is a state that holds the start of the cluster by machine alpha.
type starts struct {
	netboot.Orders // nothing else is asked for
	intent         *machine.Intent
}

func (starts) Machine(id machine.ID) (machine.Machine, bool) {
	return machine.Machine{ID: id, Name: "alpha"}, true
}
func (s starts) Bootstrap() *machine.Intent    { return s.intent }
func (starts) EndedBootstrap() *machine.Intent { return nil }
func (starts) Profile(id machine.ID) (machine.Profile, bool) {
	if id == "m-3" {
		return machine.Profile{Role: machine.RoleWorker}, true
	}
	return machine.Profile{Role: machine.RoleControlPlane}, true
}
func (starts) Joining(time.Time) machine.ID { return "m-1" }

// TestNoSecretLeaves reads everything that can be read and looks for secrets.
func TestNoSecretLeaves(t *testing.T) {
	r := newRig(t)
	r.Image()
	id := r.Waiting(1)
	r.want(200, "POST", "/api/machines/"+string(id)+"/approve", "", bearer(siteToken))
	seed, ok := r.View().Secret("node/" + string(id))
	if !ok {
		t.Fatal("the approval left no node seed")
	}
	seedJSON, err := json.Marshal(seed)
	if err != nil {
		t.Fatal(err)
	}
	site, _ := r.View().Site()
	for _, route := range routes(t) {
		if route[0] != "GET" || strings.HasSuffix(route[1], "stream") {
			continue
		}
		a := r.ask(route[0], route[1], "", bearer(siteToken))
		if z, err := gzip.NewReader(strings.NewReader(a.body)); err == nil {
			text, err := io.ReadAll(z)
			if err != nil {
				t.Fatalf("%s: %v", route[1], err)
			}
			a.body = string(text)
		}
		for name, secret := range map[string]string{
			"a node seed": strings.Trim(string(seedJSON), `"`), "a secret of the cluster": statetest.Secret,
			"a token's hash": site.Operators[0].TokenSHA256,
		} {
			if route[1] == "/api/backup" && name == "a token's hash" {
				continue // it is the whole state; its doc says so
			}
			if strings.Contains(a.body, secret) {
				t.Errorf("%s %s tells %s", route[0], route[1], name)
			}
		}
	}
}

func TestReads(t *testing.T) {
	r := newRig(t)
	auth := bearer(siteToken)
	for path, want := range map[string]string{"/api/machines": `{"items":[],"expected":[]}`, "/api/leases": `{"items":[]}`, "/api/images": `{"items":[]}`} {
		if a := r.want(200, "GET", path, "", auth); strings.TrimSpace(a.body) != want {
			t.Errorf("empty %s: %s", path, a.body)
		}
	}
	if s := decode[AppliedSite](t, r.want(200, "GET", "/api/site", "", auth).body); !s.Applied || s.Site.Name != "lab" || s.Cluster.ID != "c-1" || s.Cluster.Epoch == 0 {
		t.Errorf("site: %+v", s)
	}
	if s := decode[Status](t, r.want(200, "GET", "/api/status", "", auth).body); s.Site != "lab" {
		t.Errorf("status: %+v", s)
	}
	id := string(r.Waiting(1))
	r.Must(state.OutputStore{Chunk: machine.Chunk{Machine: machine.ID(id), Stream: "s-00000001", First: 1, Last: 3, Digest: "sha256:" + strings.Repeat("cd", 32), Size: 30}})
	lines := decode[List[Lines]](t, r.want(200, "GET", "/api/machines/"+id+"/output", "", auth).body).Items
	if len(lines) != 1 || lines[0].Seq != 1 || lines[0].First != 1 || len(lines[0].Lines) != 1 || !lines[0].Time.Equal(r.View().Chunks(machine.ID(id), 0, 0)[0].Time) || lines[0].Time.IsZero() {
		t.Errorf("output: %+v", lines)
	}
	r.want(404, "GET", "/api/machines/none", "", auth)
	r.want(404, "GET", "/api/events?machine=none", "", auth)
	r.want(422, "GET", "/api/events?limit=0", "", auth)
	if a := r.want(404, "GET", "/api/nothing", "", auth); !strings.Contains(a.detail(), "openapi.json") {
		t.Errorf("unknown path: %s", a.detail())
	}
	a := r.want(200, "GET", "/api/openapi.json", "", auth)
	spec, err := Spec()
	if err != nil || !bytes.Equal([]byte(a.body), spec) {
		t.Errorf("the document served differs from the one generated (%v)", err)
	}
}

func TestKubeconfig(t *testing.T) {
	r := newRig(t)
	auth := bearer(siteToken)
	refused := func(want string) {
		t.Helper()
		if a := r.want(409, "GET", "/api/kubeconfig", "", auth); !strings.Contains(a.detail(), "there is no cluster yet: "+want) {
			t.Errorf("refused with %q, want %q", a.detail(), want)
		}
	}
	refused("no control plane was approved")
	r.Image()
	id := r.Waiting(1)
	r.want(200, "POST", "/api/machines/"+string(id)+"/approve", `{"name":"alpha"}`, auth)
	refused("machine alpha will start it, and is approved")
	r.Installed(id)
	r.Must(state.BootstrapClaim{Machine: id})
	refused("machine alpha is starting it")
	r.Started(id)
	if c := decode[ClusterStart](t, r.want(200, "GET", "/api/cluster", "", auth).body); c.NoKubeconfig != "" || c.Starter == nil || c.Starter.Name != "alpha" || c.Bootstrap.Status != machine.IntentDone {
		t.Errorf("started: %+v", c)
	}
	a := r.want(200, "GET", "/api/kubeconfig", "", auth)
	if a.body != "user: ann\nserver: https://192.0.2.1:6443\n" || a.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%v\n%s", a.Header, a.body)
	}
	a = r.want(200, "GET", "/api/kubeconfig?server=https://127.0.0.1:7443", "", auth)
	if !strings.Contains(a.body, "server: https://127.0.0.1:7443\n") {
		t.Errorf("another server: %s", a.body)
	}
	r.want(422, "GET", "/api/kubeconfig?server=http://127.0.0.1", "", auth)
	last := r.View().Events(0, "", 1000)
	if e := last[len(last)-1]; e.Kind != "kubeconfig.made" || !strings.Contains(e.Text, "ann") {
		t.Errorf("no event tells of it; the last is %+v", e)
	}
}

func TestConsole(t *testing.T) {
	r := newRig(t, withConsole(fstest.MapFS{
		"index.html":         {Data: []byte("<title>console</title>")},
		"assets/app-1234.js": {Data: []byte("run()")},
		"favicon.svg":        {Data: []byte("<svg/>")},
	}))
	for _, c := range []struct {
		path, body, cache string
		status            int
	}{
		{"/", "<title>", "no-cache", 200},
		{"/machines/m-00000001", "<title>", "no-cache", 200},
		{"/assets", "<title>", "no-cache", 200},
		{"/assets/app-1234.js", "run()", "immutable", 200},
		{"/favicon.svg", "<svg/>", "no-cache", 200},
		{"/assets/app-0000.js", "", "", 404},
		{"/../../etc/passwd.txt", "", "", 404},
	} {
		a := r.want(c.status, "GET", c.path, "")
		if !strings.Contains(a.body, c.body) || c.cache != "" && !strings.Contains(a.Header.Get("Cache-Control"), c.cache) {
			t.Errorf("%s: %q, cache %q", c.path, a.body, a.Header.Get("Cache-Control"))
		}
		for _, h := range []string{"Content-Security-Policy", "X-Content-Type-Options", "Referrer-Policy"} {
			if a.Header.Get(h) == "" {
				t.Errorf("%s: no %s", c.path, h)
			}
		}
	}
	if a := newRig(t).want(http.StatusNotFound, "GET", "/", ""); !strings.Contains(a.body, "--console") {
		t.Errorf("without files: %s", a.body)
	}
}

// Who is listed and was never seen is shown, and is no machine.
func TestExpected(t *testing.T) {
	r := newRig(t)
	auth := bearer(siteToken)
	site, _ := r.View().Site()
	site.Machines = []machine.ListedMachine{{MAC: statetest.MAC(1), Name: "alpha"}, {MAC: statetest.MAC(2), Name: "beta", Approve: true}}
	r.Must(state.SiteApply{Site: site})
	r.Waiting(1)
	list := decode[MachineList](t, r.want(200, "GET", "/api/machines", "", auth).body)
	if len(list.Items) != 1 || len(list.Expected) != 1 || list.Expected[0].Name != "beta" || list.Expected[0].MAC != statetest.MAC(2) || !list.Expected[0].Approve {
		t.Errorf("%+v", list)
	}
	for _, word := range []string{"beta", string(statetest.MAC(2))} {
		if a := r.want(404, "GET", "/api/machines/"+word, "", auth); !strings.Contains(a.detail(), "was not seen yet") {
			t.Errorf("%s: %s", word, a.detail())
		}
	}
	if n := len(r.View().Machines()); n != 1 {
		t.Errorf("%d machines", n)
	}
}
