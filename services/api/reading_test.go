package api

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/state"
)

// leaderless is a state in which, while nobody leads, nothing is committed.
type leaderless struct {
	Store
	Members
	nobody *atomic.Bool
}

func (l leaderless) Membership() state.Membership {
	m := l.Members.Membership()
	if l.nobody.Load() {
		m.Leader = ""
	}
	return m
}

func (l leaderless) Propose(ctx context.Context, by string, c state.Command) (state.Result, error) {
	if l.nobody.Load() {
		return state.Result{}, context.DeadlineExceeded
	}
	return l.Store.Propose(ctx, by, c)
}

func TestLoginWhileNobodyLeads(t *testing.T) {
	var nobody atomic.Bool
	r := newRig(t, func(c *Config) {
		l := leaderless{c.Store, c.Members, &nobody}
		c.Store, c.Members = l, l
	})
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
	if _, ok := r.server.TokenOwner(login.Token); ok {
		t.Error("the registry takes it")
	}
	ended := decode[Login](t, r.want(200, "POST", "/api/login", `{"name":"bob","password":"correct horse"}`).body)
	r.want(204, "POST", "/api/logout", "", bearer(ended.Token))
	r.want(401, "GET", "/api/status", "", bearer(ended.Token))

	nobody.Store(false)
	r.want(401, "GET", "/api/status", "", auth)
	nobody.Store(true)
	r.pass(readingLifetime)
	r.want(401, "GET", "/api/status", "", auth)
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
	if _, ok := r.find([]byte{0}, now); ok {
		t.Error("the oldest is kept")
	}
	if _, ok := r.find([]byte{mostReadings + 1}, now); !ok {
		t.Error("the newest is not")
	}
}
