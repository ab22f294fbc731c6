package pki

import (
	"crypto/x509"
	"encoding/pem"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
)

var now = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func TestNew(t *testing.T) {
	secrets, err := New(now)
	if err != nil {
		t.Fatal(err)
	}
	if len(secrets) != len(Names()) {
		t.Errorf("%d secrets, %d names", len(secrets), len(Names()))
	}
	for _, name := range Names() {
		if block, rest := pem.Decode(secrets[name]); block == nil || len(rest) != 0 {
			t.Errorf("%s is not one PEM block", name)
		}
	}
	for name, commonName := range map[string]string{
		"pki/ca": "kubernetes", "pki/front-proxy-ca": "front-proxy-ca", "pki/etcd/ca": "etcd-ca",
	} {
		c, err := parseCertificate(secrets[name+".crt"])
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		key, err := parseKey(secrets[name+".key"])
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !key.PublicKey.Equal(c.PublicKey) || c.Subject.CommonName != commonName || !c.IsCA {
			t.Errorf("%s: common name %s, CA %v, or another key", name, c.Subject.CommonName, c.IsCA)
		}
		if err := c.CheckSignatureFrom(c); err != nil {
			t.Errorf("%s does not sign itself: %v", name, err)
		}
		if c.NotBefore.After(now.Add(-14*time.Hour)) || c.NotAfter.Before(now.AddDate(10, 0, 0)) {
			t.Errorf("%s: valid from %s to %s", name, c.NotBefore, c.NotAfter)
		}
	}
	again, err := New(now)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range Names() {
		if string(again[name]) == string(secrets[name]) {
			t.Errorf("%s: two clusters got the same", name)
		}
	}
}

func TestAdmin(t *testing.T) {
	secrets, err := New(now)
	if err != nil {
		t.Fatal(err)
	}
	find := func(name string) ([]byte, bool) { b, ok := secrets[name]; return b, ok }
	b, err := Admin(find, "lab", "https://10.77.0.1:6443", "ann", now)
	if err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(b)
	if err != nil {
		t.Fatal(err)
	}
	if config.Host != "https://10.77.0.1:6443" || string(config.CAData) != string(secrets["pki/ca.crt"]) {
		t.Errorf("server %s, or another CA", config.Host)
	}
	c, err := parseCertificate(config.CertData)
	if err != nil {
		t.Fatal(err)
	}
	if c.Subject.CommonName != "rackseed:ann" || !slices.Equal(c.Subject.Organization, []string{AdminGroup}) {
		t.Errorf("subject %s", c.Subject)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(secrets["pki/ca.crt"])
	for at, want := range map[time.Time]bool{
		now.Add(-14 * time.Hour):       true,
		now.Add(AdminLifetime / 2):     true,
		now.Add(AdminLifetime + 1e9):   false,
		now.Add(-Backdate - time.Hour): false,
	} {
		_, err := c.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
		if (err == nil) != want {
			t.Errorf("at %s: %v", at, err)
		}
	}
	roots = x509.NewCertPool()
	roots.AppendCertsFromPEM(secrets["pki/front-proxy-ca.crt"])
	if _, err := c.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err == nil {
		t.Error("another authority vouches for it")
	}
}

func TestKubeconfigOutlivesNoAuthority(t *testing.T) {
	secrets, err := New(now)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Kubeconfig(secrets["pki/ca.crt"], secrets["pki/ca.key"], now,
		Client{Cluster: "lab", Server: "https://10.77.0.1:6443", User: "u", Lifetime: 2 * Lifetime})
	if err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(b)
	if err != nil {
		t.Fatal(err)
	}
	c, err := parseCertificate(config.CertData)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := parseCertificate(secrets["pki/ca.crt"])
	if err != nil {
		t.Fatal(err)
	}
	if !c.NotAfter.Equal(ca.NotAfter) {
		t.Errorf("it ends %s, its authority %s", c.NotAfter, ca.NotAfter)
	}
}

func TestKubeconfigRefuses(t *testing.T) {
	secrets, err := New(now)
	if err != nil {
		t.Fatal(err)
	}
	good := Client{Cluster: "lab", Server: "https://10.77.0.1:6443", User: "u", Lifetime: time.Hour}
	with := func(change func(*Client)) Client { c := good; change(&c); return c }
	ca, key := "pki/ca.crt", "pki/ca.key"
	for _, test := range []struct {
		name, ca, key string
		client        Client
		want          string
	}{
		{"plain HTTP", ca, key, with(func(c *Client) { c.Server = "http://10.77.0.1:6443" }), "https://"},
		{"no user", ca, key, with(func(c *Client) { c.User = "" }), "user name"},
		{"no lifetime", ca, key, with(func(c *Client) { c.Lifetime = 0 }), "lifetime"},
		{"another's key", ca, "pki/etcd/ca.key", good, "not the one"},
		{"a key for a certificate", key, key, good, "not a certificate"},
		{"a certificate for a key", ca, ca, good, "not an EC private key"},
	} {
		_, err := Kubeconfig(secrets[test.ca], secrets[test.key], now, test.client)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v, wanted one with %q", test.name, err, test.want)
		}
	}
	if _, err := Admin(func(string) ([]byte, bool) { return nil, false }, "lab", good.Server, "ann", now); err == nil {
		t.Error("an admin kubeconfig without an authority")
	}
}
