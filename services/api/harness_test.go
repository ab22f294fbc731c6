package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/statetest"
)

const (
	testCode  = "ABCD-EFGH-JKMN-PQRS"
	siteToken = "a token of the site file"
)

// rig is a boot service's API over its real state.
type rig struct {
	*statetest.State
	t      *testing.T
	server *Server
	http   *httptest.Server
	ended  chan string // the path of each request, when it is over; nil: not told
	mu     sync.Mutex
	now    time.Time
}

func newRig(t *testing.T, change ...func(*Config)) *rig {
	t.Helper()
	r := &rig{State: statetest.Open(t), t: t, now: time.Now()}
	hash := sha256.Sum256([]byte(siteToken))
	site := statetest.Site()
	site.Operators = []machine.SiteOperator{{Name: "ann", TokenSHA256: hex.EncodeToString(hash[:])}}
	r.Begin(SetupHash(testCode), site)
	config := Config{
		Store: r.Store, Members: r.State, Output: digests{}, Logger: slog.New(slog.DiscardHandler), Now: r.time,
		Status: func() Status { return Status{Site: "lab"} },
		Kubeconfig: func(_ state.View, who, server string) ([]byte, error) {
			return []byte("user: " + who + "\nserver: " + server + "\n"), nil
		},
	}
	for _, c := range change {
		c(&config)
	}
	var err error
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
