package client

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// open serves h over TLS and gives a client of it.
func open(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	sum := sha256.Sum256(s.Certificate().Raw)
	c, err := New(s.URL, Colons(sum[:]), "token of ann")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestDownloadIsWholeOrAnError: what breaks off is never taken for all.
func TestDownloadIsWholeOrAnError(t *testing.T) {
	c := open(t, func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.WriteString(w, strings.Repeat("x", 1<<20)); err != nil {
			t.Error(err)
		}
		if r.URL.Path == "/broken" {
			panic(http.ErrAbortHandler)
		}
	})
	var b bytes.Buffer
	if n, err := c.Download(t.Context(), "/whole", &b); err != nil || n != 1<<20 || b.Len() != 1<<20 {
		t.Errorf("whole: %d bytes, %v", n, err)
	}
	if _, err := c.Download(t.Context(), "/broken", io.Discard); err == nil || !strings.Contains(err.Error(), "broken off after ") {
		t.Errorf("broken: %v", err)
	}
}

// TestTheTokenGoesToOneServer: another client's requests get the token only if
// they go to the boot service, wherever that sends it.
func TestTheTokenGoesToOneServer(t *testing.T) {
	stolen := make(chan string, 1)
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		stolen <- r.Header.Get("Authorization")
	}))
	t.Cleanup(other.Close)
	c := open(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer token of ann" {
			w.WriteHeader(http.StatusUnauthorized)
		}
		if r.URL.Path == "/away" {
			http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
		}
	})
	through := &http.Client{Transport: c.Transport()}
	resp, err := through.Get(c.Server().String() + "/here")
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("here: %v, %v", resp, err)
	}
	if _, err := through.Get(c.Server().String() + "/away"); err == nil || !strings.Contains(err.Error(), "is asked") {
		t.Errorf("away: %v", err)
	}
	if _, err := c.Raw(t.Context(), http.MethodGet, "/away", nil, nil); err == nil || !strings.Contains(err.Error(), "sends us away") {
		t.Errorf("away, by the API's own client: %v", err)
	}
	if _, err := c.Download(t.Context(), "/away", io.Discard); err == nil {
		t.Error("a download was sent away")
	}
	select {
	case token := <-stolen:
		t.Errorf("another server was asked, with %q", token)
	default:
	}
}

func TestErrors(t *testing.T) {
	c, err := New("127.0.0.1:1", strings.Repeat("00", 32), "")
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Raw(t.Context(), http.MethodGet, "/", nil, nil)
	var silence *NoAnswerError
	if !errors.As(err, &silence) || silence.Server != "https://127.0.0.1:1" {
		t.Errorf("nobody there: %v", err)
	}
	for _, f := range []string{"", "AB:CD", strings.Repeat("0g", 32)} {
		if _, err := New("127.0.0.1", f, ""); err == nil || !strings.Contains(err.Error(), "with or without colons") {
			t.Errorf("fingerprint %q: %v", f, err)
		}
	}
	for _, s := range []string{"http://192.0.2.1", "https://", "ftp://x"} {
		if _, err := New(s, strings.Repeat("00", 32), ""); err == nil || !strings.Contains(err.Error(), "https://192.0.2.1") {
			t.Errorf("server %q: %v", s, err)
		}
	}
}
