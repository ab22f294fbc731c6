package blobsync

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/blob"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/netboot"
	"github.com/rackseed/rackseed/services/peerapi"
	"github.com/rackseed/rackseed/services/registry"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/statetest"
	"github.com/rackseed/rackseed/services/wire"
)

// replicas are others behind real HTTP servers, as replicas ask each other.
type replicas struct {
	peerapi.Client
	order   []string
	servers map[string]*httptest.Server
}

func (r *replicas) Peers() []string { return r.order }

// serving is a replica's server for others; blobs are what it has.
func serving(t *testing.T, texts ...string) http.Handler {
	t.Helper()
	s := store(t)
	for _, text := range texts {
		if _, _, err := s.Put(t.Context(), strings.NewReader(text), ""); err != nil {
			t.Fatal(err)
		}
	}
	return (&peerapi.Server{Blobs: s}).Members()
}

// among makes a loop that lacks everything, among replicas that are asked by name.
func among(t *testing.T, handlers map[string]http.Handler) *Loop {
	t.Helper()
	r := &replicas{servers: map[string]*httptest.Server{}, order: slices.Sorted(maps.Keys(handlers))}
	for id, h := range handlers {
		r.servers[id] = httptest.NewServer(h)
		t.Cleanup(r.servers[id].Close)
	}
	transport := &http.Transport{DialTLSContext: func(ctx context.Context, _, at string) (net.Conn, error) {
		id, _, err := net.SplitHostPort(at)
		if err != nil {
			return nil, err
		}
		return new(net.Dialer).DialContext(ctx, "tcp", r.servers[id].Listener.Addr().String())
	}}
	t.Cleanup(transport.CloseIdleConnections)
	r.HTTP = &http.Client{Transport: transport}
	return &Loop{
		Blobs: store(t), Source: r, Logger: slog.New(slog.DiscardHandler),
		Images: func() ([]machine.Image, <-chan struct{}) { return nil, nil },
	}
}

// artifacts is a loop as netboot asks it.
type artifacts struct{ *Loop }

func (a artifacts) Open(ctx context.Context, d string) (io.ReadSeekCloser, error) {
	return a.Loop.Open(ctx, blob.Digest(d))
}
func (artifacts) Files(string) ([]wire.File, error) { return nil, nil }

func opened(t *testing.T) *state.Store {
	t.Helper()
	s, err := state.Open(state.Config{ID: "replica-1", InMemory: true, Now: time.Now, Keys: statetest.Keys(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := s.WaitLeader(ctx); err != nil {
		t.Fatal(err)
	}
	return s
}

// machines is the machines' server over a loop.
func machines(t *testing.T, l *Loop) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(netboot.New(netboot.Config{Store: opened(t), Blobs: artifacts{l}, Now: time.Now, Logger: l.Logger}))
	t.Cleanup(s.Close)
	return s
}

// get asks for a blob, or a part of it, and answers with all that came.
func get(t *testing.T, url, part string) (status int, body string, err error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if part != "" {
		r.Header.Set("Range", part)
	}
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(a.Body)
	return a.StatusCode, string(b), errors.Join(err, a.Body.Close())
}

// until waits until something holds.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: it did not come to be", what)
		}
	}
}

func (l *Loop) fetching() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.fetches)
}

// large is more than is waited for, and no two parts of it are alike.
var large = func() string {
	var b bytes.Buffer
	for n := 0; b.Len() < 3*ahead; n++ {
		fmt.Fprintf(&b, "%07d\n", n)
	}
	return b.String()
}()

