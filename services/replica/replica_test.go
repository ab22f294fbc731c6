package replica

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/api"
)

const goodSite = `version: 1
name: lab
serviceAddress: 192.0.2.1
links:
  - interface: eth0
    address: 192.0.2.2/24
    dhcp:
      from: 192.0.2.100
      to: 192.0.2.200
`

// running is a replica that runs in Dev.
type running struct {
	t                      *testing.T
	ctx                    context.Context
	url, fingerprint, code string
	local                  string
	stop                   func() error
}

// start starts a replica on loopback and reads how to come in. used: its setup
// code was used before.
func start(t *testing.T, dir string, used bool) *running {
	t.Helper()
	return startWith(t, dir, used, func(*Config) {})
}

func startWith(t *testing.T, dir string, used bool, change func(*Config)) *running {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	out, in := io.Pipe()
	r := &running{t: t, ctx: ctx, local: filepath.Join(dir, "run", "local.sock")}
	done := make(chan error, 1)
	go func() {
		c := Config{
			Data: filepath.Join(dir, "data"), Site: filepath.Join(dir, "site.yaml"), Local: r.local,
			Dev: true, HTTP: "127.0.0.1:0", HTTPS: "127.0.0.1:0", Out: in, Logger: slog.New(slog.DiscardHandler),
		}
		change(&c)
		err := Run(ctx, c)
		in.CloseWithError(errors.Join(io.EOF, err))
		done <- err
	}()
	r.stop = func() error { cancel(); return <-done }
	lines := bufio.NewScanner(out)
	line := func(name string) string {
		t.Helper()
		if !lines.Scan() {
			t.Fatalf("the replica ended: %v", lines.Err())
		}
		value, ok := strings.CutPrefix(lines.Text(), name+":")
		if !ok {
			t.Fatalf("%q was told, not the %s", lines.Text(), name)
		}
		return strings.TrimSpace(value)
	}
	r.url, r.fingerprint = line("Console"), line("Fingerprint")
	if !used {
		r.code = line("Setup code")
	}
	return r
}

// client trusts the one certificate that was told.
func (r *running) client() *http.Client {
	return &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			if got := fingerprint(s.PeerCertificates[0].Raw); got != r.fingerprint {
				return fmt.Errorf("fingerprint %s, not %s", got, r.fingerprint)
			}
			return nil
		},
	}}}
}

func (r *running) ask(method, path, token string, in, out any) int {
	r.t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		r.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(r.ctx, method, r.url+path, bytes.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := r.client().Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	if out != nil && resp.StatusCode == http.StatusOK {
		if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
			r.t.Fatal(err)
		}
	}
	return resp.StatusCode
}

// screen asks as the appliance's screen does.
func (r *running) screen() Status {
	r.t.Helper()
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", r.local)
		},
	}}
	resp, err := client.Get("http://local/status")
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	var s Status
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
		r.t.Fatal(err)
	}
	return s
}

// until waits for a state of the screen.
func (r *running) until(what string, is func(Status) bool) Status {
	r.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		s := r.screen()
		if is(s) {
			return s
		}
		select {
		case <-tick.C:
		case <-r.ctx.Done():
			r.t.Fatalf("%s: never; the last status is %+v", what, s)
		}
	}
}

func health(s Status, name string) api.Health {
	for _, h := range s.Health {
		if h.Name == name {
			return h
		}
	}
	return api.Health{}
}

func TestReplica(t *testing.T) {
	dir := t.TempDir()
	siteFile := filepath.Join(dir, "site.yaml")
	if err := os.WriteFile(siteFile, []byte(strings.Replace(goodSite, "192.0.2.100", "192.0.2.300", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	r := start(t, dir, false)
	s := r.until("the problem is shown", func(s Status) bool { return len(s.SiteProblems) > 0 && health(s, "netboot").OK })
	if !strings.HasPrefix(s.SiteProblems[0], "site.yaml:8:13: links[0].dhcp.from") || health(s, "site file").OK {
		t.Errorf("a bad site file: %+v", s)
	}
	if s.SetupCode != r.code || s.Fingerprint != r.fingerprint || len(s.ConsoleURLs) != 1 || s.ConsoleURLs[0] != r.url {
		t.Errorf("the screen says %+v, standard output %+v", s, r)
	}
	info, err := os.Stat(filepath.Join(dir, "data", "setup-code"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("setup-code: %v, %v", info, err)
	}

	// The console works all the same, and shows it.
	var login api.Login
	if status := r.ask("POST", "/api/setup", "", api.SetupRequest{Code: r.code, Name: "ann", Password: "correct horse"}, &login); status != 200 {
		t.Fatalf("setup: status %d", status)
	}
	var people api.Status
	if r.ask("GET", "/api/status", login.Token, nil, &people); len(people.SiteProblems) != 1 {
		t.Errorf("the console says %+v", people)
	}

	// Corrected, it is applied without a restart.
	if err := os.WriteFile(siteFile, []byte(goodSite), 0o600); err != nil {
		t.Fatal(err)
	}
	s = r.until("the site is applied", func(s Status) bool { return s.Site == "lab" && health(s, "site file").OK })
	if len(s.SiteProblems) != 0 || s.SetupCode != "" || s.Service != "192.0.2.1" {
		t.Errorf("after the correction: %+v", s)
	}
	address := strings.TrimPrefix(health(s, "netboot").Text, "served on ")
	resp, err := http.Get("http://" + address + "/v1/time")
	if err != nil || resp.StatusCode != 200 {
		t.Errorf("the machines' server: %v, %v", resp, err)
	} else {
		resp.Body.Close()
	}
	if err := r.stop(); err != nil {
		t.Fatalf("stopped: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "data", "setup-code")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the used setup code is still there: %v", err)
	}

	// All of it is there after a restart, though the site file is gone: the one
	// that was kept is in force.
	if err := os.Remove(siteFile); err != nil {
		t.Fatal(err)
	}
	again := start(t, dir, true)
	if again.fingerprint != r.fingerprint {
		t.Errorf("the certificate changed: %s, %s", r.fingerprint, again.fingerprint)
	}
	var applied api.AppliedSite
	if status := again.ask("GET", "/api/site", login.Token, nil, &applied); status != 200 || applied.Site.Name != "lab" {
		t.Errorf("after the restart: status %d, %+v", status, applied)
	}
	s = again.until("the kept site file is in force", func(s Status) bool { return health(s, "site file").OK })
	if len(s.SiteProblems) != 0 || len(s.Warnings) != 0 {
		t.Errorf("a missing site file: %+v", s)
	}
	if err := again.stop(); err != nil {
		t.Fatalf("stopped: %v", err)
	}

	// A site file that was changed meanwhile is in force before any machine is
	// answered: by the old one it might be sent to its disk.
	if err := os.WriteFile(siteFile, []byte(strings.Replace(goodSite, "name: lab", "name: other", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	changed := start(t, dir, true)
	if s = changed.until("machines are served", func(s Status) bool { return health(s, "netboot").OK }); s.Site != "other" {
		t.Errorf("machines were answered by site %q", s.Site)
	}
	if err := changed.stop(); err != nil {
		t.Fatalf("stopped: %v", err)
	}
}

func TestRunNeedsAFolder(t *testing.T) {
	if err := Run(t.Context(), Config{}); err == nil || !strings.Contains(err.Error(), "--data") {
		t.Errorf("without a folder: %v", err)
	}
}
