package state

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// What a folder holds is read without anybody leading, and as it was: also with a
// snapshot, and entries after it.
func TestReadPast(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	if _, err := ReadPast(Config{Dir: dir, ID: "r-1"}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a folder: %v", err)
	}
	for _, snapshot := range []bool{false, true} {
		s := open(t, Config{Dir: dir, ID: "r-1"})
		if _, err := s.Propose(within(t), "test", note("before")); err != nil {
			t.Fatal(err)
		}
		if snapshot {
			if err := s.raft.Snapshot().Error(); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.Propose(within(t), "test", note("after")); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadPast(Config{Dir: dir, ID: "r-1"}); err == nil || !strings.Contains(err.Error(), "another process uses this folder") {
			t.Errorf("while it is open: %v", err)
		}
		want, err := s.Hash()
		if err != nil {
			t.Fatal(err)
		}
		stored := s.Stored()
		closeStore(t, s)
		for range 2 {
			p, err := ReadPast(Config{Dir: dir, ID: "r-1"})
			if err != nil {
				t.Fatal(err)
			}
			if got, err := p.View.Hash(); err != nil || got != want || p.Last != stored.Last || !p.Alone("r-1") || p.Alone("r-2") || p.Term == 0 || p.Configured != 1 {
				t.Errorf("snapshot %v: %+v, hash %s and not %s, %v", snapshot, p, got, want, err)
			}
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}