// What another replica has is served to machines while it comes, whole and by Range,
// with room for it or without.
func TestServedThrough(t *testing.T) {
	for name, room := range map[string]int64{"room": 0, "no room": math.MaxInt64 >> 1} {
		t.Run(name, func(t *testing.T) {
			l := among(t, map[string]http.Handler{"a": serving(t), "b": serving(t, large)})
			l.KeepFree = room
			url := machines(t, l).URL + wire.PathBlob + string(digestOf(large)) + "/vmlinuz"
			for part, want := range map[string]string{
				"bytes=0-7": large[:8], "bytes=-8": large[len(large)-8:], "bytes=800000-": large[800000:],
				fmt.Sprintf("bytes=%d-%d", 2*ahead, 2*ahead+99): large[2*ahead : 2*ahead+100],
			} {
				if status, body, err := get(t, url, part); status != http.StatusPartialContent || body != want || err != nil {
					t.Errorf("%s: %d, %d bytes, %v", part, status, len(body), err)
				}
			}
			if status, body, err := get(t, url, ""); status != http.StatusOK || body != large || err != nil {
				t.Errorf("whole: %d, %d bytes, %v", status, len(body), err)
			}
			until(t, "nothing is fetched any more", func() bool { return l.fetching() == 0 })
			if here := l.Blobs.Has(digestOf(large)); here != (room == 0) || len(parts(t, l.Blobs)) != 0 {
				t.Errorf("it is here: %v; of parts there are %v", here, parts(t, l.Blobs))
			}
			if status, body, _ := get(t, machines(t, l).URL+wire.PathBlob+string(digestOf("absent")), ""); status != http.StatusNotFound || !strings.Contains(body, "no replica has it") {
				t.Errorf("what nobody has: %d, %s", status, body)
			}
		})
	}
}

// breaksOff sends a blob only up to a byte, once, and then breaks off.
func breaksOff(h http.Handler, at int) http.Handler {
	var once sync.Once
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			once.Do(func() {
				w.Header().Set("Content-Length", fmt.Sprint(len(large)))
				w.Write([]byte(large[:at])) //nolint // the other side sees less
				panic(http.ErrAbortHandler)
			})
		}
		h.ServeHTTP(w, r)
	})
}

// A replica that breaks off while it is read through is followed by another one, in
// the same answer.
func TestThroughAnotherReplica(t *testing.T) {
	for name, room := range map[string]int64{"room": 0, "no room": math.MaxInt64 >> 1} {
		t.Run(name, func(t *testing.T) {
			l := among(t, map[string]http.Handler{"a": breaksOff(serving(t, large), 12345), "b": serving(t, large)})
			l.KeepFree = room
			status, body, err := get(t, machines(t, l).URL+wire.PathBlob+string(digestOf(large)), "")
			if status != http.StatusOK || body != large || err != nil {
				t.Errorf("%d, %d bytes, %v", status, len(body), err)
			}
		})
	}
}

// Other bytes than were asked for are never sent whole.
func TestOtherBytesThrough(t *testing.T) {
	other := "x" + large[1:]
	l := among(t, map[string]http.Handler{"a": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(other))
	})})
	if _, body, err := get(t, machines(t, l).URL+wire.PathBlob+string(digestOf(large)), ""); err == nil || len(body) >= len(large) {
		t.Errorf("%d bytes, %v", len(body), err)
	}
	if l.Blobs.Has(digestOf(large)) {
		t.Error("it is kept")
	}
}

// A client that gives up ends what was asked for it, at the other replica, too.
func TestWhoGivesUp(t *testing.T) {
	for name, room := range map[string]int64{"room": 0, "no room": math.MaxInt64 >> 1} {
		t.Run(name, func(t *testing.T) {
			asked, gone := make(chan struct{}), make(chan struct{})
			l := among(t, map[string]http.Handler{"a": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Length", "100")
				if r.Method == http.MethodGet {
					w.(http.Flusher).Flush()
					close(asked)
					<-r.Context().Done()
					close(gone)
				}
			})})
			l.KeepFree = room
			ctx, giveUp := context.WithCancel(t.Context())
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, machines(t, l).URL+wire.PathBlob+string(digestOf("x")), nil)
			if err != nil {
				t.Fatal(err)
			}
			answered := make(chan error, 1)
			go func() {
				a, err := http.DefaultClient.Do(r)
				if err == nil {
					_, err = io.Copy(io.Discard, a.Body)
					err = errors.Join(err, a.Body.Close())
				}
				answered <- err
			}()
			<-asked
			giveUp()
			if err := <-answered; err == nil {
				t.Error("it was answered")
			}
			<-gone
			until(t, "nothing is fetched any more", func() bool { return l.fetching() == 0 })
		})
	}
}

