package netboot

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rackseed/rackseed/services/events"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/wire"
)

const (
	boot1 = "0b9ac6a5-0000-4000-8000-000000000001"
	boot2 = "0b9ac6a5-0000-4000-8000-000000000002"
)

// Anybody can ask in a waiting machine's name what it boots. Its installer hears of
// that at once, by the poll that is under way, and is there again by the next.
func TestSpokenForWhileItPolls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		k := l.keys(t)
		ask := func(key ed25519.PrivateKey, method, path string, body []byte) reply {
			r, w := httptest.NewRequest(method, path, bytes.NewReader(body)), httptest.NewRecorder()
			if key != nil {
				wire.Sign(r, key, body)
			}
			l.server.ServeHTTP(w, r)
			return reply{w.Code, w.Header(), w.Body.String()}
		}
		q := sessionRequest(k, mac1)
		q.Inventory.Disks = []machine.Disk{{Path: "/dev/vda", Contents: "ext4"}}
		body, err := json.Marshal(q)
		if err != nil {
			t.Fatal(err)
		}
		var s wire.SessionReply
		ask(k.sign, "POST", wire.PathSession, body).decode(t, &s)
		phase := func(want machine.Phase) {
			t.Helper()
			if m, _ := l.store.View().Machine(s.Machine); m.Phase != want {
				t.Errorf("phase %s (%s), want %s", m.Phase, m.Reason, want)
			}
		}
		for range 2 { // one right after the other: neither is left out as a repetition
			polled := make(chan reply, 1)
			go func() { polled <- ask(k.sign, "GET", wire.PathOrder+"?wait=30s", nil) }()
			synctest.Wait()
			phase(machine.PhaseWaiting)
			ask(nil, "GET", pathScript+"?mac="+string(mac1)+"&arch=x86_64&platform=efi", nil)
			synctest.Wait()
			phase(machine.PhaseLocal) // a poll that began before proves nothing
			select {
			case a := <-polled:
				var order wire.Order
				if a.decode(t, &order); order.Kind != wire.OrderWait {
					t.Errorf("%+v", order)
				}
			default:
				t.Fatal("its poll goes on")
			}
		}
		ask(k.sign, "GET", wire.PathOrder, nil)
		phase(machine.PhaseWaiting)
	})
}

