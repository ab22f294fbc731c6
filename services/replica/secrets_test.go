package replica

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io/fs"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/api"
	"github.com/rackseed/rackseed/services/keyring"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/peerapi"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/statetest"
)

// forms are how a secret could lie on a disk: as it is, in hex, and in base64 wherever
// it begins in what is encoded.
func forms(secret []byte) [][]byte {
	list := [][]byte{secret, []byte(hex.EncodeToString(secret))}
	for before := range 3 {
		text := base64.RawStdEncoding.EncodeToString(append(make([]byte, before), secret...))
		// What is there of it whatever stands before and after.
		list = append(list, []byte(text[(before*8+5)/6:len(text)-2]))
	}
	return list
}

// holds are the files below a folder that hold a secret.
func holds(t *testing.T, dir string, secret []byte) (list []string) {
	t.Helper()
	looked := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		for _, form := range forms(secret) {
			if bytes.Contains(text, form) {
				list = append(list, path)
				break
			}
		}
		looked++
		return err
	})
	if err != nil || looked == 0 {
		t.Fatalf("%d files: %v", looked, err)
	}
	return list
}

// After real use no secret of the cluster is in any file of a replica's folder: not in
// the log, not in a backup, not beside them; and after a new data key was made and the
// old one forgotten, the secrets are what they were.
func TestNoSecretOnDisk(t *testing.T) {
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	if err := os.WriteFile(filepath.Join(dir, "site.yaml"), []byte(goodSite), 0o600); err != nil {
		t.Fatal(err)
	}
	pki := []byte("-----BEGIN PRIVATE KEY-----\nthe cluster's own authority\n-----END PRIVATE KEY-----\n")
	r := startWith(t, dir, false, func(c *Config) {
		c.Plugins.Secrets = func(time.Time) (map[string][]byte, error) { return map[string][]byte{"pki/ca.key": pki}, nil }
	})
	var login api.Login
	if status := r.ask("POST", "/api/setup", "", api.SetupRequest{Code: r.code, Name: "ann", Password: "correct horse"}, &login); status != http.StatusOK {
		t.Fatalf("setup: %d", status)
	}
	var recovery api.RecoveryKey
	if status := r.ask("POST", "/api/recovery-key", login.Token, api.RecoveryKeyRequest{}, &recovery); status != http.StatusOK {
		t.Fatalf("recovery key: %d", status)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}

	x := reopened(t, data)
	store, ring := x.store.Load(), x.keys
	closed := false
	defer func() {
		if !closed {
			store.Close()
		}
	}()
	if err := store.WaitLeader(t.Context()); err != nil {
		t.Fatal(err)
	}
	// A node with its seed.
	seed := []byte("a node's seed, which has 32 bytes")[:32]
	sealed, err := store.View().SealSecret(state.NodeSecret("m-1"), seed)
	if err != nil {
		t.Fatal(err)
	}
	key, _ := statetest.Node("m-1", seed)
	inventory := statetest.Inventory(1)
	for _, c := range []state.Command{
		state.DiscoveryWindow{Until: time.Now().Add(time.Hour)},
		state.SessionOpen{NewID: "m-1", Session: machine.Session{ID: "s-1", SignKey: make([]byte, 32), SealKey: make([]byte, 32), Opened: time.Now()}, Inventory: inventory},
		state.MachineApprove{
			Machine: "m-1", Session: "s-1", Intent: "i-1", Bootstrap: "b-1", Name: "node-1", NodeKey: key, NodeSeed: sealed,
			Profile: machine.Profile{Name: "worker", Role: machine.RoleWorker}, Address: netip.MustParseAddr("192.0.2.9"), Image: "sha256:" + strings.Repeat("ab", 32),
		},
	} {
		if _, err := store.Propose(t.Context(), "test", c); err != nil {
			t.Fatal(err)
		}
	}
	backup := func() {
		t.Helper()
		if err := x.backUp(store, "a mark"); err != nil {
			t.Fatal(err)
		}
	}
	secrets := map[string][]byte{}
	for _, name := range []string{"pki/ca.key", peerapi.SecretKey, secretConsoleKey, state.NodeSecret("m-1")} {
		if secrets[name], err = store.View().OpenSecret(name); err != nil {
			t.Fatal(err)
		}
	}
	backup()

	before := store.View().Keyring()
	if err := (hands{x}).Rekey(t.Context(), machine.Handoff{ID: "h-1"}); err != nil {
		t.Fatal(err)
	}
	if err := x.forgetKeys(); err != nil {
		t.Fatal(err)
	}
	after := store.View().Keyring()
	if after.Current == before.Current || after.Old != "" || after.Next != "" || after.For != "h-1" || ring.Has(before.Current) || !ring.Has(after.Current) {
		t.Errorf("before %+v, after %+v; ring %v", before, after, ring.IDs())
	}
	for name, secret := range secrets {
		if got, err := store.View().OpenSecret(name); err != nil || !bytes.Equal(got, secret) {
			t.Errorf("%s after a new data key: %v", name, err)
		}
	}
	if err := (hands{x}).Rekey(t.Context(), machine.Handoff{ID: "h-1"}); err != nil || store.View().Keyring().Current != after.Current {
		t.Errorf("done twice: %v", err)
	}
	if keys, err := keyring.Recover(recovery.Key, after.Copy); err != nil || !slices.ContainsFunc(keys, func(k keyring.Key) bool { return k.ID == after.Current }) {
		t.Errorf("the recovery key does not open the new data key's copy: %v", err)
	}
	backup()
	closed = true
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}

	secrets["the recovery key"], secrets["ann's password"], secrets["ann's token"] = []byte(recovery.Key), []byte("correct horse"), []byte(login.Token)
	for _, k := range ring.Keys(after.Current) {
		secrets["the data key"] = k.Bytes
	}
	for name, secret := range secrets {
		if found := holds(t, data, secret); len(found) > 0 {
			t.Errorf("%s is in %v", name, found)
		}
	}
	// It does find what is there: in the log, in base64, and in the backup.
	if found := holds(t, data, key); len(found) < 2 {
		t.Errorf("the node's public key is only in %v", found)
	}
	// A destroyed ring is gone for good.
	if err := ring.Destroy(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(data, "keyring", "keyring.json")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
