package client

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rackseed/rackseed/services/wire"
)

func start(t *testing.T, h http.Handler) *Client {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	sign, _, err := wire.NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	c := New(server.URL+"/", sign, slog.New(slog.DiscardHandler))
	c.pause = func(ctx context.Context, _ time.Duration) error { return ctx.Err() }
	return c
}

func blob(n int) ([]byte, wire.File) {
	random := rand.NewChaCha8([32]byte{1})
	b := make([]byte, n)
	random.Read(b)
	return b, wire.File{Name: "root.erofs", Digest: fmt.Sprintf("sha256:%x", sha256.Sum256(b)), Size: int64(n)}
}

type memory []byte

func (m memory) WriteAt(p []byte, offset int64) (int, error) { return copy(m[offset:], p), nil }

// cutter serves a blob and cuts every connection after n more bytes.
type cutter struct {
	blob    []byte
	n       int
	ranges  bool
	asked   []string
	corrupt int // transfers from the beginning to corrupt
}

func (s *cutter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.asked = append(s.asked, r.Header.Get("Range"))
	from := 0
	if s.ranges && r.Header.Get("Range") != "" {
		if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(s.blob)-1, len(s.blob)))
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(s.blob)-from))
	if from > 0 {
		w.WriteHeader(http.StatusPartialContent)
	}
	body := bytes.Clone(s.blob[from:min(len(s.blob), from+s.n)])
	if from == 0 && s.corrupt > 0 {
		s.corrupt--
		body[0]++
	}
	if _, err := w.Write(body); err != nil || len(body) < len(s.blob)-from {
		panic(http.ErrAbortHandler) // cuts the connection
	}
}

func TestFetchResumes(t *testing.T) {
	content, file := blob(5<<20 + 17)
	s := &cutter{blob: content, n: 2<<20 + 3, ranges: true}
	got, last := make(memory, len(content)), int64(0)
	err := start(t, s).Fetch(context.Background(), file, got, func(done int64) {
		if done < last {
			t.Errorf("progress went back from %d to %d", last, done)
		}
		last = done
	})
	if err != nil || !bytes.Equal(got, content) || last != file.Size {
		t.Fatalf("%v; equal: %v; progress %d", err, bytes.Equal(got, content), last)
	}
	if want := fmt.Sprint([]string{"", "bytes=2097155-", "bytes=4194310-"}); fmt.Sprint(s.asked) != want {
		t.Errorf("asked for %q, want %q", s.asked, want)
	}
}

// A boot service that restarts in the middle: the connection breaks, then
// nobody listens for some tries, then the rest is asked for.
func TestFetchOutlivesARestart(t *testing.T) {
	content, file := blob(5 << 20)
	s := &cutter{blob: content, n: 2<<20 + 3, ranges: true}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	first := &http.Server{}
	first.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := listener.Close(); err != nil {
			t.Error(err)
		}
		s.ServeHTTP(w, r)
	})
	serve := func(server *http.Server, l net.Listener) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
				t.Error(err)
			}
		}()
		t.Cleanup(func() {
			if err := server.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
				t.Error(err)
			}
			<-done
		})
	}
	serve(first, listener)
	sign, _, err := wire.NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	c := New("http://"+address, sign, slog.New(slog.NewTextHandler(writer(func(line string) { said = append(said, line) }), nil)))
	waited, longest := 0, time.Duration(0)
	c.pause = func(_ context.Context, d time.Duration) error {
		longest = max(longest, d)
		if waited++; waited == 8 { // about a minute of the real pauses
			again, err := net.Listen("tcp", address)
			if err != nil {
				return err
			}
			s.n = len(content)
			serve(&http.Server{Handler: s}, again)
		}
		return nil
	}
	got := make(memory, len(content))
	if err := c.Fetch(t.Context(), file, got, nil); err != nil || !bytes.Equal(got, content) {
		t.Fatal(err)
	}
	if want := fmt.Sprint([]string{"", "bytes=2097155-"}); fmt.Sprint(s.asked) != want || waited != 8 {
		t.Errorf("asked for %q, want %q; waited %d times", s.asked, want, waited)
	}
	if longest > 2*backoffMax {
		t.Errorf("it waited for %s at once", longest)
	}
	log := strings.Join(said, "")
	if !strings.Contains(log, "cut off after") || !strings.Contains(log, "refused") || !strings.Contains(log, "done after waiting") {
		t.Errorf("the console says: %s", log)
	}
}

