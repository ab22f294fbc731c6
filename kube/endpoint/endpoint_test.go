package endpoint

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/freeport"
)

// allReady says that each server said that it is ready: until then whichever
// answered goes before one that was not asked yet, and keeps its clients.
func (e *Endpoint) allReady() bool {
	return !slices.ContainsFunc(e.list(), func(s server) bool { return s.standing() != 0 })
}

// authority signs what API servers show.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := authority{t: t, key: key}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return a
}

// file has the authority's certificate.
func (a authority) file() string {
	a.t.Helper()
	file := filepath.Join(a.t.TempDir(), "ca.crt")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return file
}

// server is an API server, as far as it is asked without credentials: its name at
// /, and status at /readyz. Its certificate is for names.
func (a authority) server(name string, status *atomic.Int64, names ...string) netip.AddrPort {
	a.t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour)}
	for _, n := range names {
		template.IPAddresses = append(template.IPAddresses, net.ParseIP(n))
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, a.key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/readyz" {
			w.WriteHeader(int(status.Load()))
			return
		}
		fmt.Fprintln(w, name)
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: a.key}}}
	s.StartTLS()
	a.t.Cleanup(s.Close)
	return netip.MustParseAddrPort(s.Listener.Addr().String())
}

func answering(status int64) *atomic.Int64 {
	var s atomic.Int64
	s.Store(status)
	return &s
}

func TestAsk(t *testing.T) {
	a := newAuthority(t)
	missing, torn := filepath.Join(t.TempDir(), "ca.crt"), filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(torn, []byte("-----BEGIN"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, ca, san string
		status        int64
		want          string
	}{
		{"ready", a.file(), "127.0.0.1", 200, ""},
		{"it tells nobody who is unknown", a.file(), "127.0.0.1", 401, ""},
		{"nor who may not", a.file(), "127.0.0.1", 403, ""},
		{"it starts, stops, or has lost etcd", a.file(), "127.0.0.1", 500, "500"},
		{"of another cluster", newAuthority(t).file(), "127.0.0.1", 200, "authority"},
		{"clients would not believe it", a.file(), "10.77.0.11", 200, "127.0.0.1"},
		{"the node has no authority yet", missing, "10.77.0.1", 200, ""},
		{"the authority is being written", torn, "10.77.0.1", 200, ""},
	} {
		err := ask(t.Context(), asking(test.ca), a.server("one", answering(test.status), test.san), 10*time.Second)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// TestListSurvives: it is on the disk before anybody needs it, and a bad one is
// made anew.
func TestListSurvives(t *testing.T) {
	file := filepath.Join(t.TempDir(), "rackseed", "api-servers.json")
	c := Config{Listen: "127.0.0.1:0", Node: "node-4", Service: vip, File: file, Log: quiet()}
	order := func(want ...netip.AddrPort) {
		t.Helper()
		var text []string
		for _, a := range want {
			text = append(text, a.String())
		}
		got := New(c).Order()
		slices.Sort(got)
		slices.Sort(text)
		if !slices.Equal(got, text) {
			t.Errorf("after a restart %v, want %v", got, text)
		}
	}
	order(vip)
	e := New(c)
	if err := e.Learn([]netip.AddrPort{a12, a11}); err != nil {
		t.Fatal(err)
	}
	order(a11, a12, vip)
	if err := e.Learn(nil); err != nil {
		t.Fatal(err)
	}
	order(a11, a12, vip)
	if err := e.Learn([]netip.AddrPort{a13}); err != nil {
		t.Fatal(err)
	}
	order(a13, vip)

	if err := os.WriteFile(file, []byte(`{"servers":["10.77`), 0o644); err != nil {
		t.Fatal(err)
	}
	order(vip)
	if err := New(c).Learn([]netip.AddrPort{a11}); err != nil {
		t.Fatal(err)
	}
	order(a11, vip)
}

// TestListThatCannotBeKept is used, and kept once it can be.
func TestListThatCannotBeKept(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "rackseed")
	if err := os.WriteFile(folder, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	c := Config{Listen: "127.0.0.1:0", File: filepath.Join(folder, "api-servers.json"), Log: quiet()}
	e := New(c)
	if err := e.Learn([]netip.AddrPort{a11}); err == nil || !strings.Contains(err.Error(), "tried again") {
		t.Errorf("a folder that is a file: %v", err)
	}
	if got := e.Order(); !slices.Equal(got, []string{a11.String()}) {
		t.Errorf("order %v", got)
	}
	if err := os.Remove(folder); err != nil {
		t.Fatal(err)
	}
	if err := e.Learn([]netip.AddrPort{a11}); err != nil {
		t.Error(err)
	}
	if got := New(c).Order(); !slices.Equal(got, []string{a11.String()}) {
		t.Errorf("kept %v", got)
	}
}

// TestClientsAreLedAway: the node's own API server listens on, but is not ready;
// its client's connection ends, and the next one leads to another.
func TestClientsAreLedAway(t *testing.T) {
	a := newAuthority(t)
	ownStatus := answering(200)
	first, second := a.server("own", ownStatus, "127.0.0.1"), a.server("other", answering(200), "127.0.0.1")
	port, err := freeport.Find()
	if err != nil {
		t.Fatal(err)
	}
	at := fmt.Sprintf("127.0.0.1:%d", port)
	e := New(Config{Listen: at, Own: first, File: filepath.Join(t.TempDir(), "list"), CA: a.file(), Log: quiet()})
	e.period = 30 * time.Millisecond
	e.patience = 10 * time.Second
	if err := e.Learn([]netip.AddrPort{first, second}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()

	client := func() *tls.Conn {
		t.Helper()
		for {
			c, err := tls.Dial("tcp", at, &tls.Config{InsecureSkipVerify: true})
			if err == nil {
				return c
			}
			select {
			case err := <-ended:
				t.Fatal(err)
			default:
			}
		}
	}
	who := func(c *tls.Conn) string {
		t.Helper()
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		r, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(b))
	}
	for !e.allReady() {
		select {
		case err := <-ended:
			t.Fatal(err)
		case <-time.After(time.Millisecond):
		}
	}
	c := client()
	if got := who(c); got != "own" {
		t.Fatalf("at first %s answers", got)
	}
	ownStatus.Store(500)
	if rest, _ := io.ReadAll(c); len(rest) > 0 { // until it is cut, which is an error to TLS
		t.Errorf("unasked it says %q", rest)
	}
	if got := who(client()); got != "other" {
		t.Errorf("then %s answers", got)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
