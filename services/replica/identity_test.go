package replica

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"
)

func TestConsoleCertificate(t *testing.T) {
	now := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
	key, crt, err := newConsoleCertificate(now, []string{"localhost"}, []net.IP{net.IPv4(192, 0, 2, 1)})
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(crt, key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(pair.Leaf)
	for _, name := range []string{"localhost", "192.0.2.1"} {
		for _, at := range []time.Time{now.Add(-24 * time.Hour), now.AddDate(9, 0, 0)} {
			if _, err := pair.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots, CurrentTime: at}); err != nil {
				t.Errorf("%s at %v: %v", name, at, err)
			}
		}
	}
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{DNSName: "192.0.2.9", Roots: roots, CurrentTime: now}); err == nil {
		t.Error("it is valid for an address that it was not made for")
	}
	if fp := fingerprint(pair.Certificate[0]); !regexp.MustCompile(`^([0-9A-F]{2}:){31}[0-9A-F]{2}$`).MatchString(fp) {
		t.Errorf("fingerprint %q", fp)
	}
}

func TestSetupCode(t *testing.T) {
	a, b := newSetupCode(), newSetupCode()
	if !regexp.MustCompile(`^([0-9A-HJKMNP-TV-Z]{4}-){3}[0-9A-HJKMNP-TV-Z]{4}$`).MatchString(a) {
		t.Errorf("code %q", a)
	}
	if a == b {
		t.Errorf("twice the same code %q", a)
	}
}

func TestOneLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "id")
	first, err := oneLine(path, func() string { return "one" })
	if err != nil || first != "one" {
		t.Fatalf("first: %q, %v", first, err)
	}
	again, err := oneLine(path, func() string { return "two" })
	if err != nil || again != "one" {
		t.Errorf("again: %q, %v", again, err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := oneLine(path, func() string { return "three" }); err == nil {
		t.Error("an empty file was taken for a line")
	}
}
