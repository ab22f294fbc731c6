//go:build host

package state

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rackseed/rackseed/services/netns"
)

func TestMain(m *testing.M) { netns.Main(m) }

// fill takes what is free in a folder's file system, to the last block.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	for block := make([]byte, 1<<20); len(block) > 0; {
		if _, err = f.Write(block); err != nil {
			block = block[:len(block)/2]
		}
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("filling up: %v", err)
	}
	return func() {
		if err := errors.Join(f.Close(), os.Remove(f.Name())); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFull fills the file system under a log and frees it again, as often as
// the log comes to another segment: first there is room in the segment, then
// none. What was acknowledged stays, and after the room is back the log goes on
// without a restart; a restart finds the same.
func TestFull(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	config := Config{ID: "r-1", Dir: filepath.Join(dir, "state"), segment: 64 << 10}
	s := open(t, config)
	want := []string{}
	next := 0
	propose := func(limit time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		text := fmt.Sprintf("%d %s", next, strings.Repeat("x", 900))
		next++
		_, err := s.Propose(ctx, "x", note(text))
		if err == nil {
			want = append(want, text)
		}
		return err
	}
	for round := range 3 {
		for range 10 {
			if err := propose(time.Minute); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
		}
		free := fill(t, dir)
		acknowledged := len(want)
		var err error
		for err == nil && len(want) < acknowledged+1000 {
			err = propose(5 * time.Second)
		}
		if !errors.Is(err, ErrUnwritable) || !errors.Is(err, unix.ENOSPC) && !strings.Contains(err.Error(), unix.ENOSPC.Error()) {
			// What failed first may be raft-wal's rotation, which it logs alone.
			if m, _ := s.Medium(); !errors.Is(m.Failed, ErrUnwritable) {
				t.Fatalf("round %d, full after %d entries: %v", round, len(want)-acknowledged, err)
			}
		}
		t.Logf("round %d: %d entries fitted into a full file system, then: %v", round, len(want)-acknowledged, err)
		equal(t, "notes while it is full", notes(s), fmt.Sprint(want))
		m, change := s.Medium()
		if m.Failed == nil {
			t.Fatal("it is told to be well")
		}
		free()
		select {
		case <-change:
		case <-within(t).Done():
			m, _ := s.Medium()
			t.Fatalf("round %d: it does not go on: %v", round, m.Failed)
		}
		if err := propose(time.Minute); err != nil {
			t.Fatal(err)
		}
		equal(t, "notes with room again", notes(s), fmt.Sprint(want))
	}
	closeStore(t, s)
	s = open(t, config)
	equal(t, "notes after a restart", notes(s), fmt.Sprint(want))
	closeStore(t, s)
}
