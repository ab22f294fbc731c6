package cli

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/rackseed/rackseed/console/client"
	"github.com/rackseed/rackseed/services/api"
	"github.com/rackseed/rackseed/services/blob"
	"github.com/rackseed/rackseed/services/handoff"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/registry"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/statetest"
	"github.com/rackseed/rackseed/services/wire"
)

const code = "ABCD-EFGH-JKMN-PQRS"

// rig is a boot service's API over its real state, and a home for logins.
type rig struct {
	*statetest.State
	t           *testing.T
	url         string
	fingerprint string
	health      []api.Health                   // what status says, besides
	moving      atomic.Pointer[handoff.Status] // what the leader sees of a handoff; nil: it did not look
	silent      atomic.Bool                    // it does not answer
}

func newRig(t *testing.T) *rig { return newRigWith(t, func(*api.Config) {}) }

// newLeaderlessRig is a rig in which, while nobody is set, no replica leads.
func newLeaderlessRig(t *testing.T) (r *rig, nobody *atomic.Bool) {
	r = newRigWith(t, func(c *api.Config) {
		store := &statetest.Leaderless{State: c.Members.(*statetest.State)}
		c.Store, c.Members, nobody = store, store, &store.Nobody
	})
	return r, nobody
}

// newRigWith is newRig with something of the API's otherwise.
func newRigWith(t *testing.T, change func(*api.Config)) *rig {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	for _, name := range []string{"RACKSEED_SERVER", "RACKSEED_FINGERPRINT", "RACKSEED_TOKEN"} {
		t.Setenv(name, "")
	}
	r := &rig{State: statetest.Open(t), t: t}
	config := api.Config{
		Store: r.Store, Members: r.State, Output: output{}, Logger: slog.New(slog.DiscardHandler), Now: time.Now,
		Status: func() api.Status {
			return api.Status{Site: "lab", Service: "192.0.2.1", Leads: "appliance", Health: append([]api.Health{{Name: "dhcp", OK: true, Text: "serves eth0"}}, r.health...)}
		},
		HandoffStatus: func() (s handoff.Status) {
			if now := r.moving.Load(); now != nil {
				s = *now
			}
			return s
		},
		Kubeconfig: func(_ state.View, who, server string) ([]byte, error) {
			return []byte("apiVersion: v1\nkind: Config # " + who + " " + server + "\n"), nil
		},
		NewPKI: func(time.Time) (map[string][]byte, error) { return map[string][]byte{"pki/ca.key": []byte("new")}, nil },
		Files:  func(string) ([]wire.File, error) { return []wire.File{{Name: "root.erofs", Size: 200 << 20}}, nil },
	}
	change(&config)
	server, err := api.New(config)
	if err != nil {
		t.Fatal(err)
	}
	blobs, err := blob.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/", server.Handler())
	mux.Handle(registry.Path, registry.New(registry.Config{
		Store: r.Store, Blobs: blobs, TokenOwner: server.TokenOwner, CheckPassword: server.CheckPassword,
		Limits: registry.Limits{KeepFree: 1}, Logger: slog.New(slog.DiscardHandler), Now: time.Now,
	}))
	h := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if r.silent.Load() {
			panic(http.ErrAbortHandler)
		}
		mux.ServeHTTP(w, req)
	}))
	h.Config.ErrorLog = log.New(io.Discard, "", 0) // of those who do not take its certificate
	h.StartTLS()
	t.Cleanup(h.Close)
	sum := sha256.Sum256(h.Certificate().Raw)
	r.url, r.fingerprint = h.URL, client.Colons(sum[:])
	site := statetest.Site()
	site.SSHKeys = []string{"ssh-ed25519 AAAA ann"}
	r.Begin(api.SetupHash(code), site)
	r.Image()
	return r
}

type output struct{}

func (output) Read(_ context.Context, c machine.Chunk) ([]string, error) {
	return []string{fmt.Sprintf("line %d of %s", c.First, c.Stream), "an escape \x1b[2J"}, nil
}

// run runs the command line; stdin is what a person types.
func (r *rig) run(ctx context.Context, stdin string, out io.Writer, args ...string) error {
	return execute(ctx, strings.NewReader(stdin), out, io.Discard, args...)
}

