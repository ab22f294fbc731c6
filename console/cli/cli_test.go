package cli

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/rackseed/rackseed/console/client"
	"github.com/rackseed/rackseed/services/api"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
)

const code = "ABCD-EFGH-JKMN-PQRS"

// rig is a boot service's API over its real state, and a home for logins.
type rig struct {
	t           *testing.T
	store       *state.Store
	url         string
	fingerprint string
}

func newRig(t *testing.T) *rig {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	for _, name := range []string{"RACKSEED_SERVER", "RACKSEED_FINGERPRINT", "RACKSEED_TOKEN"} {
		t.Setenv(name, "")
	}
	log := slog.New(slog.DiscardHandler)
	store, err := state.Open(state.Config{ID: "replica-1", Now: time.Now, Logger: log, InMemory: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := store.WaitLeader(ctx); err != nil {
		t.Fatal(err)
	}
	server, err := api.New(api.Config{
		Store: store, Output: output{}, Logger: log, Now: time.Now,
		Status: func() api.Status {
			return api.Status{Site: "lab", Health: []api.Health{{Name: "tftp", Text: "port 69 is taken"}}}
		},
		Kubeconfig: func(_ state.View, who, server string) ([]byte, error) {
			return []byte("apiVersion: v1\nkind: Config # " + who + " " + server + "\n"), nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	h := httptest.NewTLSServer(server.Handler())
	t.Cleanup(h.Close)
	sum := sha256.Sum256(h.Certificate().Raw)
	r := &rig{t: t, store: store, url: h.URL, fingerprint: client.Colons(sum[:])}
	r.propose(state.ClusterCreate{ID: "c-1", Generation: 1, SetupHash: api.SetupHash(code)})
	r.propose(state.SiteApply{Site: machine.Site{
		Version: 1, Name: "lab", ServiceAddress: netip.MustParseAddr("192.0.2.1"),
		Links: []machine.SiteLink{{Interface: "eth0", Address: netip.MustParsePrefix("192.0.2.2/24")}},
	}})
	r.propose(state.ImagePublish{Images: []machine.Image{{Ref: "node", Digest: "sha256:" + strings.Repeat("ab", 32)}}})
	return r
}

type output struct{}

func (output) Read(_ context.Context, c machine.Chunk) ([]string, error) {
	return []string{fmt.Sprintf("line %d of %s", c.First, c.Stream), "an escape \x1b[2J"}, nil
}

func (r *rig) propose(c state.Command) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 30*time.Second)
	defer cancel()
	if _, err := r.store.Propose(ctx, "test", c); err != nil {
		r.t.Fatalf("%s: %v", c.Kind(), err)
	}
}

func (r *rig) waiting() {
	key := sha256.Sum256([]byte("key"))
	r.propose(state.SessionOpen{
		NewID:   "m-00000001",
		Session: machine.Session{ID: "s-00000001", SignKey: key[:], SealKey: key[:], Opened: time.Now().UTC()},
		Inventory: machine.Inventory{
			UUID: "00000000-0000-4000-8000-000000000001", Firmware: "uefi", MemoryBytes: 4 << 30, Manufacturer: "QEMU",
			Disks: []machine.Disk{{Path: "/dev/vda", Transport: "virtio", Bytes: 64 << 30, SectorSize: 512, Contents: "empty"}},
			NICs:  []machine.NIC{{Name: "eth0", MAC: "52:54:00:00:00:01", Carrier: true}},
		},
	})
}

// run runs the command line; stdin is what a person types.
func (r *rig) run(ctx context.Context, stdin string, out io.Writer, args ...string) error {
	root := &cobra.Command{Use: "rackseed", SilenceErrors: true}
	Add(root)
	root.SetArgs(args)
	root.SetIn(strings.NewReader(stdin))
	root.SetOut(out)
	root.SetErr(io.Discard)
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

func (r *rig) setup() {
	r.t.Helper()
	r.must("correct horse\n", "setup", "--server", r.url, "--fingerprint", r.fingerprint, "--code", code, "--name", "ann")
}

func TestSessions(t *testing.T) {
	r := newRig(t)
	r.fails("rackseed setup", "", "machines")
	r.fails("--fingerprint is needed", "", "setup", "--server", r.url, "--code", code, "--name", "ann")
	r.fails("expected 64 hex digits", "", "setup", "--server", r.url, "--fingerprint", "AB:CD", "--code", code, "--name", "ann")
	r.fails("compare with the appliance's screen", "correct horse\n", "setup", "--server", r.url,
		"--fingerprint", strings.Repeat("00", 32), "--code", code, "--name", "ann")
	r.fails("setup code", "correct horse\n", "setup", "--server", r.url, "--fingerprint", r.fingerprint, "--code", "WRNG", "--name", "ann")
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
	r.must("", "logout")
	r.fails("rackseed login", "", "machines")
	r.fails("password is wrong", "wrong horse\n", "login", "--server", r.url, "--fingerprint", r.fingerprint, "--name", "ann")
	r.must("ann\ncorrect horse\n", "login", "--server", r.url, "--fingerprint", r.fingerprint)
	r.must("", "status")

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
	r.fails("log in again", "", "status")
	t.Setenv("RACKSEED_SERVER", "https://127.0.0.1:1")
	r.fails("no answer", "", "status")
}

func TestChoose(t *testing.T) {
	kept := credentials{"https://a", "fa", "ta"}
	for _, c := range []struct{ flags, env, want credentials }{
		{want: kept},
		{flags: credentials{Token: "x"}, want: credentials{"https://a", "fa", "x"}},
		// Another server must not get this one's token, nor pass for it.
		{flags: credentials{Server: "https://b"}, want: credentials{Server: "https://b"}},
		{flags: credentials{Server: "https://b"}, env: credentials{Token: "te"}, want: credentials{Server: "https://b"}},
		{env: credentials{"https://b", "fb", "tb"}, want: credentials{"https://b", "fb", "tb"}},
		{env: credentials{"https://b", "fb", "tb"}, flags: credentials{Token: "x"}, want: credentials{"https://b", "fb", "x"}},
		{flags: credentials{Server: "https://a"}, want: kept},
	} {
		if got := choose(c.flags, c.env, kept); got != c.want {
			t.Errorf("flags %+v, environment %+v: %+v, want %+v", c.flags, c.env, got, c.want)
		}
	}
}

func TestMachines(t *testing.T) {
	r := newRig(t)
	r.setup()
	r.waiting()
	if out := r.must("", "machines"); !strings.Contains(out, "m-00000001") || !strings.Contains(out, "waiting") {
		t.Errorf("machines:\n%s", out)
	}
	if out := r.must("", "machine", "52:54:00:00:00:01"); !strings.Contains(out, "rackseed approve m-00000001") || !strings.Contains(out, "/dev/vda") {
		t.Errorf("machine:\n%s", out)
	}
	if out := r.must("", "approve", "m-00000001", "--name", "alpha", "--address", "192.0.2.20"); !strings.Contains(out, "alpha") || !strings.Contains(out, "192.0.2.20") {
		t.Errorf("approve:\n%s", out)
	}
	r.fails("approved already", "", "approve", "alpha")
	r.fails("", "", "retry", "alpha")
	r.fails("none", "", "machine", "none")

	var list api.List[api.Machine]
	if err := json.Unmarshal([]byte(r.must("", "machines", "-o", "json")), &list); err != nil || len(list.Items) != 1 || list.Items[0].Name != "alpha" {
		t.Errorf("as JSON: %+v, %v", list, err)
	}
	if out := r.must("", "machines", "-o", "yaml"); !strings.Contains(out, "name: alpha") {
		t.Errorf("as YAML:\n%s", out)
	}
	r.fails("text, json and yaml", "", "machines", "-o", "xml")
	if out := r.must("", "status"); !strings.Contains(out, "FAIL  tftp") {
		t.Errorf("status:\n%s", out)
	}
	if out := r.must("", "kubeconfig", "--server", "https://127.0.0.1:7443"); !strings.Contains(out, "ann https://127.0.0.1:7443") {
		t.Errorf("kubeconfig:\n%s", out)
	}
	r.must("", "leases")
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
	return next, func() error { cancel(); return <-done }
}

func TestEventsAndLog(t *testing.T) {
	r := newRig(t)
	r.setup()
	r.waiting()
	all := r.must("", "events")
	last := r.store.View().LastEvent()
	if n := strings.Count(all, "\n"); uint64(n) != last {
		t.Errorf("%d events, %d lines:\n%s", last, n, all)
	}
	if of := r.must("", "events", "--machine", "m-00000001"); of == "" || len(of) >= len(all) {
		t.Errorf("of one machine:\n%s", of)
	}

	next, stop := r.follow("events", "-f", "--after", fmt.Sprint(last))
	for i := range 20 {
		r.propose(state.Note{What: "test", Severity: machine.Warning, Text: fmt.Sprintf("note %d", i)})
		if line := next(); !strings.HasSuffix(line, fmt.Sprintf("warning: note %d", i)) {
			t.Errorf("note %d is followed by %q", i, line)
		}
	}
	if err := stop(); err != nil {
		t.Errorf("interrupted: %v", err)
	}

	chunk := func(first uint64) {
		r.propose(state.OutputStore{Chunk: machine.Chunk{
			Machine: "m-00000001", Stream: "s-00000001", First: first, Last: first + 1,
			Digest: fmt.Sprintf("sha256:%064x", first), Size: 10,
		}})
	}
	chunk(1)
	chunk(3)
	if got := r.must("", "log", "m-00000001"); got != "line 1 of s-00000001\nan escape �[2J\nline 3 of s-00000001\nan escape �[2J\n" {
		t.Errorf("log: %q", got)
	}
	next, stop = r.follow("log", "m-00000001", "-f", "--after", "1")
	for _, first := range []uint64{3, 5} {
		if first == 5 {
			chunk(5)
		}
		if line := next(); line != fmt.Sprintf("line %d of s-00000001", first) {
			t.Errorf("line %d: %q", first, line)
		}
		next()
	}
	if err := stop(); err != nil {
		t.Errorf("interrupted: %v", err)
	}
}

func TestSiteValidate(t *testing.T) {
	r := newRig(t)
	bad := filepath.Join(t.TempDir(), "site.yaml")
	if err := os.WriteFile(bad, []byte("version: 1\nname: lab\nserviceAddress: nowhere\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.fails("site.yaml:3:", "", "site", "validate", bad)
	r.fails("no such file", "", "site", "validate", bad+".none")
}
