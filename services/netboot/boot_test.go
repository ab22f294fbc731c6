package netboot

import (
	"context"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/wire"
)

const (
	mac1  = machine.MAC("52:54:00:00:00:01")
	mac2  = machine.MAC("52:54:00:00:00:02")
	uuid1 = "4c4c4544-0042-3510-8052-b4c04f4d3132"
)

func scriptPath(mac machine.MAC, more string) string {
	return pathScript + "?mac=" + url.QueryEscape(string(mac)) + "&arch=x86_64&platform=efi" + more
}

// A machine's scripts on its way from its first packet to its own disk.
func TestBootStory(t *testing.T) {
	l := newLab(t).serve(t)
	start := l.want(t, 200, "#!ipxe\n", nil, "GET", pathBoot, nil)
	if !strings.Contains(start.body, "http://10.77.0.1/boot/script?mac=${netX/mac}&") {
		t.Errorf("%s", start.body)
	}
	if start.header.Get("Cache-Control") != "no-store" {
		t.Errorf("%v", start.header)
	}
	l.want(t, 200, "rackseed.mode=discovery BOOTIF=01-52-54-00-00-00-01 ", nil, "GET", scriptPath(mac1, "&uuid="+uuid1), nil)
	m, ok := l.store.View().MachineByUUID(uuid1)
	if !ok || m.MACs[0] != mac1 {
		t.Fatalf("not made known: %+v", m)
	}
	// Asking again, by another NIC too, makes no second machine.
	l.want(t, 200, "mode=discovery", nil, "GET", scriptPath(mac1, ""), nil)
	l.want(t, 200, "mode=discovery", nil, "GET", scriptPath(mac2, "&uuid="+strings.ToUpper(uuid1)), nil)
	if all := l.store.View().Machines(); len(all) != 1 || len(all[0].MACs) != 2 {
		t.Fatalf("%+v", all)
	}

	k := l.keys(t)
	s := l.session(t, k, mac1)
	l.approve(t, s, "node-1", machine.RoleControlPlane)
	a := l.want(t, 200, "rackseed.mode=install ", nil, "GET", scriptPath(mac1, ""), nil)
	for _, part := range []string{
		"kernel --name vmlinuz http://10.77.0.1/blobs/" + digestFor(installerKernel) + "/vmlinuz initrd=initrd.img ",
		"initrd --name initrd.img http://10.77.0.1/blobs/" + digestFor(installerInitrd) + "/initrd.img ",
		"rackseed.url=http://10.77.0.1 ",
	} {
		if !strings.Contains(a.body, part) {
			t.Errorf("%q is not in\n%s", part, a.body)
		}
	}
	checkScript(t, a.body)

	intent := l.store.View().InstallIntent(s.Machine)
	l.propose(t, state.IntentClaim{Intent: intent.ID, Epoch: intent.Epoch, Session: s.Session, Disk: machine.Disk{Path: "/dev/vda", Contents: machine.Empty}})
	l.propose(t, state.InstallReport{Machine: s.Machine, Session: s.Session, Report: wire.Report{
		Number: 1, Intent: intent.ID, Epoch: intent.Epoch, Step: wire.StepReboot, Status: wire.StepDone}})
	checkScript(t, l.want(t, 200, "node-1 boots its own disk", nil, "GET", scriptPath(mac1, ""), nil).body)

	var decided []string
	for _, e := range l.store.View().Events(0, s.Machine, 0) {
		if e.Kind == "boot.decided" {
			decided = append(decided, e.Data["boot"])
		}
	}
	if got := strings.Join(decided, " "); got != "discovery install local" {
		t.Errorf("decisions told: %s", got)
	}
}

