//go:build host || full

// Package moving proves the handoff with real processes: an appliance, machines
// that join by the real protocol, and their replicas, each in a network namespace
// of its own on one switch.
package moving

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rackseed/rackseed/console/client"
	"github.com/rackseed/rackseed/services/api"
	"github.com/rackseed/rackseed/services/identity"
	"github.com/rackseed/rackseed/services/keyring"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/netns"
	"github.com/rackseed/rackseed/services/peer"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/wire"
	"github.com/rackseed/rackseed/vm-test/simulate"
)

func TestMain(m *testing.M) { netns.Main(m) }

// build builds the program that every host runs.
func build(t testing.TB) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "rackseed")
	if out, err := exec.Command("go", "build", "-o", program, "../..").CombinedOutput(); err != nil {
		t.Fatalf("building rackseed: %v\n%s", err, out)
	}
	return program
}

const (
	service = "10.77.0.1"
	token   = "a token of the tests"
)

func site(machines int) string {
	sum := sha256.Sum256([]byte(token))
	var s strings.Builder
	fmt.Fprintf(&s, `version: 1
name: lab
serviceAddress: %s
links:
  - interface: eth0
    address: 10.77.0.2/16
    dhcp:
      from: 10.77.16.0
      to: 10.77.31.255
      others: true
operators:
  - name: ann
    tokenSHA256: %s
machines:
`, service, hex.EncodeToString(sum[:]))
	for n := 1; n <= machines; n++ {
		profile := "worker"
		if n == 1 {
			profile = "control-plane"
		}
		fmt.Fprintf(&s, "  - mac: %s\n    name: node-%d\n    profile: %s\n    address: %s\n    approve: true\n", hardware(n).BootMAC, n, profile, address(n))
	}
	return s.String()
}

// hardware is a machine's whose one disk is empty.
func hardware(n int) machine.Inventory { return simulate.Hardware(3*n - 2) }

func address(n int) string { return fmt.Sprintf("10.77.0.%d", 10+n) }

// host is one machine with a replica.
type host struct {
	*netns.Peer
	t       testing.TB
	program string
	name    string
	address string
	dir     string
	args    []string

	mu      sync.Mutex // of what follows: the nodes' agents start theirs beside the test
	image   string     // that its replica runs, as the order names it
	process *exec.Cmd
	ended   chan struct{} // closed once the process has ended
}

// running says whether its replica was started.
func (h *host) running() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.process != nil
}

// signal sends its replica a signal.
func (h *host) signal(s os.Signal) {
	h.t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.process.Process.Signal(s); err != nil {
		h.t.Error(err)
	}
}

// start starts its replica.
func (h *host) start() {
	h.t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.launch()
}

// again ends its replica as a power cut would, and starts it again. Its agent sees
// nothing of that.
func (h *host) again() {
	h.t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.end()
	h.launch()
}

// launch is start, with mu held.
func (h *host) launch() {
	h.t.Helper()
	log, err := os.OpenFile(filepath.Join(h.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		h.t.Fatal(err)
	}
	process, ended := exec.Command("nsenter", append([]string{"-t", h.PID(), "-n", h.program, "serve"}, h.args...)...), make(chan struct{})
	process.Stdout, process.Stderr = log, log
	process.Env = append(os.Environ(), wire.ReplicaImageEnv+"="+h.image)
	process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := process.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.process, h.ended = process, ended
	go func() {
		process.Wait() //nolint // its state says how it ended
		log.Close()    //nolint // the process is gone
		close(ended)
	}()
}

// kill ends its replica as a power cut would.
func (h *host) kill() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.end()
}

// end is kill, with mu held.
func (h *host) end() {
	if h.process == nil {
		return
	}
	h.process.Process.Kill() //nolint // it may have ended
	<-h.ended
	h.process = nil
}

// room is an appliance and machines on one switch, which the test is plugged into.
type room struct {
	t       testing.TB
	program string
	dir     string
	sw      *netns.Switch
	stick   *host
	nodes   []*host
	boxes   []*simulate.Machine
	client  *client.Client
	prepare []func(*host)

	fingerprint string // of the console's certificate

	programs map[string]string // what images hold that are rolled out
}

// newRoom makes a room with that many machines, of which so many are installed.
// prepare is called for each host before its replica starts.
func newRoom(t testing.TB, machines, installed int, prepare ...func(*host)) *room {
	t.Helper()
	r := &room{t: t, program: build(t), dir: t.TempDir(), prepare: prepare, sw: netns.JoinSwitch(t, "veth0", "10.77.0.50/16")}
	t.Cleanup(func() {
		if t.Failed() {
			r.tell()
		}
	})
	images := filepath.Join(r.dir, "images")
	if err := simulate.WriteImages(images); err != nil {
		t.Fatal(err)
	}
	r.stick = r.host("appliance", "10.77.0.2")
	if err := os.WriteFile(filepath.Join(r.stick.dir, "site.yaml"), []byte(site(machines)), 0o600); err != nil {
		t.Fatal(err)
	}
	r.stick.args = []string{"--data", r.stick.data(), "--images", images, "--site", filepath.Join(r.stick.dir, "site.yaml"), "--local", filepath.Join(r.stick.dir, "local.sock")}
	r.stick.start()
	r.client = r.open()
	for n := 1; n <= installed; n++ {
		r.install(n)
	}
	return r
}