func execute(ctx context.Context, in io.Reader, out, errors io.Writer, args ...string) error {
	root := &cobra.Command{Use: "rackseed", SilenceErrors: true}
	Add(root, nil)
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errors)
	return root.ExecuteContext(ctx)
}

func (r *rig) must(stdin string, args ...string) string {
	r.t.Helper()
	var out bytes.Buffer
	if err := r.run(r.t.Context(), stdin, &out, args...); err != nil {
		r.t.Fatalf("rackseed %s: %v", strings.Join(args, " "), err)
	}
	return out.String()
}

func (r *rig) fails(want string, stdin string, args ...string) {
	r.t.Helper()
	var out bytes.Buffer
	err := r.run(r.t.Context(), stdin, &out, args...)
	if err == nil || !strings.Contains(err.Error(), want) {
		r.t.Errorf("rackseed %s: error %v, want %q in it", strings.Join(args, " "), err, want)
	}
}

// exits runs a command that fails, and returns what the program would end with.
func (r *rig) exits(args ...string) int {
	r.t.Helper()
	err := r.run(r.t.Context(), "", io.Discard, args...)
	if err == nil {
		r.t.Errorf("rackseed %s: done", strings.Join(args, " "))
	}
	return ExitCode(err)
}

func (r *rig) setup() {
	r.t.Helper()
	r.must("correct horse\n", "setup", "--server", r.url, "--fingerprint", r.fingerprint, "--code", code, "--name", "ann")
}

func TestSessions(t *testing.T) {
	r := newRig(t)
	r.fails("rackseed setup", "", "machines")
	// A password on a pipe is not taken for the server.
	for _, command := range [][]string{{"login", "--name", "ann"}, {"setup", "--name", "ann", "--code", code}} {
		err := r.run(t.Context(), "correct horse\n", io.Discard, command...)
		if err == nil || !strings.HasPrefix(err.Error(), "--server is needed") || ExitCode(err) != ExitUsage {
			t.Errorf("%v without a server: %v", command, err)
		}
	}
	r.fails("--fingerprint is needed", "", "setup", "--server", r.url, "--code", code, "--name", "ann")
	for _, flags := range [][]string{{"--server", r.url}, {"--server", r.url, "--fingerprint", "AB:CD"}, {"--server", "http://192.0.2.1", "--fingerprint", r.fingerprint}} {
		if got := r.exits(append([]string{"login", "--name", "ann"}, flags...)...); got != ExitUsage {
			t.Errorf("login %v ends with %d", flags, got)
		}
		if got := r.exits(append([]string{"status", "--token", "x"}, flags...)...); got != ExitUsage {
			t.Errorf("status %v ends with %d", flags, got)
		}
	}
	r.fails("expected 64 hex digits", "", "setup", "--server", r.url, "--fingerprint", "AB:CD", "--code", code, "--name", "ann")
	r.fails("Compare with the appliance's screen", "correct horse\n", "setup", "--server", r.url,
		"--fingerprint", strings.Repeat("00", 32), "--code", code, "--name", "ann")
	r.fails("the setup code is wrong: it is on the appliance's screen, or was told by rackseed break-glass", "correct horse\n", "setup", "--server", r.url, "--fingerprint", r.fingerprint, "--code", "WRNG", "--name", "ann")
	r.setup()
	file, err := credentialsFile()
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%s: %v, %v", file, info.Mode(), err)
	}
	if out := r.must("", "machines"); !strings.Contains(out, "No machine was seen yet") {
		t.Errorf("machines: %s", out)
	}
	if got := r.exits("logout", "--server", "https://192.0.2.99"); got != ExitUsage {
		t.Errorf("logged out of another one than is kept: ends with %d", got)
	}
	r.prints("Logged out of "+r.url+". It stays known for the next rackseed login.\n", "logout")
	r.fails("rackseed login", "", "machines")
	r.fails("password is wrong", "wrong horse\n", "login", "--server", r.url, "--fingerprint", r.fingerprint, "--name", "ann")
	// Whom to ask, and how to know them, outlives a logout.
	r.must("ann\ncorrect horse\n", "login")
	r.must("", "status")
	login, err := load()
	if err != nil {
		t.Fatal(err)
	}
	r.must("", "logout")
	if c, err := load(); err != nil || c != (credentials{Server: login.Server, Fingerprint: login.Fingerprint}) {
		t.Errorf("after a logout %+v is kept, %v", c, err)
	}
	if got := r.exits("logout"); got != ExitNoLogin {
		t.Errorf("a second logout ends with %d", got)
	}
	t.Setenv("RACKSEED_TOKEN", login.Token)
	r.fails("the token in RACKSEED_TOKEN is not valid", "", "status") // it is over at the boot service, too
	r.fails("the token in --token is not valid", "", "status", "--token", "wrong")
	t.Setenv("RACKSEED_TOKEN", "")
	r.prints(r.url+" is forgotten.\n", "logout", "--forget")
	r.prints("Nothing was known of a boot service.\n", "logout", "--forget")
	if _, err := load(); !errors.Is(err, errNoLogin) {
		t.Errorf("after --forget: %v", err)
	}
	r.must("ann\ncorrect horse\n", "login", "--server", r.url, "--fingerprint", r.fingerprint)

	// By environment, without a kept login.
	kept, err := load()
	if err != nil {
		t.Fatal(err)
	}
	if err := forget(); err != nil {
		t.Fatal(err)
	}
	t.Setenv("RACKSEED_SERVER", kept.Server)
	t.Setenv("RACKSEED_FINGERPRINT", kept.Fingerprint)
	t.Setenv("RACKSEED_TOKEN", kept.Token)
	r.must("", "status")
	t.Setenv("RACKSEED_TOKEN", "wrong")
	for _, command := range [][]string{{"status"}, {"machines", "-w"}, {"log", "-f", "m-1"}} {
		r.fails("the token in RACKSEED_TOKEN is not valid", "", command...)
	}
	if out := r.must("", "version"); !strings.Contains(out, "not asked: the token in RACKSEED_TOKEN") {
		t.Errorf("version:\n%s", out)
	}
	if got := r.exits("status"); got != ExitNoLogin {
		t.Errorf("a token that is not valid ends with %d", got)
	}
	t.Setenv("RACKSEED_SERVER", "https://127.0.0.1:1")
	r.fails("no answer", "", "status")
	t.Setenv("RACKSEED_SERVER", kept.Server)
	t.Setenv("RACKSEED_FINGERPRINT", strings.Repeat("00", 32))
	for _, command := range [][]string{{"status"}, {"machines", "-w"}, {"log", "-f", "m-1"}} {
		// A stream to somebody else is not tried again and again.
		r.fails("its certificate has the fingerprint\n  "+r.fingerprint+"\nand not", "", command...)
	}
}

