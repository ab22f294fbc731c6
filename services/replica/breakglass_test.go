package replica

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/api"
)

// When nobody can log in any more, root gets a new code, which works once; an older
// one does not any more.
func TestBreakGlass(t *testing.T) {
	r := start(t, t.TempDir(), false)
	glass := func() (b BreakGlass) {
		t.Helper()
		client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", r.local)
		}}}
		a, err := client.Post("http://local/break-glass", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Body.Close()
		if err := json.NewDecoder(a.Body).Decode(&b); err != nil || a.StatusCode != http.StatusOK || b.Code == "" || b.Fingerprint != r.fingerprint {
			t.Fatalf("status %d: %+v, %v", a.StatusCode, b, err)
		}
		return b
	}
	setup := func(code, name string) (status int, login api.Login) {
		t.Helper()
		status = r.ask("POST", "/api/setup", "", api.SetupRequest{Code: code, Name: name, Password: "correct horse"}, &login)
		return status, login
	}
	first := glass()
	if s := r.screen(); s.SetupCode != "" || len(s.Warnings) == 0 || s.Warnings[len(s.Warnings)-1].Kind != api.WarnCode {
		t.Errorf("the screen shows %q, %+v", s.SetupCode, s.Warnings)
	}
	if status, _ := setup(r.code, "eve"); status == http.StatusOK {
		t.Error("the code before it still works")
	}
	if status, _ := setup(first.Code, "ann"); status != http.StatusOK {
		t.Errorf("the new code: status %d", status)
	}
	second := glass()
	if status, _ := setup(first.Code, "eve"); status == http.StatusOK {
		t.Error("a code works twice")
	}
	status, login := setup(second.Code, "bob")
	var events api.EventList
	if status != http.StatusOK || r.ask("GET", "/api/events", login.Token, nil, &events) != http.StatusOK {
		t.Fatalf("the second new code: status %d", status)
	}
	renewed := 0
	for _, e := range events.Items {
		if e.Kind == "setup.renewed" {
			renewed++
		}
	}
	if renewed != 2 {
		t.Errorf("%d events of it: %+v", renewed, events.Items)
	}
	if err := r.stop(); err != nil {
		t.Error(err)
	}
}
