package join

import (
	"context"
	"errors"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rackseed/rackseed/kube/pki"
	"github.com/rackseed/rackseed/services/machine"
)

// plain is a View over plain values.
type plain struct {
	site      machine.Site
	secrets   map[string][]byte
	machines  []machine.Machine
	profiles  map[machine.ID]machine.Profile
	bootstrap *machine.Intent
	joins     map[machine.ID]*machine.Intent
}

func (p plain) Site() (machine.Site, bool)        { return p.site, true }
func (p plain) Secret(name string) ([]byte, bool) { b, ok := p.secrets[name]; return b, ok }
func (p plain) Machines() []machine.Machine       { return p.machines }
func (p plain) Bootstrap() *machine.Intent        { return p.bootstrap }
func (p plain) Profile(id machine.ID) (machine.Profile, bool) {
	profile, ok := p.profiles[id]
	return profile, ok
}
func (p plain) JoinIntent(id machine.ID) *machine.Intent { return p.joins[id] }

// rack is a cluster that m-1 started, which m-2 joined and m-3 (a worker) and
// m-4 are joining.
func rack() plain {
	control, worker := machine.Profile{Role: machine.RoleControlPlane}, machine.Profile{Role: machine.RoleWorker}
	worker.Labels = map[string]string{"disk": "nvme", "node-role.kubernetes.io/worker": ""}
	p := plain{
		profiles:  map[machine.ID]machine.Profile{"m-1": control, "m-2": control, "m-3": worker, "m-4": control},
		bootstrap: &machine.Intent{ID: "b-1", Machine: "m-1", Status: machine.IntentDone},
		joins: map[machine.ID]*machine.Intent{
			"m-2": {ID: "j-2", Epoch: 1, Status: machine.IntentDone}, "m-3": {ID: "j-3", Epoch: 1, Status: machine.IntentClaimed},
			"m-4": {ID: "j-4", Epoch: 1, Status: machine.IntentClaimed},
		},
	}
	for i, id := range []machine.ID{"m-1", "m-2", "m-3", "m-4"} {
		p.machines = append(p.machines, machine.Machine{ID: id, Name: "node-" + string(id[2:]), Address: netip.AddrFrom4([4]byte{10, 77, 0, byte(11 + i)})})
	}
	return p
}

func TestServers(t *testing.T) {
	v := rack()
	if got, want := Servers(v), []string{"10.77.0.11:6443", "10.77.0.12:6443"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q: one that joins answers before its etcd does", got, want)
	}
	v.bootstrap.Status = machine.IntentClaimed
	v.joins = nil
	if got := Servers(v); len(got) != 0 {
		t.Errorf("of a cluster that is being started: %q", got)
	}
}

func TestDue(t *testing.T) {
	v := rack()
	names := func(list []chore) (out []string) {
		for _, c := range list {
			text := string(c.machine)
			if c.join != nil {
				text += " token"
			}
			if c.gone {
				text += " gone"
			}
			if len(c.labels) > 0 {
				text += " labels"
			}
			out = append(out, text)
		}
		return out
	}
	settled := map[machine.ID]string{}
	for _, step := range []struct {
		name   string
		change func()
		want   []string
	}{
		{"at first", func() {}, []string{"m-2 token"}},
		{"settled", func() { settled["m-2"] = due(v, settled)[0].key }, nil},
		{"a worker has joined", func() { v.joins["m-3"].Status = machine.IntentDone }, []string{"m-3 token labels"}},
		{"one failed", func() { v.joins["m-4"].Status = machine.IntentFailed }, []string{"m-3 token labels", "m-4 token"}},
		{"and tries again", func() { v.joins["m-4"].Status, v.joins["m-4"].Epoch = machine.IntentClaimed, 2 }, []string{"m-3 token labels"}},
		{"all settled", func() {
			for _, c := range due(v, settled) {
				settled[c.machine] = c.key
			}
		}, nil},
		{"the same one joins again", func() { v.joins["m-3"].Epoch, v.joins["m-3"].Status = 2, machine.IntentDone }, []string{"m-3 token labels"}},
		{"one that joins is forgotten", func() {
			v.machines = slices.DeleteFunc(v.machines, func(m machine.Machine) bool { return m.ID == "m-4" })
		}, []string{"m-3 token labels", "m-4 gone"}},
		{"and its tokens are taken back", func() { delete(settled, "m-4") }, []string{"m-3 token labels"}},
		{"the first has labels", func() { v.profiles["m-1"] = v.profiles["m-3"] }, []string{"m-1 labels", "m-3 token labels"}},
	} {
		step.change()
		note(v, settled)
		if got := names(due(v, settled)); !slices.Equal(got, step.want) {
			t.Errorf("%s: %q, want %q", step.name, got, step.want)
		}
	}
	if c := due(v, settled)[1]; !reflect.DeepEqual(c.labels, map[string]string{"node-role.kubernetes.io/worker": ""}) {
		t.Errorf("labels %v", c.labels)
	}
}

