package replica

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/rackseed/rackseed/services/api"
	"github.com/rackseed/rackseed/services/durable"
	"github.com/rackseed/rackseed/services/state"
)

const (
	keptBackups = 2
	maxBackup   = 1 << 30 // bytes
	// backupEvery is after what time another one is written, whatever happened.
	backupEvery = 24 * time.Hour
)

// keepBackup writes a backup of the state, gzipped as one that is saved elsewhere, and
// drops older ones.
func (r *replica) keepBackup(index uint64, from io.Reader) error {
	r.backingUp.Lock()
	defer r.backingUp.Unlock()
	dir := filepath.Join(r.Data, "backup")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	n, err := io.Copy(z, io.LimitReader(from, maxBackup+1))
	if err == nil && n > maxBackup {
		err = fmt.Errorf("it has over %d bytes", maxBackup)
	}
	if err := errors.Join(err, z.Close()); err != nil {
		return fmt.Errorf("backup of entry %d: %w", index, err)
	}
	// By number and by name: in the same order.
	if err := durable.WriteFile(filepath.Join(dir, fmt.Sprintf("state-%020d", index)), packed.Bytes(), 0o600); err != nil {
		return fmt.Errorf("backup of entry %d: %w", index, err)
	}
	all, err := filepath.Glob(filepath.Join(dir, "state-*"))
	if err != nil {
		return err
	}
	cut, err := filepath.Glob(filepath.Join(dir, ".state-*")) // by a crash
	if err != nil {
		return err
	}
	slices.Sort(all)
	for _, old := range append(cut, all[:max(0, len(all)-keptBackups)]...) {
		if err := os.Remove(old); err != nil {
			return err
		}
	}
	return nil
}

// keepBackups has a backup on this replica's disk that opens: a new one is written when
// the secrets are sealed under a new data key, when a recovery key was made, and each day.
func (r *replica) keepBackups(ctx context.Context, tell report) error {
	store := r.store.Load()
	tell(false, "catching up with the leader", api.HealthWaiting)
	if err := store.CatchUp(ctx); err != nil {
		return err
	}
	has, err := os.ReadFile(r.backupMark())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for ctx.Err() == nil {
		view := store.View()
		changed := view.Changed("keyring")
		due, err := r.backupDue(time.Now())
		if err != nil {
			return err
		}
		if mark := view.Keyring().Mark(); mark != "" && (mark != string(has) || due <= 0) {
			if err := r.backUp(store, mark); err != nil {
				return err
			}
			has, due = []byte(mark), backupEvery
		}
		mark := string(has)
		r.backup.Store(&mark)
		tell(true, "the newest backup on this replica's disk has the secrets as they are sealed now, and is not older than a day")
		again := time.NewTimer(max(due, time.Minute))
		select {
		case <-changed:
		case <-again.C:
		case <-ctx.Done():
		}
		again.Stop()
	}
	return nil
}

// backupDue is how long the newest backup on this replica's disk is new enough, by its
// file's time; one that is from the future is not.
func (r *replica) backupDue(now time.Time) (time.Duration, error) {
	all, err := filepath.Glob(filepath.Join(r.Data, "backup", "state-*"))
	if err != nil || len(all) == 0 {
		return 0, err
	}
	newest, err := os.Stat(slices.Max(all))
	if err != nil {
		return 0, err
	}
	age := now.Sub(newest.ModTime())
	if age < 0 {
		return 0, nil
	}
	return backupEvery - age, nil
}

// backUp writes a backup of the state to this replica's disk, and then what it has.
func (r *replica) backUp(store *state.Store, mark string) error {
	var text bytes.Buffer
	index, err := store.Export(&text)
	if err == nil {
		err = r.keepBackup(index, &text)
	}
	if err == nil {
		err = durable.WriteFile(r.backupMark(), []byte(mark), 0o600)
	}
	if err != nil {
		return fmt.Errorf("a backup of the state, for this replica's disk: %w", err)
	}
	return nil
}

// backupMark is the file that says what this replica's own newest backup has.
func (r *replica) backupMark() string { return filepath.Join(r.Data, "backup", "mark") }
