package bounded

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestPaceDeadline(t *testing.T) {
	p := Pace{Stall: 30 * time.Second, Slowest: 128 << 10, Grace: time.Minute}
	began := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name        string
		after, want time.Duration // since the beginning
		moved       int64
	}{
		{"at the beginning", 0, 30 * time.Second, 32 << 10},
		{"a fast one", time.Minute, 90 * time.Second, 1 << 30},
		{"a slow one", time.Minute, 61 * time.Second, 128 << 10},
		{"a part of a large blob, slow", 2 * time.Minute, 70 * time.Second, 10 * 128 << 10},
	} {
		if got := p.deadline(began, began.Add(c.after), c.moved).Sub(began); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// A body that stands still is given up, and the answer still arrives; one that
// was read leaves no deadline behind.
func TestPaceBody(t *testing.T) {
	p := Pace{Stall: 50 * time.Millisecond, Slowest: 1, Grace: time.Hour}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, err := io.ReadAll(p.Body(w, r.Body))
		fmt.Fprint(w, errors.Is(err, os.ErrDeadlineExceeded))
	}))
	defer server.Close()
	for body, want := range map[string]string{"all": "false", "": "true"} {
		c, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n%s", body)
		a, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(a.Body)
		if err != nil || string(b) != want {
			t.Errorf("body %q: given up %s, want %s (%v)", body, b, want, err)
		}
		if err := errors.Join(a.Body.Close(), c.Close()); err != nil {
			t.Error(err)
		}
	}
}

// sendfile is a ResponseWriter that counts what it takes from files by itself.
type sendfile struct {
	http.ResponseWriter
	parts []int64
}

func (s *sendfile) ReadFrom(from io.Reader) (int64, error) {
	n, err := io.Copy(s.ResponseWriter, from)
	if _, ok := from.(*io.LimitedReader).R.(*os.File); ok {
		s.parts = append(s.parts, n)
	}
	return n, err
}

// TestPaceSendsFiles: a file is left to the kernel, in pieces, and arrives whole
// or from where it is asked for.
func TestPaceSendsFiles(t *testing.T) {
	p := Pace{Stall: time.Minute, Slowest: 1, Grace: time.Hour}
	content := bytes.Repeat([]byte("0123456789abcdef"), (2*piece+160)/16)
	path := filepath.Join(t.TempDir(), "blob")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	for header, test := range map[string]struct {
		from, to int
		parts    string
	}{
		"":               {0, len(content), fmt.Sprint([]int{piece, piece, 160})},
		"bytes=10-19":    {10, 20, "[10]"},
		"bytes=100000-":  {100000, len(content), fmt.Sprint([]int{piece, len(content) - 100000 - piece})},
		"bytes=-16":      {len(content) - 16, len(content), "[16]"},
		"bytes=0-262143": {0, piece, fmt.Sprint([]int{piece})},
	} {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		got := httptest.NewRecorder()
		w := &sendfile{ResponseWriter: got}
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Range", header)
		http.ServeContent(p.Answer(w), r, "blob.bin", time.Time{}, f)
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		if !bytes.Equal(got.Body.Bytes(), content[test.from:test.to]) || fmt.Sprint(w.parts) != test.parts {
			t.Errorf("%q: %d bytes, parts %v, want %s", header, got.Body.Len(), w.parts, test.parts)
		}
	}
}

// BenchmarkSend sends a blob over loopback as netboot does: by the kernel, and
// through a buffer of ours.
func BenchmarkSend(b *testing.B) {
	const size = 300 << 20
	path := filepath.Join(b.TempDir(), "blob")
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, size)); err != nil {
		b.Fatal(err)
	}
	p := Pace{Stall: time.Minute, Slowest: 1, Grace: time.Hour}
	for name, wrap := range map[string]func(*os.File) io.ReadSeeker{
		"sendfile": func(f *os.File) io.ReadSeeker { return f },
		"buffer":   func(f *os.File) io.ReadSeeker { return io.NewSectionReader(f, 0, size) },
	} {
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			f, err := os.Open(path)
			if err != nil {
				b.Error(err)
				return
			}
			defer f.Close()
			http.ServeContent(p.Answer(w), r, "blob.bin", time.Time{}, wrap(f))
		}))
		server.Listener = Listen(server.Listener, 64, 64)
		server.Start()
		for _, clients := range []int{1, 16} {
			b.Run(fmt.Sprintf("%s/clients=%d", name, clients), func(b *testing.B) {
				b.SetBytes(size * int64(clients))
				began := cpu(b)
				for b.Loop() {
					var all sync.WaitGroup
					for range clients {
						all.Go(func() {
							a, err := http.Get(server.URL)
							if err != nil {
								b.Error(err)
								return
							}
							n, err := io.Copy(io.Discard, a.Body)
							if err = errors.Join(err, a.Body.Close()); err != nil || n != size {
								b.Error(n, err)
							}
						})
					}
					all.Wait()
				}
				b.ReportMetric((cpu(b)-began).Seconds()/float64(b.N*clients)/(float64(size)/(1<<30)), "cpu-s/GiB")
			})
		}
		server.Close()
	}
}

// cpu is the time that this process, client and server, has used.
func cpu(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