func TestOver(t *testing.T) {
	done := chore{machine: "m-1", join: &machine.Intent{ID: "j-1", Epoch: 2}}
	for name, test := range map[string]struct {
		chore chore
		token tokenOf
		want  bool
	}{
		"its own":           {done, tokenOf{"m-1", "j-1", 2}, true},
		"an earlier":        {done, tokenOf{"m-1", "j-1", 1}, true},
		"a later":           {done, tokenOf{"m-1", "j-1", 3}, false},
		"of an old intent":  {done, tokenOf{"m-1", "j-0", 9}, true},
		"another machine's": {done, tokenOf{"m-2", "j-1", 1}, false},
		"labels alone":      {chore{machine: "m-1"}, tokenOf{"m-1", "j-1", 1}, false},
		"forgotten":         {chore{machine: "m-1", gone: true}, tokenOf{"m-1", "j-1", 1}, true},
		"another forgotten": {chore{machine: "m-2", gone: true}, tokenOf{"m-1", "j-1", 1}, false},
	} {
		if got := test.chore.over(test.token); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	i := machine.Intent{ID: "j-1", Epoch: 2}
	for token, want := range map[tokenOf]bool{{"m-1", "j-1", 1}: true, {"m-1", "j-1", 2}: false, {"m-1", "j-1", 3}: false, {"m-1", "j-0", 3}: true} {
		if token.before(i) != want {
			t.Errorf("%+v before %+v: %v", token, i, !want)
		}
	}
}

// TestFollow: what the cluster does not take is tried again, and health says so.
func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := rack()
		v.joins["m-3"].Status = machine.IntentDone
		changed := make(chan struct{})
		begun := time.Now()
		var told, tried []string
		answers := []struct {
			unsettled map[machine.ID]error
			err       error
		}{
			{nil, errors.New("connection refused")},
			{map[machine.ID]error{"m-3": errors.New("no node-3 yet")}, nil},
			{nil, nil},
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- follow(ctx, func() (View, <-chan struct{}) { return v, changed },
				func(_ context.Context, _ View, list []chore) (map[machine.ID]error, error) {
					text := time.Since(begun).String()
					for _, c := range list {
						text += " " + string(c.machine)
					}
					tried = append(tried, text)
					a := answers[0]
					answers = answers[1:]
					return a.unsettled, a.err
				},
				func(ok bool, text string) {
					if !ok {
						told = append(told, text)
					}
				})
		}()
		time.Sleep(time.Hour)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if want := []string{"0s m-2 m-3", "2s m-2 m-3", "6s m-3"}; !slices.Equal(tried, want) {
			t.Errorf("tried %q, want %q", tried, want)
		}
		if len(told) != 2 || !strings.Contains(told[0], "connection refused") || !strings.Contains(told[1], "no node-3 yet") {
			t.Errorf("told %q", told)
		}
	})
}

func TestSecretRefuses(t *testing.T) {
	c := New(time.Now)
	v := rack()
	if _, err := c.secret(t.Context(), v, v.machines[2], *v.joins["m-3"]); !errors.Is(err, errNoAuthority) {
		t.Errorf("without an authority: %v", err)
	}
	var err error
	if v.secrets, err = pki.New(time.Now()); err != nil {
		t.Fatal(err)
	}
	v.bootstrap.Status, v.joins["m-2"].Status = machine.IntentClaimed, machine.IntentFailed
	if _, err := c.secret(t.Context(), v, v.machines[2], *v.joins["m-3"]); err == nil || !strings.Contains(err.Error(), "no API server yet") {
		t.Errorf("without an API server: %v", err)
	}
}

func TestToken(t *testing.T) {
	// https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/#token-format
	form := regexp.MustCompile(`^[a-z0-9]{6}\.[a-z0-9]{16}$`)
	seen := map[string]bool{}
	for range 100 {
		s := newToken().String()
		if !form.MatchString(s) || seen[s] {
			t.Fatalf("token %q", s)
		}
		seen[s] = true
	}
	count := map[byte]int{}
	for _, c := range []byte(random(36_000)) {
		count[c]++
	}
	for c, n := range count {
		if n < 700 || n > 1300 {
			t.Errorf("%c was drawn %d times of 36,000", c, n)
		}
	}
	if len(count) != 36 {
		t.Errorf("%d characters", len(count))
	}
}
