package simulate

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/console/client"
	"github.com/rackseed/rackseed/services/api"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/replica"
	"github.com/rackseed/rackseed/services/wire"
)

const token = "token of the test"

// site lists machine 1 with approval; machine 2 is approved by hand.
func site() string {
	return fmt.Sprintf(`version: 1
name: simulated
serviceAddress: 192.0.2.1
links:
  - interface: eth0
    address: 192.0.2.2/24
    dhcp:
      from: 192.0.2.100
      to: 192.0.2.200
sshKeys:
  - ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIG8fbLlDrnfEr1aOMvTvNYGvCvXhMfmCj1KMQmVQxT8k test
operators:
  - name: test
    tokenSHA256: %x
machines:
  - mac: %s
    name: first
    address: 192.0.2.11
    approve: true
`, sha256.Sum256([]byte(token)), Hardware(1).BootMAC)
}

// service is a real boot service on loopback.
type service struct {
	t      *testing.T
	ctx    context.Context
	client *client.Client
	url    string // for machines
}

func serve(t *testing.T) *service {
	t.Helper()
	dir := folder(t)
	images := filepath.Join(dir, "images")
	if err := errors.Join(WriteImages(images), os.WriteFile(filepath.Join(dir, "site.yaml"), []byte(site()), 0o600)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	out, in := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := replica.Run(ctx, replica.Config{
			Data: filepath.Join(dir, "data"), Images: []string{images}, Site: filepath.Join(dir, "site.yaml"),
			Dev: true, HTTP: "127.0.0.1:0", HTTPS: "127.0.0.1:0", Out: in, Logger: slog.New(slog.DiscardHandler),
		})
		in.CloseWithError(errors.Join(io.EOF, err))
		done <- err
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the boot service ended: %v", err)
		}
	})
	var console, fingerprint string
	if _, err := fmt.Fscanf(out, "Console: %s\nFingerprint: %s\n", &console, &fingerprint); err != nil {
		t.Fatalf("the boot service does not say where it is: %v", err)
	}
	go func() { _, _ = io.Copy(io.Discard, out) }() // ends with the boot service
	c, err := client.New(console, fingerprint, token)
	if err != nil {
		t.Fatal(err)
	}
	s := &service{t: t, ctx: ctx, client: c}
	s.until("machines are served and images published", func() bool {
		var status api.Status
		if err := c.Call(ctx, http.MethodGet, "/api/status", nil, nil, &status); err != nil {
			return false // the site file, and with it the token, may not be read yet
		}
		images := false
		for _, h := range status.Health {
			if h.Name == "netboot" && h.OK {
				s.url = "http://" + strings.TrimPrefix(h.Text, "served on ")
			}
			images = images || h.Name == "images" && h.OK
		}
		return s.url != "" && images
	})
	return s
}

// folder is one in memory, where there is such: a boot decision that takes over
// two seconds to commit is not given, and other programs may keep a disk busy for
// longer than a test may wait.
func folder(t *testing.T) string {
	t.Helper()
	const memory = "/dev/shm"
	if info, err := os.Stat(memory); err != nil || !info.IsDir() {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp(memory, "rackseed-simulate-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// start has a machine run beside the test. What it says is the test's, and it
// ends before it.
func (s *service) start(m *Machine) (ended chan error) {
	ctx, cancel := context.WithCancel(s.ctx)
	ended, done := make(chan error, 1), make(chan struct{})
	m.Log = slog.New(slog.NewTextHandler(s.t.Output(), nil))
	go func() {
		defer close(done)
		ended <- m.Run(ctx)
	}()
	s.t.Cleanup(func() { cancel(); <-done })
	return ended
}

// where says how it stands, for whoever waited in vain.
func (s *service) where() string {
	var status api.Status
	var list api.List[api.Machine]
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), 10*time.Second)
	defer cancel()
	err := errors.Join(s.client.Call(ctx, http.MethodGet, "/api/status", nil, nil, &status), s.client.Call(ctx, http.MethodGet, "/api/machines", nil, nil, &list))
	text := fmt.Sprintf("health %+v; machines:", status.Health)
	for _, m := range list.Items {
		text += fmt.Sprintf(" %s %v %s (%s), boots %+v;", m.ID, m.MACs, m.Phase, m.Reason, m.NextBoot)
	}
	return fmt.Sprint(text, " ", err)
}

func (s *service) until(what string, is func() bool) {
	s.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-s.ctx.Done():
			s.t.Fatalf("%s: never: %s", what, s.where())
		}
	}
}

func (s *service) get(path string, query url.Values, out any) {
	s.t.Helper()
	if err := s.client.Call(s.ctx, http.MethodGet, path, query, nil, out); err != nil {
		s.t.Fatal(err)
	}
}

func (s *service) machine(mac machine.MAC) (found api.Machine) {
	s.t.Helper()
	var list api.List[api.Machine]
	s.get("/api/machines", nil, &list)
	for _, m := range list.Items {
		if m.MACs[0] == mac {
			return m
		}
	}
	return api.Machine{}
}

func (s *service) kinds(id machine.ID) string {
	s.t.Helper()
	var list api.EventList
	s.get("/api/events", url.Values{"machine": {string(id)}, "limit": {"1000"}}, &list)
	var kinds []string
	for _, e := range list.Items {
		kinds = append(kinds, e.Kind)
	}
	return strings.Join(kinds, " ")
}