// An install as its installer sees it, with each request sent twice, since any
// answer can be lost.
func TestInstallStory(t *testing.T) {
	l := newLab(t).serve(t)
	k := l.keys(t)
	s := l.session(t, k, mac1)
	if again := l.session(t, k, mac1); again != s {
		t.Fatalf("the same keys got %+v, then %+v", s, again)
	}
	var order wire.Order
	l.want(t, 200, "waiting for approval", k.sign, "GET", wire.PathOrder, nil)
	l.want(t, 409, "no install is approved", k.sign, "GET", wire.PathIgnition, nil)

	// The long poll answers as soon as an operator approves.
	l.store.viewed = make(chan struct{}, 16)
	polled := make(chan reply, 1)
	go func() {
		a, err := l.raw(k.sign, "GET", wire.PathOrder+"?wait=30s", nil)
		if err != nil {
			t.Error(err)
		}
		polled <- a
	}()
	for range 2 { // whose key it is, and whether there is an order
		<-l.store.viewed
	}
	node := l.approve(t, s, "node-1", machine.RoleControlPlane)
	(<-polled).decode(t, &order)
	if order.Kind != wire.OrderInstall || order.Epoch != 1 || order.Image.Digest != nodeManifest ||
		order.Image.Files[0].Digest != digestFor(nodeRoot) || !slices.Equal(order.KernelArguments, []string{"quiet"}) {
		t.Fatalf("%+v", order)
	}

	l.want(t, 409, "is open", k.sign, "GET", wire.PathIgnition, nil)
	claim := wire.ClaimRequest{Intent: order.Intent, Epoch: order.Epoch, Disk: machine.Disk{Path: "/dev/vda", Serial: "d1", Contents: machine.Empty}}
	late := claim
	late.Epoch = 2
	l.want(t, 409, "epoch 1 and not 2", k.sign, "POST", wire.PathClaim, late)
	for range 2 {
		l.want(t, 204, "", k.sign, "POST", wire.PathClaim, claim)
	}
	other := claim
	other.Disk = machine.Disk{Path: "/dev/vdb", Serial: "d2"}
	l.want(t, 409, "another disk", k.sign, "POST", wire.PathClaim, other)

	for range 2 {
		a := l.want(t, 200, "ciphertext", k.sign, "GET", wire.PathIgnition, nil)
		var sealed wire.Sealed
		a.decode(t, &sealed)
		got, err := wire.Open(k.seal, wire.IgnitionPurpose(order.Intent, order.Epoch), sealed)
		if err != nil || string(got) != "secret of node-1" {
			t.Fatalf("%q, %v", got, err)
		}
		if bytes.Contains(sealed.Ciphertext, []byte("secret")) {
			t.Error("it is in the clear")
		}
	}
	if n := strings.Count(strings.Join(l.kinds(s.Machine), " "), "ignition.fetch"); n != 2 {
		t.Errorf("%d fetches were told", n)
	}

	report := wire.Report{Number: 1, Intent: order.Intent, Epoch: 1, Step: wire.StepImage, Status: wire.StepStarted, Text: "image"}
	for range 2 {
		l.want(t, 204, "", k.sign, "POST", wire.PathReport, report)
	}
	if n := strings.Count(strings.Join(l.kinds(s.Machine), " "), "install.step"); n != 1 {
		t.Errorf("a report was told %d times", n)
	}

	var next wire.OutputReply
	out := wire.Output{Stream: s.Session, First: 1, Lines: []string{"one", "two"}}
	for range 2 {
		l.want(t, 200, "", k.sign, "POST", wire.PathOutput, out).decode(t, &next)
		if next.Next != 3 {
			t.Errorf("next is line %d", next.Next)
		}
	}
	l.want(t, 403, "is not this session's", k.sign, "POST", wire.PathOutput, wire.Output{Stream: "node-" + boot1, First: 1})
	l.want(t, 400, "lines count from 1", k.sign, "POST", wire.PathOutput, wire.Output{Stream: s.Session, First: 0, Lines: []string{"x"}})

	l.want(t, 204, "", k.sign, "POST", wire.PathReport, wire.Report{Number: 2, Intent: order.Intent, Epoch: 1, Step: wire.StepReboot, Status: wire.StepDone})
	l.want(t, 409, "is done", k.sign, "GET", wire.PathIgnition, nil)
	l.want(t, 200, "the install is done", k.sign, "GET", wire.PathOrder, nil)
	if m, _ := l.store.View().Machine(s.Machine); m.Phase != machine.PhaseInstalled {
		t.Errorf("%s", m.Phase)
	}

	// From here on the node speaks.
	l.want(t, 204, "", node, "POST", wire.PathNodeReport, wire.NodeReport{BootID: boot1, Number: 1, Event: wire.NodeBooted})
	l.want(t, 200, "", node, "POST", wire.PathOutput, wire.Output{Stream: "node-" + boot1, First: 1, Lines: []string{"three"}})
	l.want(t, 403, "boot ID", node, "POST", wire.PathOutput, wire.Output{Stream: s.Session, First: 3})
	var nodeOrder wire.NodeOrder
	for range 2 {
		l.want(t, 200, "", node, "GET", wire.PathNodeOrder, nil).decode(t, &nodeOrder)
		if nodeOrder.Kind != wire.NodeInit {
			t.Fatalf("%+v", nodeOrder)
		}
	}
	if b := l.store.View().Bootstrap(); b.Status != machine.IntentClaimed || b.ID != nodeOrder.Intent {
		t.Errorf("told to init, but the bootstrap intent is %+v", b)
	}

	// A second control plane never inits, and joins once the cluster is there.
	k2 := l.keys(t)
	s2 := l.session(t, k2, mac2)
	node2 := l.approve(t, s2, "node-2", machine.RoleControlPlane)
	l.want(t, 200, "waiting for node-1 to start the cluster", node2, "GET", wire.PathNodeOrder, nil)
	l.want(t, 204, "", node, "POST", wire.PathNodeReport, wire.NodeReport{BootID: boot1, Number: 2, Event: wire.NodeJoined})
	l.want(t, 200, `"join"`, node2, "GET", wire.PathNodeOrder, nil)
	l.want(t, 200, "never runs twice", node, "GET", wire.PathNodeOrder, nil)
}