func TestScriptRequests(t *testing.T) {
	l := newLab(t).serve(t)
	l.want(t, 400, "hardware address", nil, "GET", pathScript, nil)
	l.want(t, 400, "hardware address", nil, "GET", pathScript+"?mac=52:54", nil)
	l.want(t, 404, "there is nothing", nil, "POST", pathScript+"?mac="+string(mac1), nil)
	l.want(t, 404, "there is nothing", nil, "GET", "/etc/passwd", nil)
	if n := len(l.store.View().Machines()); n != 0 {
		t.Errorf("%d machines of none", n)
	}
	// What is odd does not hurt, and does not come back.
	a := l.want(t, 200, "mode=discovery", nil, "GET", scriptPath(mac1, "&uuid=${uuid}%0Ashell&asset=%0Ashell"), nil)
	checkScript(t, a.body)
	if m, ok := l.store.View().MachineByMAC(mac1); !ok || m.UUID != "" {
		t.Errorf("%+v", m)
	}
	checkScript(t, l.want(t, 200, "no installer for arm64", nil, "GET", pathScript+"?mac="+string(mac2)+"&arch=arm64", nil).body)
	// Firmware that asks with two slashes gets no redirect.
	l.want(t, 200, "#!ipxe", nil, "GET", "/"+pathBoot, nil)
}

func TestScriptWithoutImages(t *testing.T) {
	l := newLab(t).serve(t)
	delete(l.blobs.files, installerManifest)
	checkScript(t, l.want(t, 200, "the installer is not available", nil, "GET", scriptPath(mac1, ""), nil).body)
}

// The state moves between a decision and its commit: the decision is made
// again, and the answer is the new one.
func TestDecisionIsMadeAgain(t *testing.T) {
	l := newLab(t).serve(t)
	s := l.session(t, l.keys(t), mac1)
	tries := 0
	l.store.before = func(c state.Command) {
		if _, ok := c.(state.BootDecide); !ok {
			return
		}
		if tries++; tries == 1 {
			l.approve(t, s, "node-1", machine.RoleWorker)
		}
	}
	l.want(t, 200, "rackseed.mode=install ", nil, "GET", scriptPath(mac1, ""), nil)
	if tries != 2 {
		t.Errorf("decided %d times", tries)
	}
}

// A decision whose commit took too long is dropped, and the machine asks again.
func TestOldDecisionIsDropped(t *testing.T) {
	l := newLab(t).serve(t)
	l.store.before = func(state.Command) { l.clock.Add(int64(answerLimit) + 1) }
	a := l.want(t, 200, "could not decide just now", nil, "GET", scriptPath(mac1, ""), nil)
	checkScript(t, a.body)
	if a.header.Get("Retry-After") != "" {
		t.Error("iPXE would ask again by itself, for ever")
	}
}