type writer func(string)

func (w writer) Write(p []byte) (int, error) { w(string(p)); return len(p), nil }

func TestFetchFromAServerWithoutRanges(t *testing.T) {
	content, file := blob(1 << 20)
	s := &cutter{blob: content, n: 600 << 10}
	c := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(s.asked) == 1 {
			s.n = len(content)
		}
		s.ServeHTTP(w, r)
	}))
	got := make(memory, len(content))
	if err := c.Fetch(context.Background(), file, got, nil); err != nil || !bytes.Equal(got, content) {
		t.Fatal(err)
	}
}

func TestFetchVerifies(t *testing.T) {
	content, file := blob(3 << 20)
	got := make(memory, len(content))
	s := &cutter{blob: content, n: len(content), ranges: true, corrupt: 1}
	if err := start(t, s).Fetch(context.Background(), file, got, nil); err != nil || !bytes.Equal(got, content) {
		t.Errorf("corrupted once: %v", err)
	}
	s = &cutter{blob: content, n: len(content), ranges: true, corrupt: 2}
	if err := start(t, s).Fetch(context.Background(), file, got, nil); !errors.Is(err, errMismatch) || !strings.Contains(err.Error(), "root.erofs") {
		t.Errorf("corrupted twice: %v", err)
	}
}

type broken struct{}

func (broken) WriteAt([]byte, int64) (int, error) { return 0, errors.New("I/O error") }

func TestFetchGivesUp(t *testing.T) {
	content, file := blob(1 << 20)
	s := &cutter{blob: content, n: len(content)}
	if err := start(t, s).Fetch(context.Background(), file, broken{}, nil); !errors.Is(err, errWrite) || !strings.Contains(err.Error(), "I/O error") || len(s.asked) != 1 {
		t.Errorf("a broken disk: %v after %d requests", err, len(s.asked))
	}
	var status *StatusError
	err := start(t, http.NotFoundHandler()).Fetch(context.Background(), file, make(memory, 1<<20), nil)
	if !errors.As(err, &status) || status.Status != 404 {
		t.Errorf("a blob that is not there: %v", err)
	}
	file.Digest = "sha256:12"
	if err := start(t, s).Fetch(context.Background(), file, make(memory, 1<<20), nil); err == nil || !strings.Contains(err.Error(), "not valid") {
		t.Errorf("a bad digest: %v", err)
	}
}

// A replica that dies without closing its connections.
func TestFetchStall(t *testing.T) {
	content, file := blob(1 << 20)
	var requests atomic.Int32
	c := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if requests.Add(1) == 1 {
			w.Header().Set("Content-Length", fmt.Sprint(len(content)))
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			return
		}
		(&cutter{blob: content, n: len(content), ranges: true}).ServeHTTP(w, r)
	}))
	c.stall = 50 * time.Millisecond
	got := make(memory, len(content))
	if err := c.Fetch(context.Background(), file, got, nil); err != nil || !bytes.Equal(got, content) || requests.Load() < 2 {
		t.Errorf("%v after %d requests", err, requests.Load())
	}
}

