package api

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/state"
)

// routes are all that the OpenAPI document names, and what it does not.
func routes(t *testing.T) [][2]string {
	spec, err := Spec()
	if err != nil {
		t.Fatal(err)
	}
	type paths struct {
		Paths map[string]map[string]any `json:"paths"`
	}
	all := [][2]string{{"GET", "/api/openapi.json"}, {"GET", "/api/"}, {"GET", "/api/nothing"}, {"DELETE", "/api/machines"},
		{"PUT", "/api/setup"}, {"GET", "/api/login"}, {"POST", "/api/health"}, {"GET", "/api//health"}}
	for path, methods := range decode[paths](t, string(spec)).Paths {
		for method := range methods {
			all = append(all, [2]string{strings.ToUpper(method), strings.ReplaceAll(path, "{id}", "m-00000001")})
		}
	}
	if len(all) < 20 {
		t.Fatalf("only %d routes were found", len(all))
	}
	return all
}

func TestEveryRouteNeedsAToken(t *testing.T) {
	r := newRig(t)
	r.Waiting(1)
	r.Must(state.UserPut{Name: "bob", PasswordHash: []byte("x"), SetupHash: SetupHash(testCode)})
	r.Must(state.LoginOpen{TokenHash: hashToken("old"), User: "bob", Expires: r.time().Add(time.Minute)})
	r.pass(time.Minute)
	for _, route := range routes(t) {
		method, path := route[0], route[1]
		if public[method+" "+path] {
			continue
		}
		for name, h := range map[string]header{
			"no token":       {},
			"wrong bearer":   bearer("x"),
			"empty bearer":   {"Authorization": "Bearer "},
			"basic":          {"Authorization": "Basic YTpi"},
			"wrong cookie":   {"Cookie": "rackseed=x", HeaderCSRF: "1"},
			"expired cookie": {"Cookie": "rackseed=old", HeaderCSRF: "1"},
			"expired bearer": bearer("old"),
		} {
			a := r.ask(method, path, "", h)
			if a.Request.URL.Path != path { // the mux cleaned the path and the client followed
				path = a.Request.URL.Path
			}
			if a.StatusCode != http.StatusUnauthorized && !public[method+" "+path] {
				t.Errorf("%s %s with %s: status %d, want 401", method, path, name, a.StatusCode)
			}
		}
		if a := r.ask(method, path, "", bearer(siteToken)); a.StatusCode == http.StatusUnauthorized {
			t.Errorf("%s %s with a token of the site file: 401", method, path)
		}
	}
}

func TestSetupWorksOnce(t *testing.T) {
	r := newRig(t)
	if a := decode[Alive](t, r.want(200, "GET", "/api/health", "").body); !a.OK || !a.Setup {
		t.Errorf("health before setup: %+v", a)
	}
	a := r.want(403, "POST", "/api/setup", `{"code":"WRNG-WRNG-WRNG-WRNG","name":"ann","password":"correct horse"}`)
	if !strings.Contains(a.detail(), "screen") {
		t.Errorf("wrong code: %s", a.detail())
	}
	for _, bad := range []string{
		`{"code":"ABCD-EFGH-JKMN-PQRS","name":"ann","password":"short"}`,
		`{"code":"ABCD-EFGH-JKMN-PQRS","name":"Ann Bee","password":"correct horse"}`,
	} {
		r.want(422, "POST", "/api/setup", bad)
	}
	// Typed as people type.
	a = r.want(200, "POST", "/api/setup", `{"code":"abcd efghjkmn-pqrs","name":"ann","password":"correct horse"}`)
	session := decode[Login](t, a.body)
	if session.Name != "ann" || session.Token == "" || a.Header.Get("Set-Cookie") != "" {
		t.Errorf("session %+v, cookie %q", session, a.Header.Get("Set-Cookie"))
	}
	r.want(200, "GET", "/api/machines", "", bearer(session.Token))
	r.pass(time.Hour) // attempts are allowed again
	r.want(409, "POST", "/api/setup", `{"code":"ABCD-EFGH-JKMN-PQRS","name":"eve","password":"correct horse"}`)
	if a := decode[Alive](t, r.want(200, "GET", "/api/health", "").body); a.Setup {
		t.Error("health after setup still offers it")
	}
}

func TestLogin(t *testing.T) {
	r := newRig(t)
	r.want(200, "POST", "/api/setup", `{"code":"ABCD-EFGH-JKMN-PQRS","name":"ann","password":"correct horse"}`)
	wrong := r.want(401, "POST", "/api/login", `{"name":"ann","password":"wrong horse"}`)
	unknown := r.want(401, "POST", "/api/login", `{"name":"eve","password":"correct horse"}`)
	if wrong.body != unknown.body {
		t.Errorf("a wrong password and an unknown name are answered differently:\n%s\n%s", wrong.body, unknown.body)
	}
	r.want(401, "POST", "/api/login", `{"name":"ann","password":"`+strings.Repeat("x", 100)+`"}`)

	a := r.want(200, "POST", "/api/login", `{"name":"ann","password":"correct horse","cookie":true}`)
	if strings.Contains(a.body, "token") {
		t.Errorf("a browser was told its token: %s", a.body)
	}
	set := a.Header.Get("Set-Cookie")
	for _, want := range []string{"rackseed=rs_", "HttpOnly", "Secure", "SameSite=Strict", "Path=/"} {
		if !strings.Contains(set, want) {
			t.Errorf("cookie %q lacks %s", set, want)
		}
	}
	cookie := header{"Cookie": strings.Split(set, ";")[0]}
	if s := decode[Login](t, r.want(200, "GET", "/api/session", "", cookie).body); s.Name != "ann" {
		t.Errorf("session %+v", s)
	}
	a = r.want(204, "POST", "/api/logout", "", cookie, header{HeaderCSRF: "1"})
	if !strings.Contains(a.Header.Get("Set-Cookie"), "Max-Age=0") {
		t.Errorf("logout leaves the cookie: %q", a.Header.Get("Set-Cookie"))
	}
	r.want(401, "GET", "/api/session", "", cookie)
	r.want(409, "POST", "/api/logout", "", bearer(siteToken))
}