func TestFromFirstPacketToReady(t *testing.T) {
	s := serve(t)
	m := &Machine{URL: s.url, Inventory: Hardware(1), Disk: filepath.Join(t.TempDir(), "disk", "1.json"), Log: slog.New(slog.DiscardHandler)}
	if err := m.Run(s.ctx); err != nil {
		t.Fatal(err)
	}
	got := s.machine(m.Inventory.BootMAC)
	if got.Phase != machine.PhaseReady || got.Name != "first" {
		t.Errorf("machine: %+v", got)
	}
	kinds := s.kinds(got.ID)
	at := 0
	for _, kind := range []string{"http.script", "boot.decided", "session.opened", "machine.approved", "intent.claimed", "ignition.fetch",
		"install.done", "boot.decided", "node.booted", "node.joining", "node.joined", "node.ready"} {
		i := strings.Index(kinds[at:], kind)
		if i < 0 {
			t.Fatalf("%s is missing, or too early, in: %s", kind, kinds)
		}
		at += i + len(kind)
	}
	var output api.List[api.Lines]
	s.get("/api/machines/first/output", nil, &output)
	var lines []string
	for _, c := range output.Items {
		lines = append(lines, c.Lines...)
	}
	all := strings.Join(lines, "\n")
	for _, want := range []string{"Rackseed installer", "root.erofs is written and verified", wire.PathNodeConfig, "control-plane has initialized", "node first is Ready"} {
		if !strings.Contains(all, want) {
			t.Errorf("the log does not say %q:\n%s", want, all)
		}
	}

	// The same disk in the next process boots itself.
	again := &Machine{URL: s.url, Inventory: m.Inventory, Disk: m.Disk, Log: m.Log}
	if err := again.Run(s.ctx); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	if kinds := s.kinds(got.ID); strings.Count(kinds, "node.ready") != 2 || strings.Count(kinds, "node.joining") != 1 {
		t.Errorf("after a restart: %s", kinds)
	}
	// Asked to, it serves a rescue shell instead, and its disk stays.
	if err := s.client.Call(s.ctx, http.MethodPost, "/api/machines/first/rescue", nil, map[string]any{}, nil); err != nil {
		t.Fatal(err)
	}
	rescued := &Machine{URL: s.url, Inventory: m.Inventory, Disk: m.Disk, Log: m.Log}
	ctx, cancel := context.WithCancel(s.ctx)
	ended := make(chan error, 1)
	go func() { ended <- rescued.Run(ctx) }()
	s.until("the rescue shell", func() bool {
		s.get("/api/machines/first/output", nil, &output)
		return len(output.Items) > 0 && strings.Contains(fmt.Sprint(output.Items), "1 keys could log in")
	})
	if got := s.machine(m.Inventory.BootMAC); got.Phase != machine.PhaseRescue || got.Inventory.Disks[0].Contents != "Rackseed node first" {
		t.Errorf("in the rescue: %+v, %+v", got, got.Inventory)
	}
	cancel()
	<-ended
	// An empty one cannot.
	empty := &Machine{URL: s.url, Inventory: m.Inventory, Log: m.Log}
	if err := empty.Run(s.ctx); err == nil || !strings.Contains(err.Error(), "its own disk, which is empty") {
		t.Errorf("an empty disk: %v", err)
	}
}

func TestFailsOnceAndIsRetried(t *testing.T) {
	s := serve(t)
	m := &Machine{URL: s.url, Inventory: Hardware(4), Pace: time.Millisecond, Fail: wire.StepImage}
	if err := s.client.Call(s.ctx, http.MethodPost, "/api/discovery/open", nil, map[string]any{}, nil); err != nil {
		t.Fatal(err)
	}
	ended := s.start(m)
	var got api.Machine
	phase := func(p machine.Phase) func() bool {
		return func() bool {
			select {
			case err := <-ended:
				t.Fatalf("the machine stands still before it is %s: %v", p, err)
			default:
			}
			got = s.machine(m.Inventory.BootMAC)
			return got.Phase == p
		}
	}
	s.until("it waits", phase(machine.PhaseWaiting))
	act := func(action string) {
		t.Helper()
		if err := s.client.Call(s.ctx, http.MethodPost, "/api/machines/"+string(got.ID)+"/"+action, nil, map[string]any{}, nil); err != nil {
			t.Fatal(err)
		}
	}
	act("approve")
	s.until("it failed", phase(machine.PhaseFailed))
	if !strings.Contains(got.Reason, "input/output error") {
		t.Errorf("reason %q", got.Reason)
	}
	act("retry")
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if got = s.machine(m.Inventory.BootMAC); got.Phase != machine.PhaseReady {
		t.Errorf("machine: %+v", got)
	}
}

// A production server that happens to restart here comes back as it was.
func TestUnknownMachineBootsItsOwnSystem(t *testing.T) {
	s := serve(t)
	m := &Machine{URL: s.url, Inventory: Hardware(3), Log: slog.New(slog.DiscardHandler)}
	if err := m.Run(s.ctx); !errors.Is(err, ErrOwnSystem) {
		t.Errorf("%v", err)
	}
}

func TestRunRefusesAnUnknownStep(t *testing.T) {
	m := &Machine{URL: "http://127.0.0.1:1", Inventory: Hardware(1), Fail: "polish", Log: slog.New(slog.DiscardHandler)}
	if err := m.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "polish") {
		t.Errorf("%v", err)
	}
}
