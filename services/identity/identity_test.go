package identity

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/keyring"
	"github.com/rackseed/rackseed/services/peer"
	"github.com/rackseed/rackseed/services/peerapi"
	"github.com/rackseed/rackseed/services/state"
)

var dataKey = keyring.NewKey()

func TestFound(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "identity")
	if _, err := Load(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty folder: %v", err)
	}
	own, err := Found(dir, dataKey)
	if err != nil {
		t.Fatal(err)
	}
	authority, err := dataKey.Open(peerapi.SecretKey, *own.AuthorityKey)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := peer.ParseAuthority(authority, own.AuthorityCrt); err != nil || !own.Founder || own.Generation != 1 {
		t.Errorf("%+v, %v", own.Name, err)
	}
	if err := errors.Join(Given(dir), Given(dir)); err != nil {
		t.Error(err)
	}
	again, err := Load(dir)
	if err != nil || again.Name != own.Name || again.AuthorityKey != nil || !again.Founder {
		t.Errorf("after a restart: %+v, %v", again.Name, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", e.Name(), info.Mode(), err)
		}
	}
	other, err := Found(filepath.Join(t.TempDir(), "other"), dataKey)
	if err != nil || other.Cluster == own.Cluster || other.ID == own.ID {
		t.Errorf("another founder: %+v, %v", other.Name, err)
	}
}

// What is spoilt is told, and is not taken for a new replica.
func TestSpoilt(t *testing.T) {
	for what, spoil := range map[string]func(dir string) error{
		"no key":      func(dir string) error { return os.Remove(filepath.Join(dir, fileKey)) },
		"half a file": func(dir string) error { return os.Truncate(filepath.Join(dir, fileIdentity), 40) },
		"another's key": func(dir string) error {
			_, key, err := peer.NewKey()
			return errors.Join(err, write(dir, fileKey, key))
		},
		"renamed": func(dir string) error {
			text, err := os.ReadFile(filepath.Join(dir, fileIdentity))
			changed := strings.Replace(string(text), `"id": "replica-`, `"id": "replica-x`, 1)
			return errors.Join(err, write(dir, fileIdentity, []byte(changed)))
		},
	} {
		dir := t.TempDir()
		if _, err := Found(dir, dataKey); err != nil {
			t.Fatal(err)
		}
		if err := spoil(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(dir); err == nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "join anew") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// serve runs a founder that takes replicas in.
func serve(t *testing.T) (*state.Store, peer.Invitation) {
	t.Helper()
	own, err := Found(t.TempDir(), dataKey)
	if err != nil {
		t.Fatal(err)
	}
	store, err := state.Open(state.Config{ID: own.ID, InMemory: true, Keys: keyring.Memory(dataKey)})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &peerapi.Server{Store: store}
	network := peer.New(peer.Config{
		Identity: own.Identity, Member: func(string) bool { return false }, Endpoint: func(string) (string, error) { return "", errors.ErrUnsupported },
		Members: server.Members(), Joins: server.Joins(), Logger: slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- network.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, store.Close()); err != nil {
			t.Error(err)
		}
	})
	crt, err := dataKey.Seal(peerapi.SecretCrt, own.AuthorityCrt)
	if err != nil {
		t.Fatal(err)
	}
	token, invite := peerapi.NewInvitation("node-1", "")
	invite.Expires = time.Now().Add(time.Minute)
	for _, c := range []state.Command{
		state.ClusterCreate{ID: own.Cluster, Generation: own.Generation, Key: dataKey.ID, Secrets: map[string]keyring.Sealed{peerapi.SecretKey: *own.AuthorityKey, peerapi.SecretCrt: crt}},
		state.ReplicaTell{ID: own.ID, Name: "appliance", Endpoint: l.Addr().String(), Key: make([]byte, 32), Release: "v1", Level: 1},
		invite,
	} {
		if _, err := store.Propose(t.Context(), "test", c); err != nil {
			t.Fatal(err)
		}
	}
	return store, peer.Invitation{Cluster: own.Cluster, Generation: own.Generation, Authority: own.AuthorityCrt, Endpoints: []string{l.Addr().String()}, Token: token}
}

func TestJoin(t *testing.T) {
	store, invitation := serve(t)
	dir := t.TempDir()
	q := peerapi.JoinRequest{Endpoint: "10.77.0.11:8300", Release: "v1", Level: 1}
	own, err := Join(t.Context(), dir, invitation, q)
	if err != nil {
		t.Fatal(err)
	}
	if own.Founder || own.Cluster != invitation.Cluster || own.Endpoints[own.ID] != q.Endpoint {
		t.Errorf("%+v", own)
	}
	if r, ok := store.View().Replica(own.ID); !ok || r.Name != "node-1" || r.Endpoint != q.Endpoint {
		t.Errorf("the cluster knows %+v", r)
	}
	// Its power went before it wrote who it is: the key was on its disk.
	if err := os.Remove(filepath.Join(dir, fileIdentity)); err != nil {
		t.Fatal(err)
	}
	again, err := Join(t.Context(), dir, invitation, q)
	if err != nil || again.ID != own.ID {
		t.Errorf("asked again: %v, %v; want %s", again.ID, err, own.ID)
	}
	// The same token on another machine.
	if _, err := Join(t.Context(), t.TempDir(), invitation, q); err == nil || !strings.Contains(err.Error(), "was used already") {
		t.Errorf("a token twice: %v", err)
	}
	if loaded, err := Load(dir); err != nil || loaded.Name != own.Name {
		t.Errorf("%+v, %v", loaded.Name, err)
	}
	if _, err := Join(t.Context(), t.TempDir(), peer.Invitation{}, q); err == nil {
		t.Error("an empty invitation")
	}
}

// Who was named stays named until this replica is alone again, and what is spoilt
// is told: it must not be taken for nobody.
func TestNamed(t *testing.T) {
	dir := t.TempDir()
	own, err := Found(dir, dataKey)
	if err != nil || len(own.Named.Endpoints) != 0 {
		t.Fatalf("%v, %v", own.Named, err)
	}
	for i, others := range []map[string]string{{"replica-1": "10.77.0.11:8300"}, {"replica-2": "10.77.0.12:8300"}, {"replica-1": "10.77.0.21:8300"}} {
		if err := Name(dir, Named{uint64(100 + i), others}); err != nil {
			t.Fatal(err)
		}
	}
	if own, err = Load(dir); err != nil || own.Named.Index != 102 || len(own.Named.Endpoints) != 2 || own.Named.Endpoints["replica-1"] != "10.77.0.21:8300" {
		t.Errorf("%v, %v", own.Named, err)
	}
	if err := os.Truncate(filepath.Join(dir, fileNamed), 5); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), fileNamed) {
		t.Errorf("half a file: %v", err)
	}
	if err := errors.Join(Unname(dir), Unname(dir)); err != nil {
		t.Error(err)
	}
	if own, err = Load(dir); err != nil || len(own.Named.Endpoints) != 0 {
		t.Errorf("%v, %v", own.Named, err)
	}
}
