package events

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/wire"
)

// large is an output of 64 KiB, and of a block for its line ends, that begins
// at line first.
func large(stream string, first uint64) wire.Output {
	lines := make([]string, 8)
	for i := range lines {
		lines[i] = fmt.Sprintf("%s %06d ", stream, first) + strings.Repeat("x", MaxLine-11)
	}
	return wire.Output{Stream: stream, First: first, Lines: lines}
}

const largeSize = 64<<10 + block

// send appends and returns the next line and the error.
func send(t *testing.T, l *Log, of machine.ID, stream string, next uint64) (uint64, error) {
	t.Helper()
	return l.Append(t.Context(), of, large(stream, next))
}

func propose(t *testing.T, store *state.Store, c state.Command) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := store.Propose(ctx, "test", c); err != nil {
		t.Fatal(err)
	}
}

// approved makes the machine one that somebody approved.
func approved(t *testing.T, store *state.Store) {
	t.Helper()
	propose(t, store, state.MachineInvite{Machine: of, Until: time.Now().Add(time.Hour)})
	propose(t, store, state.SessionOpen{
		Session:   machine.Session{ID: "s-9", SignKey: make([]byte, 32), SealKey: make([]byte, 32)},
		Inventory: machine.Inventory{Firmware: "uefi", BootMAC: "52:54:00:00:00:01", NICs: []machine.NIC{{MAC: "52:54:00:00:00:01"}}},
	})
	propose(t, store, state.MachineApprove{
		Machine: of, Session: "s-9", Intent: "i-1", Name: "node-1", Bootstrap: "b-1",
		Profile: machine.Profile{Name: "worker", Role: machine.RoleWorker}, Address: netip.MustParseAddr("192.0.2.9"),
		Image: "sha256:" + strings.Repeat("ab", 32), NodeKey: make([]byte, 32),
	})
}

func onDisk(t *testing.T, l *Log, of machine.ID) int64 {
	t.Helper()
	bytes, err := l.count(of)
	if err != nil {
		t.Fatal(err)
	}
	return bytes
}

// A machine that nobody approved is stopped at its budget; what it sent in an
// older boot makes room, and an approval makes more.
func TestStrangerBudget(t *testing.T) {
	l, store, _ := newLog(t)
	l.budgets.stranger = 2*largeSize - 1
	next, err := send(t, l, of, "s-1", 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := send(t, l, of, "s-1", next); !errors.Is(err, ErrBudget) {
		t.Fatalf("over the budget: %v", err)
	}
	if len(store.View().Chunks(of, 0, 0)) != 1 || onDisk(t, l, of) > l.budgets.stranger {
		t.Errorf("%d chunks, %d bytes", len(store.View().Chunks(of, 0, 0)), onDisk(t, l, of))
	}
	second, err := send(t, l, of, "s-2", 1)
	if err != nil {
		t.Fatalf("after a restart: %v", err)
	}
	chunks := store.View().Chunks(of, 0, 0)
	if _, err := l.Read(t.Context(), chunks[0]); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the older boot's: %v", err)
	}
	if _, err := l.Read(t.Context(), chunks[1]); err != nil {
		t.Errorf("the newer boot's: %v", err)
	}
	if _, err := send(t, l, of, "s-2", second); !errors.Is(err, ErrBudget) {
		t.Errorf("over the budget again: %v", err)
	}
	approved(t, store)
	if _, err := send(t, l, of, "s-2", second); err != nil {
		t.Errorf("approved: %v", err)
	}
	if l.usage.strangers != 0 {
		t.Errorf("%d bytes are counted as strangers'", l.usage.strangers)
	}
}

// Strangers together have a budget, which an approved machine is not under.
func TestStrangersBudget(t *testing.T) {
	l, store, _ := newLog(t)
	l.usage.set("m-other", used{bytes: l.budgets.strangers - largeSize + 1, stranger: true})
	if _, err := send(t, l, of, "s-1", 1); !errors.Is(err, ErrBudget) {
		t.Errorf("over all strangers' budget: %v", err)
	}
	approved(t, store)
	if _, err := send(t, l, of, "s-1", 1); err != nil {
		t.Errorf("approved: %v", err)
	}
}