// A machine that restarts in the middle: its old session is over for every
// request, and its Ignition is out of reach until it is approved again.
func TestRestartRevokes(t *testing.T) {
	l := newLab(t).serve(t)
	old := l.keys(t)
	s := l.session(t, old, mac1)
	l.approve(t, s, "node-1", machine.RoleWorker)
	intent := l.store.View().InstallIntent(s.Machine)
	l.want(t, 204, "", old.sign, "POST", wire.PathClaim, wire.ClaimRequest{Intent: intent.ID, Epoch: 1, Disk: machine.Disk{Path: "/dev/vda", Contents: machine.Empty}})

	// While it writes, nobody else takes the machine over.
	fresh := l.keys(t)
	l.want(t, 409, "taken over once that is silent for 20s", fresh.sign, "POST", wire.PathSession, sessionRequest(fresh, mac1))
	l.clock.Add(int64(20 * time.Second))
	s2 := l.session(t, fresh, mac1)
	if s2.Machine != s.Machine || s2.Session == s.Session {
		t.Fatalf("%+v, then %+v", s, s2)
	}
	l.want(t, 200, `"kind":"revoked"`, old.sign, "GET", wire.PathOrder+"?wait=30s", nil)
	l.want(t, 403, "replaced by a newer one", old.sign, "GET", wire.PathIgnition, nil)
	l.want(t, 403, "replaced by a newer one", old.sign, "POST", wire.PathClaim, wire.ClaimRequest{Intent: intent.ID, Epoch: 1})
	l.want(t, 403, "replaced by a newer one", old.sign, "POST", wire.PathOutput, wire.Output{Stream: s.Session, First: 1})
	l.want(t, 200, "waiting for approval", fresh.sign, "GET", wire.PathOrder, nil)
	l.want(t, 409, "no install is approved", fresh.sign, "GET", wire.PathIgnition, nil)
	// The old session's request, replayed, does not take over again.
	l.want(t, 409, "", old.sign, "POST", wire.PathSession, sessionRequest(old, mac1))
	if m, _ := l.store.View().Machine(s.Machine); m.Session.ID != s2.Session {
		t.Errorf("the newest session is %s", m.Session.ID)
	}
}

// The intent ends between the check and the commit: the secret stays here.
func TestIgnitionIsCheckedAfterTheCommit(t *testing.T) {
	l := newLab(t).serve(t)
	k := l.keys(t)
	s := l.session(t, k, mac1)
	l.approve(t, s, "node-1", machine.RoleWorker)
	intent := l.store.View().InstallIntent(s.Machine)
	l.want(t, 204, "", k.sign, "POST", wire.PathClaim, wire.ClaimRequest{Intent: intent.ID, Epoch: 1, Disk: machine.Disk{Path: "/dev/vda", Contents: machine.Empty}})
	l.store.before = func(c state.Command) {
		if _, ok := c.(state.Note); ok {
			l.propose(t, state.IntentRevoke{Intent: intent.ID, Reason: "wrong rack"})
		}
	}
	l.want(t, 409, "has ended", k.sign, "GET", wire.PathIgnition, nil)
	l.want(t, 200, "wrong rack", k.sign, "GET", wire.PathOrder, nil)
}

// A permission whose commit took too long is not passed on.
func TestOldClaimIsDropped(t *testing.T) {
	l := newLab(t).serve(t)
	k := l.keys(t)
	s := l.session(t, k, mac1)
	l.approve(t, s, "node-1", machine.RoleWorker)
	claim := wire.ClaimRequest{Intent: l.store.View().InstallIntent(s.Machine).ID, Epoch: 1, Disk: machine.Disk{Path: "/dev/vda", Contents: machine.Empty}}
	l.store.before = func(state.Command) { l.clock.Add(int64(answerLimit) + 1) }
	l.want(t, 503, "ask again", k.sign, "POST", wire.PathClaim, claim)
	l.store.before = nil
	l.want(t, 204, "", k.sign, "POST", wire.PathClaim, claim)
}