func TestGuessingIsSlowedDown(t *testing.T) {
	r := newRig(t)
	for range attemptBurst {
		r.want(401, "POST", "/api/login", `{"name":"ann","password":"a guess"}`)
	}
	a := r.want(429, "POST", "/api/login", `{"name":"ann","password":"a guess"}`)
	if a.Header.Get("Retry-After") == "" || !strings.Contains(a.detail(), "try again in") {
		t.Errorf("429 without when to try again: %v %s", a.Header, a.body)
	}
	r.want(429, "POST", "/api/setup", `{"code":"ABCD-EFGH-JKMN-PQRS","name":"ann","password":"correct horse"}`)
	r.pass(attemptInterval)
	r.want(401, "POST", "/api/login", `{"name":"ann","password":"a guess"}`)
	r.want(429, "POST", "/api/login", `{"name":"ann","password":"a guess"}`)
}

// Who was not let in is told, once in a while, and never by what was typed where
// a name belongs.
func TestRefusedLoginsAreTold(t *testing.T) {
	r := newRig(t)
	r.want(200, "POST", "/api/setup", `{"code":"ABCD-EFGH-JKMN-PQRS","name":"ann","password":"correct horse"}`)
	told := func() (texts []string) {
		for _, e := range r.View().Events(0, "", 0) {
			if e.Kind == "login.refused" {
				texts = append(texts, e.Text)
			}
		}
		return texts
	}
	r.want(401, "POST", "/api/login", `{"name":"my-secret","password":"ann"}`)
	r.want(401, "POST", "/api/login", `{"name":"ann","password":"wrong horse"}`)
	if got := told(); len(got) != 1 || !strings.Contains(got[0], "name or password is wrong") || strings.Contains(got[0], "my-secret") {
		t.Errorf("told: %q", got)
	}
	for range attemptBurst {
		r.ask("POST", "/api/login", `{"name":"ann","password":"a guess"}`)
	}
	if got := told(); len(got) != 2 || !strings.Contains(got[1], "more attempts") {
		t.Errorf("told: %q", got)
	}
	r.pass(time.Hour)
	r.want(401, "POST", "/api/login", `{"name":"ann","password":"wrong horse"}`)
	if got := told(); len(got) != 3 || !strings.Contains(got[2], "(user ann)") {
		t.Errorf("told: %q", got)
	}
}

func TestLimiter(t *testing.T) {
	l := newLimiter()
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	eve := netip.MustParseAddr("192.0.2.66")
	for i := range attemptBurst {
		if _, ok := l.allow(eve, now); !ok {
			t.Fatalf("attempt %d is refused", i+1)
		}
	}
	if wait, ok := l.allow(eve, now); ok || wait != attemptInterval {
		t.Errorf("after the burst: %v, %v", wait, ok)
	}
	if _, ok := l.allow(netip.MustParseAddr("192.0.2.1"), now); !ok {
		t.Error("one source's guesses lock out another")
	}
	if _, ok := l.allow(netip.MustParseAddr("::ffff:192.0.2.66"), now); ok {
		t.Error("the same source in another notation gets a new allowance")
	}
	for i := range attemptBurst + 1 {
		a := netip.MustParseAddr("2001:db8::").As16()
		a[15] = byte(i)
		if _, ok := l.allow(netip.AddrFrom16(a), now); ok != (i < attemptBurst) {
			t.Errorf("attempt %d from one /64: %v", i+1, ok)
		}
	}
	for i := range 2 * attemptSources {
		l.allow(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), now.Add(time.Duration(i)*time.Microsecond))
	}
	if len(l.sources) > attemptSources {
		t.Errorf("%d sources are kept, %d is the limit", len(l.sources), attemptSources)
	}
}

func TestChangesFromOtherSites(t *testing.T) {
	r := newRig(t)
	id := string(r.Waiting(1))
	a := r.want(200, "POST", "/api/setup", `{"code":"ABCD-EFGH-JKMN-PQRS","name":"ann","password":"correct horse","cookie":true}`)
	cookie := header{"Cookie": strings.Split(a.Header.Get("Set-Cookie"), ";")[0]}
	forget := "/api/machines/" + id + "/forget"

	a = r.want(403, "POST", forget, "", cookie)
	if !strings.Contains(a.detail(), HeaderCSRF) {
		t.Errorf("refused because of %q", a.detail())
	}
	csrf := header{HeaderCSRF: "1"}
	r.want(403, "POST", forget, "", cookie, csrf, header{"Origin": "https://evil.example"})
	r.want(403, "POST", forget, "", cookie, csrf, header{"Sec-Fetch-Site": "cross-site"})
	r.want(200, "GET", "/api/machines/"+id, "", cookie)
	r.want(204, "POST", forget, "", cookie, csrf, header{"Origin": r.http.URL})
	r.want(404, "GET", "/api/machines/"+id, "", cookie)

	// A bearer token is not sent by a browser unasked.
	r.Waiting(2)
	r.want(204, "POST", "/api/machines/m-00000002/forget", "", bearer(siteToken))
}
