//go:build host

package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/kube/internal/control"
	"github.com/rackseed/rackseed/kube/pki"
)

// TestClient meets a real etcd as kubeadm sets it up: who has no certificate of
// its authority is refused, members are listed and removed.
func TestClient(t *testing.T) {
	p := control.New(t)
	client, peer := "https://127.0.0.1:"+control.FreePort(t), "https://127.0.0.1:"+control.FreePort(t)
	control.Spawn(t, "etcd", control.Program(t, "RACKSEED_ETCD"), "--name=node-1", "--data-dir", t.TempDir(),
		"--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "node-1="+peer,
		"--client-cert-auth", "--cert-file", p.PKI("etcd/server.crt"), "--key-file", p.PKI("etcd/server.key"), "--trusted-ca-file", p.PKI("etcd/ca.crt"),
		"--peer-client-cert-auth", "--peer-cert-file", p.PKI("etcd/peer.crt"), "--peer-key-file", p.PKI("etcd/peer.key"), "--peer-trusted-ca-file", p.PKI("etcd/ca.crt"),
		"--unsafe-no-fsync", "--log-level", "error")
	with := func(authority string) Client {
		cert, key, err := pki.ClientCertificate(p.Secrets["pki/"+authority+".crt"], p.Secrets["pki/"+authority+".key"], time.Now(), pki.Client{User: "test", Lifetime: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(p.Secrets["pki/etcd/ca.crt"])
		return Client{Endpoints: []string{"https://127.0.0.1:1", client}, TLS: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}}
	}
	c := with("etcd/ca")
	var list []Member
	control.Eventually(t, "etcd answers", func(ctx context.Context) (err error) {
		list, err = c.Members(ctx)
		return err
	})
	if len(list) != 1 || list[0].Name != "node-1" || list[0].PeerURLs[0] != peer || list[0].Learner {
		t.Fatalf("%+v", list)
	}
	if _, err := with("ca").Members(t.Context()); err == nil {
		t.Error("etcd answered to a certificate of another authority")
	}

	// As kubeadm join leaves it when it is killed: added, and never begun.
	const own = "https://127.0.0.2:2380"
	if err := c.call(t.Context(), "add", map[string]any{"peerURLs": []string{own}, "isLearner": true}, &struct{}{}); err != nil {
		t.Fatal(err)
	}
	list, err := c.Members(t.Context())
	if err != nil || len(list) != 2 {
		t.Fatalf("%+v, %v", list, err)
	}
	// Nobody else can join as long as it is there.
	err = c.call(t.Context(), "add", map[string]any{"peerURLs": []string{"https://127.0.0.3:2380"}, "isLearner": true}, &struct{}{})
	if err == nil || !strings.Contains(err.Error(), "too many learner") {
		t.Errorf("a second learner: %v", err)
	}
	plan := Before(list, "https://127.0.0.3:2380", false)
	if len(plan.Remove) != 1 {
		t.Fatalf("%+v", plan)
	}
	for range 2 { // the answer was lost
		if err := c.Remove(t.Context(), plan.Remove[0]); err != nil {
			t.Fatal(err)
		}
	}
	if list, err := c.Members(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("%+v, %v", list, err)
	}
	if err := c.call(t.Context(), "add", map[string]any{"peerURLs": []string{"https://127.0.0.3:2380"}, "isLearner": true}, &struct{}{}); err != nil {
		t.Error(err)
	}
}