// Every signed path against every wrong key.
func TestSignatures(t *testing.T) {
	l := newLab(t).serve(t)
	k := l.keys(t)
	s := l.session(t, k, mac1)
	node := l.approve(t, s, "node-1", machine.RoleWorker)
	stranger := l.keys(t).sign
	for _, c := range []struct {
		method, path    string
		installer, node bool // whose key is let through
	}{
		{"GET", wire.PathOrder, true, false},
		{"POST", wire.PathClaim, true, false},
		{"POST", wire.PathReport, true, false},
		{"GET", wire.PathIgnition, true, false},
		{"POST", wire.PathOutput, true, true},
		{"POST", wire.PathNodeReport, false, true},
		{"GET", wire.PathNodeOrder, false, true},
	} {
		body := map[string]any{}
		l.want(t, 401, "not signed", nil, c.method, c.path, body)
		a := l.call(t, stranger, c.method, c.path, body)
		if c.path == wire.PathOrder {
			if a.code != 200 || !strings.Contains(a.body, `"revoked"`) {
				t.Errorf("%s of a stranger: %d %s", c.path, a.code, a.body)
			}
		} else if a.code != 403 {
			t.Errorf("%s of a stranger: %d %s", c.path, a.code, a.body)
		}
		for name, by := range map[string]struct {
			key ed25519.PrivateKey
			may bool
		}{"installer": {k.sign, c.installer}, "node": {node, c.node}} {
			a := l.call(t, by.key, c.method, c.path, body)
			// 403 is a key's; what the empty body then makes is another's test.
			if may := a.code != 403 || strings.Contains(a.body, "stream"); may != by.may {
				t.Errorf("%s by the %s: %d %s", c.path, name, a.code, a.body)
			}
		}
	}
	// The session's signature must be by the key that it carries.
	l.want(t, 401, "not signed", stranger, "POST", wire.PathSession, sessionRequest(k, mac1))
	l.want(t, 401, "not signed", nil, "POST", wire.PathSession, sessionRequest(k, mac1))
}

func TestBadRequests(t *testing.T) {
	l := newLab(t).serve(t)
	k := l.keys(t)
	change := func(f func(*wire.SessionRequest)) wire.SessionRequest {
		q := sessionRequest(k, mac1)
		f(&q)
		return q
	}
	for name, c := range map[string]struct {
		body any
		code int
		says string
	}{
		"not JSON's shape": {7, 400, "the request's body"},
		"sealing key":      {change(func(q *wire.SessionRequest) { q.SealKey = []byte{1} }), 400, "sealing key"},
		"UUID":             {change(func(q *wire.SessionRequest) { q.Inventory.UUID = "x" }), 400, "UUID"},
		"no NIC":           {change(func(q *wire.SessionRequest) { q.Inventory.NICs, q.Inventory.BootMAC = nil, "" }), 400, "no network interface"},
		"odd MAC":          {map[string]any{"inventory": map[string]any{"bootMac": "x"}}, 400, "hardware address"},
		"too long":         {change(func(q *wire.SessionRequest) { q.Version = strings.Repeat("x", maxSession) }), 413, "over 524288 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			l.want(t, c.code, c.says, k.sign, "POST", wire.PathSession, c.body)
		})
	}
	if n := len(l.store.View().Machines()); n != 0 {
		t.Errorf("%d machines of none", n)
	}
	s := l.session(t, k, mac1)
	node := l.approve(t, s, "node-1", machine.RoleWorker)
	long := map[string]string{"text": strings.Repeat("x", maxSmall)}
	for _, path := range []string{wire.PathClaim, wire.PathReport} {
		l.want(t, 413, "over", k.sign, "POST", path, long)
		l.want(t, 400, "the request's body", k.sign, "POST", path, 7)
	}
	l.want(t, 413, "over", node, "POST", wire.PathNodeReport, long)
	l.want(t, 409, "reports are numbered from 1", node, "POST", wire.PathNodeReport, wire.NodeReport{BootID: boot2, Event: wire.NodeBooted})
	var e wire.ErrorReply
	if l.call(t, k.sign, "POST", wire.PathReport, 7).decode(t, &e); e.Error == "" {
		t.Error("no error in the reply")
	}
}

