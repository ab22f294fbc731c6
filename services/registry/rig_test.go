package registry

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/rackseed/rackseed/services/blob"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
)

const (
	password = "correct horse"
	token    = "rs_a token of ann"
)

// rig is a registry over a real state and store, served over TLS.
type rig struct {
	t        *testing.T
	dir      string
	below    string // a read-only layout
	limits   Limits
	inMemory bool // the state
	others   Others
	store    *state.Store
	blobs    *blob.Store
	registry *Registry
	server   *httptest.Server

	mu      sync.Mutex
	now     time.Time
	checked int // passwords
}

// statusError is an error as huma's.
type statusError int

func (e statusError) GetStatus() int { return int(e) }
func (e statusError) Error() string  { return "name or password is wrong" }

// newRig makes a rig whose state is in memory; newDiskRig's can be restarted.
func newRig(t *testing.T, limits Limits) *rig { return makeRig(t, limits, true) }

func newDiskRig(t *testing.T, limits Limits) *rig { return makeRig(t, limits, false) }

func makeRig(t *testing.T, limits Limits, inMemory bool) *rig {
	t.Helper()
	// The test's disk may be fuller than a data partition should be.
	if limits.KeepFree == 0 {
		limits.KeepFree = 1
	}
	r := &rig{t: t, dir: t.TempDir(), below: t.TempDir(), limits: limits, now: time.Now(), inMemory: inMemory}
	r.start()
	r.propose(state.ClusterCreate{ID: "c-1", Generation: 1, SetupHash: []byte("code")})
	r.propose(state.UserPut{Name: "ann", PasswordHash: []byte("first"), SetupHash: []byte("code")})
	t.Cleanup(r.stop)
	return r
}

func (r *rig) start() {
	r.t.Helper()
	log := slog.New(slog.DiscardHandler)
	var err error
	if r.store, err = state.Open(state.Config{Dir: filepath.Join(r.dir, "state"), ID: "replica-1", Now: time.Now, Logger: log, InMemory: r.inMemory}); err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(r.t.Context(), 30*time.Second)
	defer cancel()
	if err := r.store.WaitLeader(ctx); err != nil {
		r.t.Fatal(err)
	}
	if r.blobs, err = blob.Open(filepath.Join(r.dir, "blobs"), r.below); err != nil {
		r.t.Fatal(err)
	}
	r.registry = New(Config{
		Store: r.store, Blobs: r.blobs, Others: r.others, Logger: log, Limits: r.limits, Now: r.time,
		TokenOwner: func(t string) (string, bool) { return "ann", t == token },
		CheckPassword: func(_ *http.Request, name, secret string) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.checked++
			if name != "ann" || secret != password {
				return statusError(http.StatusUnauthorized)
			}
			return nil
		},
	})
	r.server = httptest.NewUnstartedServer(r.registry)
	r.server.Config.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelDebug) // clients try http, too
	r.server.StartTLS()
}

func (r *rig) stop() {
	r.server.Close()
	if err := r.store.Close(); err != nil {
		r.t.Error(err)
	}
}

// restart is as after a stop of the process.
func (r *rig) restart() {
	r.t.Helper()
	r.stop()
	r.start()
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

// checks is how many passwords were checked.
func (r *rig) checks() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.checked
}

func (r *rig) propose(c state.Command) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 30*time.Second)
	defer cancel()
	if _, err := r.store.Propose(ctx, "test", c); err != nil {
		r.t.Fatalf("%s: %v", c.Kind(), err)
	}
}

// repository is one of this registry, for go-containerregistry.
func (r *rig) repository(path string) name.Repository {
	r.t.Helper()
	repo, err := name.NewRepository(strings.TrimPrefix(r.server.URL, "https://") + "/" + path)
	if err != nil {
		r.t.Fatal(err)
	}
	return repo
}

// anybody and operator are a client's options.
func (r *rig) anybody() []remote.Option {
	return []remote.Option{remote.WithContext(r.t.Context()), remote.WithTransport(r.server.Client().Transport)}
}

func (r *rig) operator() []remote.Option {
	return append(r.anybody(), remote.WithAuth(&authn.Basic{Username: "ann", Password: password}))
}