// install switches a machine on, until its node is Ready.
func (r *room) install(n int) {
	r.t.Helper()
	box := &simulate.Machine{URL: "http://" + service, Inventory: hardware(n), Log: slog.New(slog.DiscardHandler)}
	ctx, cancel := context.WithTimeout(r.t.Context(), 2*time.Minute)
	defer cancel()
	if err := box.Run(ctx); err != nil {
		r.t.Fatal(err)
	}
	r.boxes = append(r.boxes, box)
	r.nodes = append(r.nodes, r.host(fmt.Sprintf("node-%d", n), address(n)))
}

// host is one with an address in the room's network.
func (r *room) host(name, address string) *host {
	r.t.Helper()
	h := &host{Peer: r.sw.Plug(address + "/16"), t: r.t, program: r.program, name: name, address: address, dir: filepath.Join(r.dir, name)}
	if err := os.MkdirAll(h.dir, 0o700); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(h.kill)
	for _, f := range r.prepare {
		f(h)
	}
	return h
}

// tell shows what the replicas said last.
func (r *room) tell() {
	for _, h := range append([]*host{r.stick}, r.nodes...) {
		if h == nil {
			continue
		}
		text, err := os.ReadFile(filepath.Join(h.dir, "log"))
		if err != nil {
			continue
		}
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		r.t.Logf("%s:\n%s", h.name, strings.Join(lines[max(0, len(lines)-40):], "\n"))
	}
}

// status is what a replica's screen shows.
func (h *host) status() (s struct {
	api.Status
	Fingerprint string `json:"fingerprint"`
	Sealed      bool   `json:"sealed"`
	LetGo       bool   `json:"letGo"`
}, err error) {
	c := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(h.dir, "local.sock"))
	}}}
	a, err := c.Get("http://local/status")
	if err != nil {
		return s, err
	}
	defer a.Body.Close()
	return s, json.NewDecoder(io.LimitReader(a.Body, 1<<20)).Decode(&s)
}

// open waits until the console answers at the service address.
func (r *room) open() *client.Client {
	r.t.Helper()
	var c *client.Client
	r.until("the console answers", time.Minute, func() error {
		s, err := r.stick.status()
		if err == nil && s.Fingerprint == "" {
			err = errors.New("there is no fingerprint yet")
		}
		if err == nil {
			r.fingerprint = s.Fingerprint
			c, err = client.New("https://"+service, s.Fingerprint, token)
		}
		if err != nil {
			return err
		}
		return c.Call(r.t.Context(), http.MethodGet, "/api/status", nil, nil, nil)
	})
	return c
}

// until waits for a condition, which says what is missing.
func (r *room) until(what string, limit time.Duration, holds func() error) {
	r.t.Helper()
	deadline := time.After(limit)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		err := holds()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			r.t.Fatalf("%s: not within %v: %v", what, limit, err)
		}
	}
}