// puller is a loop for who only pulls.
type puller struct{ *Loop }

func (puller) KeepImage(context.Context, blob.Digest) error { return errors.New("nobody pushes") }

// An image can be pulled from a replica that has nothing of it yet.
func TestPulledThrough(t *testing.T) {
	i, blobs := image(t, large)
	i.Ref = "lab/app:v1"
	l := among(t, map[string]http.Handler{"a": serving(t, slices.Collect(maps.Values(blobs))...)})
	l.KeepFree = math.MaxInt64 >> 1
	s := opened(t)
	for _, c := range []state.Command{state.ClusterCreate{ID: "c-1", Generation: 1, SetupHash: []byte("code")}, state.ImagePublish{Images: []machine.Image{i}}} {
		if _, err := s.Propose(t.Context(), "test", c); err != nil {
			t.Fatal(err)
		}
	}
	g := httptest.NewServer(registry.New(registry.Config{Store: s, Blobs: l.Blobs, Others: puller{l}, Logger: l.Logger, Now: time.Now}))
	defer g.Close()
	manifest := blobs[blob.Digest(i.Digest)]
	for path, want := range map[string]string{
		"manifests/v1": manifest, "manifests/" + i.Digest: manifest, "blobs/" + string(digestOf(large)): large,
	} {
		if status, body, err := get(t, g.URL+"/v2/lab/app/"+path, ""); status != http.StatusOK || body != want || err != nil {
			t.Errorf("%s: %d, %d bytes, %v", path, status, len(body), err)
		}
	}
	if status, body, err := get(t, g.URL+"/v2/lab/app/blobs/"+string(digestOf(large)), "bytes=8-15"); status != http.StatusPartialContent || body != large[8:16] || err != nil {
		t.Errorf("a part: %d, %q, %v", status, body, err)
	}
	if status, _, _ := get(t, g.URL+"/v2/lab/app/blobs/"+string(digestOf("absent")), ""); status != http.StatusNotFound {
		t.Errorf("what nobody has: %d", status)
	}
}

// A small blob is compared with its digest, also where it only comes through.
func TestDocument(t *testing.T) {
	l := among(t, map[string]http.Handler{"a": serving(t, "manifest")})
	l.KeepFree = math.MaxInt64 >> 1
	if b, err := l.Document(t.Context(), digestOf("manifest")); string(b) != "manifest" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := l.Document(t.Context(), digestOf("absent")); !errors.Is(err, ErrNowhere) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what nobody has: %v", err)
	}
}

// A replica that is to keep an image has all of it when it says so, and else says why.
func TestKeptImage(t *testing.T) {
	i, blobs := image(t, large, "another layer")
	all := slices.Collect(maps.Values(blobs))
	follower := among(t, map[string]http.Handler{"pusher": serving(t, all...)})
	pusher := among(t, map[string]http.Handler{"follower": (&peerapi.Server{Fetch: follower.FetchImage}).Members()})
	client := pusher.Source.(*replicas).Client
	if err := client.KeepImage(t.Context(), "follower", blob.Digest(i.Digest)); err != nil {
		t.Fatal(err)
	}
	for d := range blobs {
		if !follower.Blobs.Has(d) {
			t.Errorf("%s is not there", d)
		}
	}
	if err := client.KeepImage(t.Context(), "follower", digestOf("absent")); err == nil || !strings.Contains(err.Error(), "no replica has it") {
		t.Errorf("what nobody has: %v", err)
	}
	follower.KeepFree = math.MaxInt64 >> 1
	other, more := image(t, "a layer of another")
	follower.Source = among(t, map[string]http.Handler{"pusher": serving(t, slices.Collect(maps.Values(more))...)}).Source
	if err := client.KeepImage(t.Context(), "follower", blob.Digest(other.Digest)); err == nil || !strings.Contains(err.Error(), "no room") {
		t.Errorf("a full disk: %v", err)
	}
}