// TestForgetWithoutAnswer: what is kept goes, and it is said that the login lives
// on at the boot service.
func TestForgetWithoutAnswer(t *testing.T) {
	r := newRig(t)
	r.setup()
	r.prints("Logged out of "+r.url+", and it is forgotten.\n", "logout", "--forget")
	r.must("correct horse\n", "login", "--server", r.url, "--fingerprint", r.fingerprint, "--name", "ann")
	kept, err := load()
	if err != nil {
		t.Fatal(err)
	}
	kept.Server = "https://127.0.0.1:1"
	if _, err := save(kept); err != nil {
		t.Fatal(err)
	}
	if got := r.exits("logout"); got != ExitNoAnswer {
		t.Errorf("logout without an answer ends with %d", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.run(ctx, "", io.Discard, "logout", "--forget"); ExitCode(err) != ExitInterrupted {
		t.Errorf("interrupted: %v", err)
	}
	if again, err := load(); err != nil || again != kept {
		t.Errorf("interrupted, %+v is kept, %v", again, err)
	}
	if out := r.must("", "logout", "--forget"); !strings.HasPrefix(out, kept.Server+" and the login are forgotten here. It was not told, so the login ends there when its time is over: ") {
		t.Errorf("without an answer: %s", out)
	}
	if _, err := load(); !errors.Is(err, errNoLogin) {
		t.Errorf("it is kept: %v", err)
	}
}

func TestChoose(t *testing.T) {
	kept := credentials{Server: "https://a", Fingerprint: "fa", Token: "ta"}
	for _, c := range []struct{ flags, env, want credentials }{
		{want: kept},
		{flags: credentials{Token: "x"}, want: credentials{Server: "https://a", Fingerprint: "fa", Token: "x"}},
		// Another server must not get this one's token, nor pass for it.
		{flags: credentials{Server: "https://b"}, want: credentials{Server: "https://b"}},
		{flags: credentials{Server: "https://b"}, env: credentials{Token: "te"}, want: credentials{Server: "https://b"}},
		{env: credentials{Server: "https://b", Fingerprint: "fb", Token: "tb"}, want: credentials{Server: "https://b", Fingerprint: "fb", Token: "tb"}},
		{env: credentials{Server: "https://b", Fingerprint: "fb", Token: "tb"}, flags: credentials{Token: "x"}, want: credentials{Server: "https://b", Fingerprint: "fb", Token: "x"}},
		{flags: credentials{Server: "https://a"}, want: kept},
	} {
		if got := choose(c.flags, c.env, kept); got != c.want {
			t.Errorf("flags %+v, environment %+v: %+v, want %+v", c.flags, c.env, got, c.want)
		}
	}
}

// Another replica's console has the same certificate: the login holds there. A server with
// another one gets nothing.
func TestLoginElsewhere(t *testing.T) {
	r := newRig(t)
	r.setup()
	at := strings.Replace(r.url, "127.0.0.1", "localhost", 1)
	if out := r.must("", "machines", "--server", at); strings.Contains(out, "not logged in") {
		t.Errorf("at %s: %s", at, out)
	}
	kept, err := load()
	if err != nil {
		t.Fatal(err)
	}
	kept.Fingerprint = strings.Repeat("AB:", 31) + "AB"
	if _, err := save(kept); err != nil {
		t.Fatal(err)
	}
	r.fails("fingerprint", "", "machines", "--server", at)
}

// follow runs a command that follows and hands over its lines.
func (r *rig) follow(args ...string) (next func() string, stop func() error) {
	ctx, cancel := context.WithTimeout(r.t.Context(), 60*time.Second)
	out, in := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := r.run(ctx, "", in, args...)
		done <- err
		in.CloseWithError(errors.Join(io.EOF, err))
	}()
	lines := bufio.NewScanner(out)
	next = func() string {
		r.t.Helper()
		if !lines.Scan() {
			r.t.Fatalf("rackseed %s ended: %v", strings.Join(args, " "), lines.Err())
		}
		return lines.Text()
	}
	return next, func() error {
		cancel()
		go func() { _, _ = io.Copy(io.Discard, out) }() // it may be writing what nobody wants
		return <-done
	}
}

func TestParseSince(t *testing.T) {
	now := time.Date(2026, 1, 31, 15, 4, 5, 0, time.UTC)
	for text, want := range map[string]since{
		"0": {}, "17": {seq: 17}, "90m": {when: now.Add(-90 * time.Minute)},
		"2026-01-31T15:04:05Z": {when: now}, "2026-01-31T15:04:05+02:00": {when: now.Add(-2 * time.Hour)},
		now.Local().Format(time.DateTime): {when: now},
	} {
		if got, err := parseSince(text, now); err != nil || got.seq != want.seq || !got.when.Equal(want.when) {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "-1", "-1h", "yesterday", "2026-01-31"} {
		if got, err := parseSince(text, now); err == nil {
			t.Errorf("%q: %+v", text, got)
		}
	}
}

func TestEventsAndLog(t *testing.T) {
	r := newRig(t)
	r.setup()
	r.Waiting(1)
	all := r.must("", "events")
	last := r.View().LastEvent()
	if n := strings.Count(all, "\n"); uint64(n) != last {
		t.Errorf("%d events, %d lines:\n%s", last, n, all)
	}
	if of := r.must("", "events", "--machine", "m-00000001"); of == "" || len(of) >= len(all) {
		t.Errorf("of one machine:\n%s", of)
	}

	if got := r.must("", "events", "--since", "1h"); got != all {
		t.Errorf("of the last hour:\n%s", got)
	}
	if got := r.must("", "events", "--since", time.Now().Add(time.Hour).Format(time.RFC3339)); got != "" {
		t.Errorf("of the next hour:\n%s", got)
	}
	if got := r.exits("events", "--since", "yesterday"); got != ExitUsage {
		t.Errorf("--since yesterday ends with %d", got)
	}

	next, stop := r.follow("events", "-f", "--since", fmt.Sprint(last+1))
	for i := range 20 {
		r.Must(state.Note{What: "test", Severity: machine.Warning, Text: fmt.Sprintf("note %d", i)})
		if line := next(); !strings.HasSuffix(line, fmt.Sprintf("warning: note %d", i)) {
			t.Errorf("note %d is followed by %q", i, line)
		}
	}
	if err := stop(); err != nil {
		t.Errorf("interrupted: %v", err)
	}

	// An event says when it was, with the day, and what its machine is called.
	r.must("", "approve", "m-00000001", "--name", "alpha")
	if out := moment.ReplaceAllString(r.must("", "events", "--machine", "alpha"), "NOW"); !strings.Contains(out, "  NOW  alpha       Approved by operator ann as alpha") {
		t.Errorf("events:\n%s", out)
	}

	stream := "s-00000001"
	chunk := func(first uint64) {
		r.Must(state.OutputStore{Chunk: machine.Chunk{
			Machine: "m-00000001", Stream: stream, First: first, Last: first + 1,
			Digest: fmt.Sprintf("sha256:%064x", first), Size: 10,
		}})
	}
	chunk(1)
	chunk(3)
	// Each line has its time, and the day stands above them.
	day, clock := regexp.MustCompile(`, \d{4}-\d\d-\d\d ──`), regexp.MustCompile(`(?m)^\d\d:\d\d:\d\d  `)
	timeless := func(text string) string {
		return clock.ReplaceAllString(day.ReplaceAllString(text, ", DAY ──"), "TIME  ")
	}
	if got := timeless(r.must("", "log", "m-00000001")); got != "── installer session s-00000001, DAY ──\nTIME  line 1 of s-00000001\nTIME  an escape �[2J\nTIME  line 3 of s-00000001\nTIME  an escape �[2J\n" {
		t.Errorf("log: %q", got)
	}
	taken := r.View().Chunks("m-00000001", 0, 0)[0].Time
	if got := r.must("", "log", "m-00000001", "-o", "json"); taken.IsZero() || !strings.Contains(got, `"time":"`+taken.Format(time.RFC3339Nano)+`"`) {
		t.Errorf("taken at %s: %s", taken, got)
	}
	next, stop = r.follow("log", "m-00000001", "-f", "--after", "1")
	if line := timeless(next()); line != "── installer session s-00000001, DAY ──" {
		t.Errorf("the log begins with %q", line)
	}
	for _, first := range []uint64{3, 5} {
		if first == 5 {
			chunk(5)
		}
		if line := timeless(next()); line != fmt.Sprintf("TIME  line %d of s-00000001", first) {
			t.Errorf("line %d: %q", first, line)
		}
		next()
	}
	stream = "node-1c2f"
	chunk(1)
	if line := timeless(next()); line != "── installed system, boot 1c2f, DAY ──" {
		t.Errorf("the installed system's lines begin with %q", line)
	}
	if err := stop(); err != nil {
		t.Errorf("interrupted: %v", err)
	}
}

func TestLinesHead(t *testing.T) {
	late := time.Date(2026, 5, 20, 23, 59, 59, 0, time.Local)
	for _, c := range []struct {
		lines api.Lines
		want  string
	}{
		{api.Lines{Stream: "s-1", Time: late}, "── installer session s-1, 2026-05-20 ──"},
		{api.Lines{Stream: "s-1", Time: late.Add(time.Second)}, "── installer session s-1, 2026-05-21 ──"},
		{api.Lines{Stream: "node-1c2f", Time: late.UTC()}, "── installed system, boot 1c2f, 2026-05-20 ──"},
	} {
		if got := linesHead(c.lines); got != c.want {
			t.Errorf("%+v begins with %q, want %q", c.lines, got, c.want)
		}
	}
}

// A login where no replica leads does not take the place of a better one for good.
func TestLoginToRead(t *testing.T) {
	r, nobody := newLeaderlessRig(t)
	r.setup()
	before, err := load()
	if err != nil {
		t.Fatal(err)
	}
	nobody.Store(true)
	for range 2 {
		out := r.must("correct horse\n", "login", "--name", "ann", "--server", r.url, "--fingerprint", r.fingerprint)
		if !strings.Contains(out, "this login only reads") || !strings.Contains(out, "The one to "+r.url+" is kept") {
			t.Errorf("logged in: %s", out)
		}
	}
	r.must("", "status")
	r.fails("this login only reads", "", "kubeconfig")
	r.prints("Logged out of "+r.url+". The login to "+r.url+" is used again.\n", "logout")
	if c, err := load(); err != nil || c != before {
		t.Errorf("%+v, %v, before %+v", c, err, before)
	}
}