func TestCodeOf(t *testing.T) {
	for code, err := range map[int]error{
		http.StatusConflict:            fmt.Errorf("x: %w", &state.Refusal{Text: "no"}),
		http.StatusUnauthorized:        fmt.Errorf("x: %w", wire.ErrUnsigned),
		http.StatusTeapot:              fmt.Errorf("x: %w", status(http.StatusTeapot, &state.Refusal{})),
		http.StatusInternalServerError: fmt.Errorf("x"),
	} {
		if got := codeOf(err); got != code {
			t.Errorf("%v: %d, want %d", err, got, code)
		}
	}
}

// Output that is not taken now is asked for later: neither answer is one that
// an installer or an agent takes for the last word.
func TestOutputLater(t *testing.T) {
	l := newLab(t).serve(t)
	k := l.keys(t)
	s := l.session(t, k, "52:54:00:00:00:01")
	out := wire.Output{Stream: s.Session, First: 1, Lines: []string{"one"}}
	for code, err := range map[int]error{429: events.ErrBudget, 507: events.ErrSpace, 503: state.ErrUnwritable} {
		l.server.Output = refusing{fmt.Errorf("machine m-1: %w", err)}
		a := l.want(t, code, err.Error(), k.sign, "POST", wire.PathOutput, out)
		if a.header.Get("Retry-After") != retryAfter[code] || retryAfter[code] == "" {
			t.Errorf("%d: %v", code, a.header)
		}
	}
}

type refusing struct{ err error }

func (r refusing) Append(context.Context, machine.ID, wire.Output) (uint64, error) { return 0, r.err }

// A machine whose inventory is too large boots its own disk when it restarts.
func TestTooLargeAnInventory(t *testing.T) {
	l := newLab(t).serve(t)
	k := l.keys(t)
	script := func() string {
		t.Helper()
		return l.want(t, 200, "", nil, "GET", pathScript+"?mac="+string(mac1)+"&arch=x86_64&platform=efi", nil).body
	}
	if s := script(); !strings.Contains(s, "rackseed.mode=discovery") {
		t.Fatalf("first: %s", s)
	}
	q := sessionRequest(k, mac1)
	for n := range 300 {
		q.Inventory.NICs = append(q.Inventory.NICs, machine.NIC{MAC: machine.MAC(fmt.Sprintf("52:54:00:0a:%02x:%02x", n>>8, n&255))})
	}
	l.want(t, 409, "301 network interfaces", k.sign, "POST", wire.PathSession, q)
	if s := script(); strings.Contains(s, "rackseed.mode=") {
		t.Errorf("it is sent to the installer again: %s", s)
	}
	m, _ := l.store.View().MachineByMAC(mac1)
	kinds := l.kinds(m.ID)
	if len(kinds) < 3 || kinds[len(kinds)-2] != "session.refused" || m.Phase != machine.PhaseLocal || !strings.Contains(m.Reason, "refused") {
		t.Errorf("events %v, %s: %s", kinds, m.Phase, m.Reason)
	}
}

// Of one that is too large to be read, the lease of its source says whose it is.
func TestTooLargeABody(t *testing.T) {
	l := newLab(t).serve(t)
	k := l.keys(t)
	l.want(t, 200, "rackseed.mode=discovery", nil, "GET", pathScript+"?mac="+string(mac1)+"&arch=x86_64&platform=efi", nil)
	now := l.server.Now()
	l.propose(t, state.LeaseBind{Lease: machine.Lease{Address: netip.MustParseAddr("127.0.0.1"), MAC: mac1, Bound: now, Expires: now.Add(time.Hour)}})
	var within time.Duration
	l.store.ctx = func(ctx context.Context, c state.Command) {
		if _, ok := c.(state.SessionRefuse); ok {
			if until, ok := ctx.Deadline(); ok {
				within = time.Until(until)
			}
		}
	}
	q := sessionRequest(k, mac1)
	q.Version = strings.Repeat("x", maxSession)
	l.want(t, 413, "over 524288 bytes", k.sign, "POST", wire.PathSession, q)
	m, _ := l.store.View().MachineByMAC(mac1)
	if m.Refused == nil || !strings.Contains(m.Refused.Why, "over 524288 bytes") {
		t.Errorf("%+v", m.Refused)
	}
	if within <= 0 || within > proposeLimit {
		t.Errorf("the commit has %v", within)
	}
}
