package approve

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/rackseed/rackseed/services/keyring"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/statetest"
	"github.com/rackseed/rackseed/services/wire"
)

// room is a few machines at the mercy of a person, of the power and of each
// other, over a real state.
type room struct {
	t     *rapid.T
	store *state.Store
	now   time.Time
	n     int // makes IDs that never repeat

	boots     map[int]int             // installer sessions of each machine
	decided   []state.MachineApprove  // and not proposed yet: the view that they were decided on grows old
	opened    []string                // bootstrap intents
	cluster   int                     // how many were abandoned
	permitted map[int]map[string]bool // to start each cluster: serial numbers of machines
}

func (r *room) propose(c state.Command) (state.Result, bool) {
	r.t.Helper()
	r.now = r.now.Add(time.Second)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	result, err := r.store.Propose(ctx, "operator:ann", c)
	var refused *state.Refusal
	if err != nil && !errors.As(err, &refused) {
		r.t.Fatalf("%s: %v", c.Kind(), err)
	}
	for _, e := range result.Events {
		if e.Kind == "bootstrap.opened" {
			r.opened = append(r.opened, e.Data["intent"])
		}
	}
	return result, err == nil
}

// must commits a command that the rules allow.
func (r *room) must(c state.Command) {
	r.t.Helper()
	if _, ok := r.propose(c); !ok {
		r.t.Fatalf("%s is refused", c.Kind())
	}
}

func (r *room) next(prefix string) string {
	r.n++
	return fmt.Sprintf("%s-%d", prefix, r.n)
}

// netboots boots the installer on machine n: its session is new.
func (r *room) netboots(n int) {
	r.boots[n]++
	key := sha256.Sum256(fmt.Append(nil, "machine", n, "session", r.boots[n]))
	r.propose(state.SessionOpen{
		NewID: machine.ID(r.next("m")), Inventory: statetest.Inventory(n),
		Session: machine.Session{ID: r.next("s"), SignKey: key[:], SealKey: key[:], Opened: r.now},
	})
}

// approves decides an approval of machine n on what is there now.
func (r *room) approves(v state.View, m machine.Machine, profile string) (state.MachineApprove, bool) {
	fresh := Fresh{r.next("i"), r.next("b"), nil}
	seed := sha256.Sum256([]byte(fresh.Intent))
	fresh.NodeSeed = seed[:]
	c, err := Decide(v, m, Wish{Profile: profile}, fresh)
	return c, err == nil
}

// step is what machine m does next, if nothing comes in between.
func step(m machine.Machine, install machine.Intent, bootstrap *machine.Intent) string {
	starts := bootstrap.Live() && bootstrap.Machine == m.ID
	switch {
	case m.Session == nil:
		return "netboot"
	case install.Status == machine.IntentOpen:
		return "claim"
	case install.Status == machine.IntentClaimed:
		return "written"
	case install.Status == machine.IntentFailed:
		return "retry"
	case install.Status == machine.IntentDone && starts && bootstrap.Status == machine.IntentOpen:
		return "start"
	case install.Status == machine.IntentDone && starts:
		return "joined"
	case install.Status == machine.IntentDone:
		return "booted"
	}
	return "approve now"
}