// An approved machine's newest output is kept, within its budget.
func TestMachineBudget(t *testing.T) {
	l, store, _ := newLog(t)
	approved(t, store)
	l.budgets.machine = 16 * largeSize
	next := uint64(1)
	for range 20 {
		var err error
		if next, err = send(t, l, of, "s-9", next); err != nil {
			t.Fatal(err)
		}
	}
	if bytes := onDisk(t, l, of); bytes != 15*largeSize { // five went at the seventeenth
		t.Errorf("%d bytes", bytes)
	}
	chunks := store.View().Chunks(of, 0, 0)
	if _, err := l.Read(t.Context(), chunks[0]); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the oldest: %v", err)
	}
	if _, err := l.Read(t.Context(), chunks[len(chunks)-1]); err != nil {
		t.Errorf("the newest: %v", err)
	}
}

// What is free at the end is not output's.
func TestReserve(t *testing.T) {
	l, store, files := newLog(t)
	ask := wire.Output{Stream: "s-1", First: 1, Lines: numbered(1, 2)}
	for _, c := range []struct {
		free, all uint64
		want      error
	}{
		{reserveMost - 1, 8 << 30, ErrSpace},
		{90 << 20, 1 << 30, ErrSpace}, // a small one: a tenth
		{200 << 20, 1 << 30, nil},
	} {
		files.space = func() (free, all uint64, err error) { return c.free, c.all, nil }
		if _, err := l.Append(t.Context(), of, ask); !errors.Is(err, c.want) {
			t.Errorf("%d of %d bytes free: %v", c.free, c.all, err)
		}
		if ok, text := l.health(); ok != (c.want == nil) {
			t.Errorf("%d of %d bytes free: %v, %s", c.free, c.all, ok, text)
		}
	}
	if n := len(store.View().Chunks(of, 0, 0)); n != 1 {
		t.Errorf("%d chunks", n)
	}
}

// The real file system answers.
func TestSpace(t *testing.T) {
	files, err := OpenFiles(filepath.Join(t.TempDir(), "output"))
	if err != nil {
		t.Fatal(err)
	}
	if free, all, err := files.space(); err != nil || all == 0 || free > all {
		t.Errorf("%d of %d bytes, %v", free, all, err)
	}
}

func TestSweep(t *testing.T) {
	l, store, files := newLog(t)
	if _, err := l.Append(t.Context(), of, wire.Output{Stream: "s-1", First: 1, Lines: numbered(1, 2)}); err != nil {
		t.Fatal(err)
	}
	put := func(of machine.ID, text string) string {
		t.Helper()
		digest, err := files.put(of, []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		path, err := files.name(of, digest)
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	named, err := files.name(of, store.View().Chunks(of, 0, 0)[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	loose, forgotten := put(of, "never committed\n"), put("m-forgotten", "of nobody\n")
	left := filepath.Join(files.dir, string(of), ".half-1")
	if err := os.WriteFile(left, []byte("by a crash"), 0o600); err != nil {
		t.Fatal(err)
	}
	there := func(want bool, paths ...string) {
		t.Helper()
		for _, p := range paths {
			if _, err := os.Stat(p); want != (err == nil) || !want && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: %v", p, err)
			}
		}
	}
	sweep := func(after time.Duration) {
		t.Helper()
		if err := l.Sweep(t.Context(), time.Now().Add(after)); err != nil {
			t.Fatal(err)
		}
	}
	sweep(time.Minute) // each may be committed yet
	there(true, named, loose, forgotten, left)
	if bytes, ok := l.usage.get("m-forgotten"); !ok || bytes != block || l.usage.strangers != 4*block {
		t.Errorf("counted %d bytes of %d", bytes, l.usage.strangers)
	}
	sweep(sweepAge + time.Minute)
	there(true, named)
	there(false, loose, left, forgotten, filepath.Dir(forgotten))
	if l.usage.strangers != block {
		t.Errorf("%d bytes are counted", l.usage.strangers)
	}
	propose(t, store, state.MachineForget{Machine: of})
	sweep(sweepAge + time.Minute)
	there(false, named, filepath.Dir(named))
	if len(l.usage.of) != 0 || l.usage.strangers != 0 {
		t.Errorf("counted: %+v", l.usage.of)
	}
}

// A chunk that is written again is in use, however old its file is.
func TestWrittenAgain(t *testing.T) {
	_, _, files := newLog(t)
	digest, err := files.put(of, []byte("again\n"))
	if err != nil {
		t.Fatal(err)
	}
	path, err := files.name(of, digest)
	if err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	if _, err := files.put(of, []byte("again\n")); err != nil {
		t.Fatal(err)
	}
	if list, err := files.list(of); err != nil || len(list) != 1 || list[0].written.Sub(old) < time.Minute {
		t.Errorf("%+v, %v", list, err)
	}
}
