package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/wire"
)

const (
	testCode  = "ABCD-EFGH-JKMN-PQRS"
	siteToken = "a token of the site file"
)

// rig is a boot service's API over its real state.
type rig struct {
	t      *testing.T
	store  *state.Store
	server *Server
	http   *httptest.Server
	ended  chan string // the path of each request, when it is over; nil: not told
	mu     sync.Mutex
	now    time.Time
}

func newRig(t *testing.T, change ...func(*Config)) *rig {
	t.Helper()
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
	r := &rig{t: t, store: store, now: time.Now()}
	hash := sha256.Sum256([]byte(siteToken))
	r.propose(state.ClusterCreate{
		ID: "c-1", Generation: 1, SetupHash: SetupHash(testCode),
		Secrets: map[string][]byte{"pki/ca.key": []byte("a secret of the cluster")},
	})
	r.propose(state.SiteApply{Site: machine.Site{
		Version: 1, Name: "lab", ServiceAddress: netip.MustParseAddr("192.0.2.1"),
		Links: []machine.SiteLink{{
			Interface: "eth0", Address: netip.MustParsePrefix("192.0.2.2/24"),
			DHCP: &machine.SiteDHCP{From: netip.MustParseAddr("192.0.2.100"), To: netip.MustParseAddr("192.0.2.200")},
		}},
		Operators: []machine.SiteOperator{{Name: "ann", TokenSHA256: hex.EncodeToString(hash[:])}},
	}})
	r.propose(state.DiscoveryWindow{Until: r.now.Add(24 * time.Hour)})
	config := Config{
		Store: store, Output: digests{}, Logger: log, Now: r.time,
		Status: func() Status { return Status{Site: "lab"} },
		Kubeconfig: func(_ state.View, who, server string) ([]byte, error) {
			return []byte("user: " + who + "\nserver: " + server + "\n"), nil
		},
	}
	for _, c := range change {
		c(&config)
	}
	if r.server, err = New(config); err != nil {
		t.Fatal(err)
	}
	r.http = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.server.Handler().ServeHTTP(w, req)
		if r.ended != nil {
			r.ended <- req.URL.Path
		}
	}))
	t.Cleanup(r.http.Close)
	return r
}

// digests answers with the digest of each chunk as its one line.
type digests struct{}

func (digests) Read(_ context.Context, c machine.Chunk) ([]string, error) {
	return []string{c.Digest}, nil
}

func (r *rig) time() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now
}

func (r *rig) pass(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = r.now.Add(d)
}

func (r *rig) propose(c state.Command) state.Result {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 30*time.Second)
	defer cancel()
	res, err := r.store.Propose(ctx, "test", c)
	if err != nil {
		r.t.Fatalf("%s: %v", c.Kind(), err)
	}
	return res
}

// waiting makes a machine that waits for approval.
func (r *rig) waiting(n int) machine.ID {
	r.t.Helper()
	id := machine.ID(fmt.Sprintf("m-%08x", n))
	key := func(what string) []byte { h := sha256.Sum256(fmt.Append(nil, what, n)); return h[:] }
	r.propose(state.SessionOpen{
		NewID:   id,
		Session: machine.Session{ID: fmt.Sprintf("s-%08x", n), SignKey: key("sign"), SealKey: key("seal"), Opened: time.Now().UTC()},
		Inventory: machine.Inventory{
			UUID: fmt.Sprintf("00000000-0000-4000-8000-%012x", n), Firmware: "uefi", MemoryBytes: 4 << 30,
			Disks: []machine.Disk{{Path: "/dev/vda", Transport: "virtio", Serial: "S1", Bytes: 64 << 30, SectorSize: 512, Contents: "empty"}},
			NICs:  []machine.NIC{{Name: "eth0", MAC: machine.MAC(fmt.Sprintf("52:54:00:00:%02x:%02x", n>>8, n&255)), Carrier: true}},
		},
	})
	return id
}

// installed lets the machine's ordered install end well.
func (r *rig) installed(id machine.ID) {
	r.t.Helper()
	m, _ := r.store.View().Machine(id)
	i := r.store.View().InstallIntent(id)
	r.propose(state.IntentClaim{Intent: i.ID, Epoch: i.Epoch, Session: i.Session, Disk: m.Inventory.Disks[0]})
	r.propose(state.InstallReport{Machine: id, Session: i.Session, Report: wire.Report{
		Number: 1, Intent: i.ID, Epoch: i.Epoch, Step: wire.StepReboot, Status: wire.StepDone,
	}})
}

func (r *rig) image() {
	r.propose(state.ImagePublish{Images: []machine.Image{{Ref: "node", Digest: "sha256:" + strings.Repeat("ab", 32)}}})
}

// answer is what came back.
type answer struct {
	*http.Response
	body string
}

// detail is a problem's text.
func (a answer) detail() string {
	var p struct {
		Detail string `json:"detail"`
	}
	if json.Unmarshal([]byte(a.body), &p) != nil {
		return "not a problem document: " + a.body
	}
	return p.Detail
}

type header = map[string]string

func bearer(token string) header { return header{"Authorization": "Bearer " + token} }

// ask sends a request; body is JSON or empty.
func (r *rig) ask(method, path, body string, headers ...header) answer {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.http.URL+path, bytes.NewBufferString(body))
	if err != nil {
		r.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		for k, v := range h {
			req.Header.Set(k, v)
		}
	}
	resp, err := r.client().Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return answer{resp, string(b)}
}

// want asks, and fails the test at another status.
func (r *rig) want(status int, method, path, body string, headers ...header) answer {
	r.t.Helper()
	a := r.ask(method, path, body, headers...)
	if a.StatusCode != status {
		r.t.Fatalf("%s %s: status %d, want %d: %s", method, path, a.StatusCode, status, a.body)
	}
	return a
}

func (r *rig) client() *http.Client {
	c := *r.http.Client()
	c.Timeout = 30 * time.Second
	return &c
}

func (r *rig) tls() *tls.Config {
	return r.http.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
}

func decode[T any](t *testing.T, text string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return v
}

func withConsole(files fs.FS) func(*Config) { return func(c *Config) { c.Console = files } }