// act lets one thing happen to machine n.
func (r *room) act(n int) {
	v := r.store.View()
	m, _ := v.MachineByMAC(statetest.MAC(n))
	install, session, profile := machine.Intent{}, "", ""
	if m.Session != nil {
		session = m.Session.ID
	}
	if i := v.InstallIntent(m.ID); i != nil {
		install = *i
	}
	what := "goes on"
	if rapid.IntRange(0, 2).Draw(r.t, "something comes in between") == 0 {
		what = rapid.SampledFrom([]string{
			"netboot", "approve", "commit", "written", "fails", "start", "joined", "forget", "revoke", "revoke start", "abandon", "silence",
		}).Draw(r.t, "what")
	}
	if what == "goes on" {
		what = step(m, install, v.Bootstrap())
	}
	if what == "approve" || what == "approve now" {
		profile = rapid.SampledFrom([]string{"", "control-plane", "control-plane", "worker"}).Draw(r.t, "profile")
	}
	switch what {
	case "netboot":
		r.netboots(n)
	case "approve now":
		if c, ok := r.approves(v, m, profile); ok {
			r.propose(c)
		}
	case "approve":
		if c, ok := r.approves(v, m, profile); ok {
			r.decided = append(r.decided, c)
		}
	case "commit":
		if len(r.decided) > 0 {
			i := rapid.IntRange(0, len(r.decided)-1).Draw(r.t, "which")
			r.propose(r.decided[i])
			r.decided = append(r.decided[:i], r.decided[i+1:]...)
		}
	case "claim":
		r.propose(state.IntentClaim{Intent: install.ID, Epoch: install.Epoch, Session: session, Disk: statetest.Inventory(n).Disks[0]})
	case "written", "fails":
		status := map[string]wire.ReportStatus{"written": wire.StepDone, "fails": wire.StepFailed}[what]
		r.n++
		r.propose(state.InstallReport{Machine: m.ID, Session: session, Report: wire.Report{
			Number: uint64(r.n), Intent: install.ID, Epoch: install.Epoch, Step: wire.StepReboot, Status: status}})
	case "retry":
		if c, err := Retry(v, m, Wish{}); err == nil {
			r.propose(c)
		}
	case "start":
		if _, ok := r.propose(state.BootstrapClaim{Machine: m.ID}); ok {
			if r.permitted[r.cluster] == nil {
				r.permitted[r.cluster] = map[string]bool{}
			}
			r.permitted[r.cluster][statetest.Inventory(n).Serial] = true
		}
	case "joined", "booted":
		r.n++
		event := map[string]wire.NodeEvent{"joined": wire.NodeJoined, "booted": wire.NodeBooted}[what]
		r.propose(state.NodeReport{Machine: m.ID, Report: wire.NodeReport{BootID: "boot", Number: uint64(r.n), Event: event}})
	case "forget":
		r.propose(state.MachineForget{Machine: m.ID})
	case "revoke":
		r.propose(state.IntentRevoke{Intent: install.ID})
	case "revoke start", "abandon":
		b := v.Bootstrap()
		if b == nil {
			return
		}
		if what == "revoke start" {
			r.propose(state.IntentRevoke{Intent: b.ID})
		} else if _, ok := r.propose(state.BootstrapAbandon{Intent: b.ID, Secrets: map[string]keyring.Sealed{"pki/ca.key": statetest.Seal("pki/ca.key", []byte(r.next("k")))}}); ok {
			r.cluster++
		}
	case "silence":
		r.now = r.now.Add(time.Minute)
	}
}

// check holds what happened to what must always be so.
func (r *room) check() {
	v, standing := r.store.View(), 0
	for _, id := range r.opened {
		if i, ok := v.Intent(id); ok && i.Status != machine.IntentRevoked {
			standing++
		}
	}
	if standing > 1 {
		r.t.Fatalf("%d bootstrap intents stand", standing)
	}
	for cluster, machines := range r.permitted {
		if len(machines) > 1 {
			r.t.Fatalf("cluster %d: %d machines were permitted to start it: %v", cluster, len(machines), machines)
		}
	}
}

// However approvals, installs, restarts, failures and a person's second
// thoughts come between each other, one machine at most may ever start a
// cluster with the same keys.
func TestNeverTwoClusters(t *testing.T) {
	started, abandoned := 0, 0 // in all runs
	rapid.Check(t, func(t *rapid.T) {
		r := &room{t: t, now: time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC), boots: map[int]int{}, permitted: map[int]map[string]bool{}}
		var err error
		r.store, err = state.Open(state.Config{ID: "r-1", InMemory: true, Keys: statetest.Keys(), Now: func() time.Time { return r.now }, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := r.store.Close(); err != nil {
				t.Error(err)
			}
		}()
		if err := r.store.WaitLeader(context.Background()); err != nil {
			t.Fatal(err)
		}
		site := statetest.Site()
		site.Discovery.Always = true
		r.must(state.SiteApply{Site: site})
		r.must(state.ImagePublish{Images: []machine.Image{{Ref: ImageRef, Digest: "sha256:" + fmt.Sprintf("%064x", 1)}}})
		const machines = 3
		for n := range machines {
			r.netboots(n)
		}
		for range rapid.IntRange(1, 120).Draw(t, "steps") {
			r.act(rapid.IntRange(0, machines-1).Draw(t, "machine"))
			r.check()
		}
		started += len(r.permitted)
		abandoned += r.cluster
	})
	// A test whose machines never get there would hold whatever the rules are.
	if started == 0 || abandoned == 0 {
		t.Errorf("%d clusters were started and %d abandoned: the steps do not lead there", started, abandoned)
	}
}