// Without a leader nothing is decided.
func TestNoLeaderNoDecision(t *testing.T) {
	l := newLab(t).serve(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	l.server.Store = canceled{l.store, ctx}
	checkScript(t, l.want(t, 200, "could not decide just now", nil, "GET", scriptPath(mac1, ""), nil).body)
}

// canceled is a Store on which every proposal's time is up.
type canceled struct {
	*hooked
	ctx context.Context
}

func (c canceled) Propose(_ context.Context, by string, command state.Command) (state.Result, error) {
	return c.hooked.Propose(c.ctx, by, command)
}

func TestNoSiteNoScript(t *testing.T) {
	store, err := state.Open(state.Config{ID: "r-1", InMemory: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	l := newLab(t)
	l.server.Store = store
	l.serve(t).want(t, 503, "no valid site file", nil, "GET", pathBoot, nil)
}

func TestTime(t *testing.T) {
	l := newLab(t).serve(t)
	var got wire.Time
	l.want(t, 200, "", nil, "GET", wire.PathTime, nil).decode(t, &got)
	if want := time.Unix(0, l.clock.Load()); !got.Now.Equal(want) {
		t.Errorf("%v, want %v", got.Now, want)
	}
}

func TestBlobs(t *testing.T) {
	l := newLab(t).serve(t)
	digest := digestFor(nodeRoot)
	get := func(method, path string, header ...string) reply {
		t.Helper()
		a, err := l.raw(nil, method, path, nil, header...)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	whole := get("GET", "/blobs/"+digest)
	if whole.code != 200 || whole.body != nodeRoot || whole.header.Get("ETag") != `"`+digest+`"` ||
		!strings.Contains(whole.header.Get("Cache-Control"), "immutable") || whole.header.Get("Accept-Ranges") != "bytes" {
		t.Errorf("%+v", whole)
	}
	for name, c := range map[string]struct {
		a    reply
		code int
		body string
	}{
		"named":          {get("GET", "/blobs/"+digest+"/root.erofs"), 200, nodeRoot},
		"two slashes":    {get("GET", "//blobs/"+digest), 200, nodeRoot},
		"head":           {get("HEAD", "/blobs/"+digest), 200, ""},
		"range":          {get("GET", "/blobs/"+digest, "Range", "bytes=4-7"), 206, nodeRoot[4:8]},
		"rest, same":     {get("GET", "/blobs/"+digest, "Range", "bytes=4-", "If-Range", `"`+digest+`"`), 206, nodeRoot[4:]},
		"rest, another":  {get("GET", "/blobs/"+digest, "Range", "bytes=4-", "If-Range", `"sha256:0"`), 200, nodeRoot},
		"known":          {get("GET", "/blobs/"+digest, "If-None-Match", `"`+digest+`"`), 304, ""},
		"beyond the end": {get("GET", "/blobs/"+digest, "Range", "bytes=99-"), 416, "invalid range: failed to overlap\n"},
	} {
		if c.a.code != c.code || c.a.body != c.body {
			t.Errorf("%s: %d %q, want %d %q", name, c.a.code, c.a.body, c.code, c.body)
		}
	}
	l.want(t, 404, "no replica has it", nil, "GET", "/blobs/"+digestFor("x"), nil)
	for _, odd := range []string{"sha256:ab", "sha512:" + strings.Repeat("a", 64), "sha256:" + strings.Repeat("A", 64)} {
		l.want(t, 400, "64 hex digits", nil, "GET", "/blobs/"+odd, nil)
	}
	l.want(t, 404, "nothing for GET at /etc/passwd", nil, "GET", "/blobs/..%2f..%2fetc%2fpasswd", nil)
}

// Transfers beyond the limit wait, and do not get ahead of those that are on
// their way.
func TestTransfersAreBounded(t *testing.T) {
	l := newLab(t).serve(t)
	for range cap(l.server.transfers) {
		l.server.transfers <- struct{}{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := httptest.NewRequest("GET", "/blobs/"+digestFor(nodeRoot), nil).WithContext(ctx)
	w := httptest.NewRecorder()
	l.server.ServeHTTP(w, r)
	if w.Code != 503 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	<-l.server.transfers
	l.want(t, 200, nodeRoot, nil, "GET", "/blobs/"+digestFor(nodeRoot), nil)
	if n := len(l.server.transfers); n != cap(l.server.transfers)-1 {
		t.Errorf("%d turns are taken", n)
	}
}

func TestRateLimit(t *testing.T) {
	l := newLab(t)
	l.server = New(Config{
		Store: l.store, Blobs: l.blobs, Output: l.server.Output, Ignition: l.server.Ignition,
		Limits: Limits{Rate: 10, Burst: 20}, Now: l.server.Now, Logger: l.server.Logger,
	})
	l.serve(t)
	l.want(t, 200, "", nil, "GET", scriptPath(mac1, ""), nil)
	l.want(t, 200, "", nil, "GET", scriptPath(mac1, ""), nil)
	a := l.want(t, 429, "too many requests", nil, "GET", scriptPath(mac1, ""), nil)
	if a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	l.clock.Add(int64(time.Second))
	l.want(t, 200, "", nil, "GET", scriptPath(mac1, ""), nil)
}
