package replica

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/api"
	"github.com/rackseed/rackseed/services/identity"
	"github.com/rackseed/rackseed/services/keyring"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/recovery"
	"github.com/rackseed/rackseed/services/state"
)

// backups are a replica's, the oldest first.
func backups(t *testing.T, data string) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(data, "backup", "state-*"))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	return all
}

// newestOpens waits until the newest backup in a folder is one that a recovery key
// opens.
func newestOpens(t *testing.T, data, key string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	opens := func() error {
		all := backups(t, data)
		if len(all) == 0 {
			return errors.New("there is none")
		}
		f, err := os.Open(all[len(all)-1])
		if err != nil {
			return err
		}
		defer f.Close()
		past, err := state.ReadBackup(f)
		if err != nil {
			return err
		}
		k := past.View.Keyring()
		keys, err := keyring.Recover(key, k.Copy)
		if err == nil && !slices.ContainsFunc(keys, func(x keyring.Key) bool { return x.ID == k.Current }) {
			err = errors.New("the current key is not in it")
		}
		return errors.Join(err, past.Close())
	}
	for {
		err := opens()
		if err == nil {
			return
		}
		if !pause(ctx, 10*time.Millisecond) {
			t.Fatal(err)
		}
	}
}

// reopened is a replica that was stopped, with its ring and its state and nothing that
// it serves.
func reopened(t *testing.T, data string) *replica {
	t.Helper()
	own, err := identity.Load(filepath.Join(data, "identity"))
	if err != nil {
		t.Fatal(err)
	}
	ring, err := keyring.Open(filepath.Join(data, "keyring"), keyring.Protectors(data)...)
	if err != nil {
		t.Fatal(err)
	}
	store, err := state.Open(state.Config{Dir: filepath.Join(data, "state"), ID: own.ID, Keys: ring})
	if err != nil {
		t.Fatal(err)
	}
	x := &replica{Config: Config{Data: data, Now: time.Now}.filled(), own: own, keys: ring}
	x.store.Store(store)
	return x
}

// A recovery key opens the newest backup, also where it was made, or replaced, after the
// last one was written; and it is enough to go on from that backup alone.
func TestBackupOpens(t *testing.T) {
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	if err := os.WriteFile(filepath.Join(dir, "site.yaml"), []byte(goodSite), 0o600); err != nil {
		t.Fatal(err)
	}
	r := start(t, dir, false)
	var login api.Login
	if status := r.ask("POST", "/api/setup", "", api.SetupRequest{Code: r.code, Name: "ann", Password: "correct horse"}, &login); status != http.StatusOK {
		t.Fatalf("setup: %d", status)
	}
	var key api.RecoveryKey
	for n := range 2 {
		if status := r.ask("POST", "/api/recovery-key", login.Token, api.RecoveryKeyRequest{Replace: n > 0}, &key); status != http.StatusOK {
			t.Fatalf("recovery key: %d", status)
		}
		newestOpens(t, data, key.Key)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}

	x := reopened(t, data)
	store := x.store.Load()
	if err := store.WaitLeader(t.Context()); err != nil {
		t.Fatal(errors.Join(err, store.Close()))
	}
	before := backups(t, data)
	ctx, stop := context.WithCancel(t.Context())
	kept := make(chan error, 1)
	go func() { kept <- x.keepBackups(ctx, func(bool, string, ...api.HealthKind) {}) }()
	// A new data key, and the old one is nowhere any more.
	if err := (hands{x}).Rekey(t.Context(), machine.Handoff{ID: "h-1"}); err != nil {
		t.Fatal(err)
	}
	if err := x.forgetKeys(); err != nil {
		t.Fatal(err)
	}
	for mark := store.View().Keyring().Mark(); ; {
		if has := x.backup.Load(); has != nil && *has == mark {
			break
		}
		if !pause(t.Context(), 10*time.Millisecond) {
			t.Fatal("no backup was written")
		}
	}
	newestOpens(t, data, key.Key)
	stop()
	if err := <-kept; err != nil {
		t.Error(err)
	}
	after := backups(t, data)
	if len(before) != keptBackups || len(after) != keptBackups || after[0] != before[1] {
		t.Errorf("before %v, after %v", before, after)
	}
	// Started again it writes none: the newest one is as good.
	again, over := context.WithCancel(t.Context())
	x.backup.Store(nil)
	err := x.keepBackups(again, func(ok bool, _ string, _ ...api.HealthKind) {
		if ok {
			over()
		}
	})
	if err != nil || !slices.Equal(backups(t, data), after) {
		t.Errorf("started again: %v, %v", backups(t, data), err)
	}
	// A day later it does, and when the newest one is from a clock that was ahead.
	for _, at := range []time.Duration{-backupEvery, time.Hour} {
		if _, err := store.Propose(t.Context(), "test", state.DiscoveryWindow{Until: time.Now()}); err != nil {
			t.Fatal(err)
		}
		newest := backups(t, data)[1]
		if err := os.Chtimes(newest, time.Time{}, time.Now().Add(at)); err != nil {
			t.Fatal(err)
		}
		again, over := context.WithCancel(t.Context())
		err := x.keepBackups(again, func(ok bool, _ string, _ ...api.HealthKind) {
			if ok {
				over()
			}
		})
		if all := backups(t, data); err != nil || all[0] != newest {
			t.Errorf("the newest is %v old: %v, %v", -at, all, err)
		}
	}
	after = backups(t, data)
	current := store.View().Keyring().Current
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	// Before a leader is known it has a state that its ring opens.
	started := reopened(t, data)
	if k := started.store.Load().View().Keyring(); k.Current != current || !started.keys.Has(k.Keys()...) {
		t.Errorf("started again: %+v, of which the ring has %v", k, started.keys.IDs())
	}
	if err := started.store.Load().Close(); err != nil {
		t.Fatal(err)
	}

	empty := t.TempDir()
	lost, err := recovery.Begin(t.Context(), recovery.Options{Data: empty, From: after[1], RecoveryKey: key.Key, Release: "v1", Now: time.Now, Logger: slog.New(slog.DiscardHandler)})
	if err == nil {
		err = errors.Join(lost.Do(t.Context(), "root@lab"), lost.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(empty, "keyring", "keyring.json")); errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