// carry plays the nodes' agents (kube/agent: nextReplica): those that are told to
// start a replica, and to end one.
func (r *room) carry(ctx context.Context) {
	for ctx.Err() == nil {
		for i, box := range slices.Clone(r.boxes) {
			one, cancel := context.WithTimeout(ctx, 5*time.Second)
			if err := r.tend(one, r.nodes[i], box); err != nil && ctx.Err() == nil {
				r.t.Logf("%s: %v", r.nodes[i].name, err)
			}
			cancel()
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

func (r *room) tend(ctx context.Context, h *host, box *simulate.Machine) error {
	own, err := identity.Load(filepath.Join(h.data(), "identity"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	order, err := box.ReplicaOrder(ctx, own.Name)
	if err != nil {
		return err
	}
	switch over := slices.Contains(order.Left, own.ID) || own.ID == "" && !order.Run; {
	case over && h.running():
		h.kill()
		return h.clear()
	case order.Run && own.ID == "" && !h.running():
		secret, err := box.ReplicaSecret(ctx)
		if err == nil {
			h.image = order.Image
			r.run(h, secret)
		}
		return err
	case order.Change && own.ID != "" && order.Image != h.image:
		program := r.programs[order.Image]
		if program == "" {
			return fmt.Errorf("image %s cannot be pulled", order.Image)
		}
		h.change(order.Image, program)
	}
	return nil
}

// change has its replica run another image, as the kubelet does.
func (h *host) change(image, program string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.end()
	h.image, h.program = image, program
	h.launch()
}

// keys are the IDs of the data keys on its disk.
func (h *host) keys() []string {
	h.t.Helper()
	ring, err := keyring.Open(filepath.Join(h.data(), "keyring"), keyring.Protectors(h.data())...)
	if err != nil {
		h.t.Fatal(err)
	}
	return ring.IDs()
}

// backedUp is which data keys its newest backup is sealed under.
func (h *host) backedUp() (k state.Keyring, err error) {
	all, err := filepath.Glob(filepath.Join(h.data(), "backup", "state-*"))
	if err != nil || len(all) == 0 {
		return k, fmt.Errorf("%s has no backup: %w", h.name, err)
	}
	f, err := os.Open(slices.Max(all))
	if err != nil {
		return k, err
	}
	defer f.Close()
	past, err := state.ReadBackup(f)
	if err != nil {
		return k, err
	}
	defer past.Close()
	return past.View.Keyring(), nil
}

// data is the folder of its replica's data.
func (h *host) data() string { return filepath.Join(h.dir, "data") }

// clear removes its replica's data.
func (h *host) clear() error {
	all, err := os.ReadDir(h.data())
	for _, x := range all {
		err = errors.Join(err, os.RemoveAll(filepath.Join(h.data(), x.Name())))
	}
	return err
}

// run starts a node's replica, as its static pod does.
func (r *room) run(h *host, secret wire.ReplicaSecret) {
	invitation := filepath.Join(h.dir, "invitation.json")
	if err := os.WriteFile(invitation, secret.Invitation, 0o600); err != nil {
		r.t.Error(err)
	}
	h.args = []string{"--data", h.data(), "--endpoint", net.JoinHostPort(h.address, peer.Port), "--join", invitation, "--https", net.JoinHostPort(h.address, "8443"), "--local", filepath.Join(h.dir, "local.sock")}
	h.start()
}

// read asks until there is an answer: there is none while another replica begins to
// lead.
func (r *room) read(path string, query url.Values, out any) {
	r.t.Helper()
	r.until("GET "+path, time.Minute, func() error {
		ctx, cancel := context.WithTimeout(r.t.Context(), 5*time.Second)
		defer cancel()
		return r.client.Call(ctx, http.MethodGet, path, query, nil, out)
	})
}

// handoff is how far it is, as the console says.
func (r *room) handoff() (h api.Handoff, err error) {
	ctx, cancel := context.WithTimeout(r.t.Context(), 5*time.Second)
	defer cancel()
	return h, r.client.Call(ctx, http.MethodGet, "/api/handoff", nil, nil, &h)
}

// reach waits until the plan is at a step, and shows what happens meanwhile.
func (r *room) reach(step machine.HandoffStep, limit time.Duration) api.Handoff {
	r.t.Helper()
	var h api.Handoff
	seen := machine.HandoffStep("")
	r.until("the handoff is "+string(step), limit, func() (err error) {
		if h, err = r.handoff(); err != nil {
			return err
		}
		if h.Plan == nil {
			return errors.New("there is no plan")
		}
		if h.Plan.Step != seen {
			seen = h.Plan.Step
			r.t.Logf("%s: %s", time.Now().Format(time.TimeOnly), seen)
		}
		if h.Plan.Step != step {
			return fmt.Errorf("it is %s: %s %s %v", h.Plan.Step, h.Plan.Doing, h.Plan.Failed, h.Plan.Gates)
		}
		return nil
	})
	return h
}

// leader is the node that leads.
func (r *room) leader(h api.Handoff) *host {
	for _, x := range h.Replicas {
		for _, n := range r.nodes {
			if x.Leads && x.Name == n.name {
				return n
			}
		}
	}
	return nil
}

// lines are the machines' output.
func (r *room) lines() (all []string) {
	r.t.Helper()
	for n := 1; n <= 3; n++ {
		var page api.List[api.Lines]
		r.read(fmt.Sprintf("/api/machines/node-%d/output", n), url.Values{"limit": {"200"}}, &page)
		for _, l := range page.Items {
			all = append(all, l.Lines...)
		}
	}
	return all
}

// events are all, which must have no gap.
func (r *room) events() []machine.Event {
	r.t.Helper()
	var all []machine.Event
	for {
		var page api.EventList
		var last uint64
		if len(all) > 0 {
			last = all[len(all)-1].Seq
		}
		r.read("/api/events", url.Values{"after": {fmt.Sprint(last)}}, &page)
		if len(page.Items) == 0 {
			return all
		}
		for _, e := range page.Items {
			if e.Seq != uint64(len(all))+1 {
				r.t.Fatalf("event %d follows %d", e.Seq, len(all))
			}
			all = append(all, e)
		}
	}
}