type header map[string]string

// with asks with an operator's token.
var withToken = header{"Authorization": "Bearer " + token}

type reply struct {
	*http.Response
	body string
}

// code is the first error's code, and its message.
func (a reply) error(t *testing.T) (code, message string) {
	t.Helper()
	var list struct {
		Errors []struct{ Code, Message string }
	}
	if err := json.Unmarshal([]byte(a.body), &list); err != nil || len(list.Errors) != 1 {
		t.Fatalf("%s: no error in the protocol's form: %q (%v)", a.Status, a.body, err)
	}
	return list.Errors[0].Code, list.Errors[0].Message
}

func (r *rig) ask(method, path string, body io.Reader, headers ...header) reply {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.server.URL+path, body)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, h := range headers {
		for k, v := range h {
			req.Header.Set(k, v)
		}
	}
	a, err := r.server.Client().Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	b, err := io.ReadAll(a.Body)
	if err = errors.Join(err, a.Body.Close()); err != nil {
		r.t.Fatal(err)
	}
	return reply{a, string(b)}
}

// want asks and compares the status.
func (r *rig) want(status int, method, path, body string, headers ...header) reply {
	r.t.Helper()
	a := r.ask(method, path, strings.NewReader(body), headers...)
	if a.StatusCode != status {
		r.t.Fatalf("%s %s: %s, want %d: %s", method, path, a.Status, status, a.body)
	}
	return a
}

func digestOf(b string) string { return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(b))) }

// push stores a blob as an operator.
func (r *rig) push(repo, content string) string {
	r.t.Helper()
	r.want(http.StatusCreated, "POST", "/v2/"+repo+"/blobs/uploads/?digest="+digestOf(content), content, withToken)
	return digestOf(content)
}

func desc(mediaType, content string) v1.Descriptor {
	return v1.Descriptor{MediaType: mediaType, Digest: parsed(digestOf(content)), Size: int64(len(content))}
}

func marshal(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// aside are the files of uploads that are on their way.
func (r *rig) aside() []string {
	r.t.Helper()
	all, err := filepath.Glob(filepath.Join(r.dir, "blobs", "partial", "*"))
	if err != nil {
		r.t.Fatal(err)
	}
	return all
}

// artifact puts an artifact of one file below, as the ISO has it, and
// publishes it.
func (r *rig) artifact(ref, file, content string) (manifest string) {
	r.t.Helper()
	layer := desc("application/octet-stream", content)
	layer.Annotations = map[string]string{v1.AnnotationTitle: file}
	m := marshal(r.t, v1.Manifest{
		Versioned: versioned, MediaType: v1.MediaTypeImageManifest, ArtifactType: "application/vnd.rackseed.node.v1",
		Config: v1.DescriptorEmptyJSON, Layers: []v1.Descriptor{layer},
	})
	dir := filepath.Join(r.below, "blobs", "sha256")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		r.t.Fatal(err)
	}
	for _, b := range []string{content, m, "{}"} {
		if err := os.WriteFile(filepath.Join(dir, digestOf(b)[7:]), []byte(b), 0o644); err != nil {
			r.t.Fatal(err)
		}
	}
	r.propose(state.ImagePublish{Images: []machine.Image{{Ref: ref, Digest: digestOf(m)}}})
	return m
}

func readAll(t *testing.T, r io.ReadCloser, err error) []byte {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	_, err = b.ReadFrom(r)
	if err = errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// tlsClient speaks TLS over a connection that the test can cut.
func tlsClient(t *testing.T, conn net.Conn, server *httptest.Server) net.Conn {
	t.Helper()
	transport, ok := server.Client().Transport.(*http.Transport)
	if !ok {
		t.Fatal("no transport")
	}
	config := transport.TLSClientConfig.Clone()
	config.ServerName = "example.com" // as in httptest's certificate
	return tls.Client(conn, config)
}

// waitFor waits until a condition holds.
func waitFor(t *testing.T, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatal("it did not come to be")
		}
		time.Sleep(5 * time.Millisecond)
	}
}
