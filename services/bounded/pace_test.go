package bounded

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"
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