// The disk's time is not the boot service's: only waiting for bytes counts.
func TestWatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stalled := false
		timer := time.AfterFunc(time.Second, func() { stalled = true })
		defer timer.Stop()
		from, to := io.Pipe()
		w := watched{from, timer, time.Second}
		b := make([]byte, 1)
		for _, slow := range []time.Duration{0, 900 * time.Millisecond, 900 * time.Millisecond} {
			go func() {
				time.Sleep(slow) // of the bubble's clock, as are all of these
				if _, err := to.Write([]byte("x")); err != nil {
					t.Error(err)
				}
			}()
			if _, err := w.Read(b); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Minute) // a disk that takes its time
		}
		synctest.Wait()
		if stalled {
			t.Error("a slow disk was taken for a stall")
		}
		go func() {
			time.Sleep(2 * time.Second)
			if err := to.Close(); err != nil {
				t.Error(err)
			}
		}()
		if _, err := w.Read(b); !errors.Is(err, io.EOF) {
			t.Error(err)
		}
		synctest.Wait()
		if !stalled {
			t.Error("a silence was not")
		}
	})
}

// BenchmarkFetch is an image of 64 MiB over loopback into a file.
func BenchmarkFetch(b *testing.B) {
	content, file := blob(64 << 20)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	}))
	defer server.Close()
	sign, _, err := wire.NewKeys()
	if err != nil {
		b.Fatal(err)
	}
	c := New(server.URL, sign, slog.New(slog.DiscardHandler))
	to, err := os.Create(filepath.Join(b.TempDir(), "slot"))
	if err != nil {
		b.Fatal(err)
	}
	defer to.Close()
	b.SetBytes(file.Size)
	for b.Loop() {
		if err := c.Fetch(b.Context(), file, to, nil); err != nil {
			b.Fatal(err)
		}
	}
}

func TestCalls(t *testing.T) {
	key := make(chan []byte, 1)
	c := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, k, err := wire.Verify(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
		switch r.Method + " " + r.URL.RequestURI() {
		case "POST " + wire.PathOutput:
			key <- k
			fmt.Fprintf(w, `{"next":%d}`, 2+bytes.Count(body, []byte("x")))
		case "GET " + wire.PathOrder + "?wait=25s":
			fmt.Fprint(w, `{"kind":"wait","reason":"r"}`)
		case "POST " + wire.PathClaim:
			w.WriteHeader(http.StatusConflict)
			fmt.Fprint(w, `{"error":"the intent was revoked"}`)
		case "POST " + wire.PathReport:
			w.WriteHeader(http.StatusNoContent)
		default:
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	ctx := context.Background()
	if next, err := c.Output(ctx, wire.Output{First: 1, Lines: []string{"x", "x"}}); err != nil || next != 4 {
		t.Errorf("output: %d, %v", next, err)
	}
	if k := <-key; !bytes.Equal(k, c.key[32:]) {
		t.Error("it was signed by another key")
	}
	if o, err := c.Order(ctx, 25*time.Second); err != nil || o.Kind != wire.OrderWait || o.Reason != "r" {
		t.Errorf("order: %+v, %v", o, err)
	}
	if err := c.Claim(ctx, wire.ClaimRequest{}); !Permanent(err) || !strings.Contains(err.Error(), "409: the intent was revoked") {
		t.Errorf("claim: %v", err)
	}
	if err := c.Report(ctx, wire.Report{}); err != nil {
		t.Errorf("report: %v", err)
	}
	if _, err := c.Time(ctx); err == nil || Permanent(err) {
		t.Errorf("time: %v must be tried again", err)
	}
}

func TestRetry(t *testing.T) {
	c := start(t, http.NotFoundHandler())
	tries := 0
	err := c.Retry(context.Background(), "x", Permanent, func(context.Context) error {
		if tries++; tries < 3 {
			return &StatusError{503, "no leader"}
		}
		return nil
	})
	if err != nil || tries != 3 {
		t.Errorf("%v after %d tries", err, tries)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	err = c.Retry(ctx, "x", Permanent, func(context.Context) error {
		cancel(errors.New("revoked"))
		return errors.New("unreachable")
	})
	if err == nil || !strings.Contains(err.Error(), "revoked") || !strings.Contains(err.Error(), "unreachable") {
		t.Errorf("%v", err)
	}
}
