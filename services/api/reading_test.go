package api

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/statetest"
)

func TestLoginWhileNobodyLeads(t *testing.T) {
	var store *statetest.Leaderless
	r := newRig(t, func(c *Config) {
		store = &statetest.Leaderless{State: c.Members.(*statetest.State)}
		c.Store, c.Members = store, store
	})
	nobody := &store.Nobody
	r.want(200, "POST", "/api/setup", `{"code":"`+testCode+`","name":"bob","password":"correct horse"}`)

	nobody.Store(true)
	r.want(401, "POST", "/api/login", `{"name":"bob","password":"wrong horse"}`)
	login := decode[Login](t, r.want(200, "POST", "/api/login", `{"name":"bob","password":"correct horse"}`).body)
	if !login.Reads || login.Token == "" || !login.Expires.Equal(r.time().Add(readingLifetime).UTC().Truncate(time.Second)) {
		t.Fatalf("logged in as %+v", login)
	}
	auth := bearer(login.Token)
	r.want(200, "GET", "/api/status", "", auth)
	if who := decode[Login](t, r.want(200, "GET", "/api/session", "", auth).body); !who.Reads || who.Name != "bob" {
		t.Errorf("the session is %+v", who)
	}
	if a := r.want(503, "POST", "/api/handoff/abort", "", auth); !strings.Contains(a.detail(), "only reads") {
		t.Errorf("a change: %s", a.detail())
	}
	for _, path := range []string{"/api/kubeconfig", "/api/backup"} {
		r.want(503, "GET", path, "", auth)
	}
	// A leader came up while its request was under way.
	reads := context.WithValue(t.Context(), personKey{}, person{name: "bob", reads: true})
	if _, err := r.server.propose(reads, state.Note{What: "x", Severity: machine.Info, Text: "x"}); err == nil {
		t.Error("it wrote to the log")
	}
	if _, ok := r.server.TokenOwner(login.Token); ok {
		t.Error("the registry takes it")
	}
	ended := decode[Login](t, r.want(200, "POST", "/api/login", `{"name":"bob","password":"correct horse"}`).body)
	r.want(204, "POST", "/api/logout", "", bearer(ended.Token))
	r.want(401, "GET", "/api/status", "", bearer(ended.Token))

	r.pass(readingLifetime - time.Minute)
	r.want(200, "GET", "/api/status", "", auth)
	r.pass(time.Minute)
	r.want(401, "GET", "/api/status", "", auth)

	// It is over once one leads, also for the next time that nobody does.
	login = decode[Login](t, r.want(200, "POST", "/api/login", `{"name":"bob","password":"correct horse"}`).body)
	nobody.Store(false)
	r.want(401, "GET", "/api/status", "", bearer(login.Token))
	r.Must(state.EpochBegin{Leader: "r-2"})
	nobody.Store(true)
	r.want(401, "GET", "/api/status", "", bearer(login.Token))
}

func TestReadingsAreBounded(t *testing.T) {
	var r readings
	now := time.Now()
	for i := range mostReadings + 2 {
		p := person{hash: []byte{byte(i)}, expires: now.Add(readingLifetime + time.Duration(i)*time.Second)}
		r.add(p, now)
	}
	if len(r.open) != mostReadings {
		t.Errorf("%d are kept", len(r.open))
	}
	if _, ok := r.find([]byte{0}, 0, now); ok {
		t.Error("the oldest is kept")
	}
	if _, ok := r.find([]byte{mostReadings + 1}, 0, now); !ok {
		t.Error("the newest is not")
	}
}
