package events

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/wire"
)

const of = machine.ID("m-00000001")

func newLog(t *testing.T) (*Log, *state.Store, *Files) {
	t.Helper()
	store, err := state.Open(state.Config{ID: "r-1", InMemory: true, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := store.WaitLeader(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Propose(ctx, "dhcp", state.MachineSee{ID: of, MAC: "52:54:00:00:00:01", Via: "dhcp.discover"}); err != nil {
		t.Fatal(err)
	}
	files, err := OpenFiles(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	files.space = func() (free, all uint64, err error) { return 1 << 40, 1 << 40, nil }
	return New(store, files), store, files
}

func numbered(first, last int) (lines []string) {
	for i := first; i <= last; i++ {
		lines = append(lines, fmt.Sprintf("line %d", i))
	}
	return lines
}

// all is every line stored, as "stream:number text".
func all(t *testing.T, l *Log, store *state.Store) (got []string) {
	t.Helper()
	lines, err := l.Lines(t.Context(), store.View(), of, 0, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range lines {
		got = append(got, fmt.Sprintf("%s:%d %s", x.Stream, x.N, x.Text))
	}
	return got
}

func TestAppend(t *testing.T) {
	l, store, _ := newLog(t)
	for _, c := range []struct {
		stream      string
		first, last int
		next        uint64
	}{
		{"s-1", 1, 3, 4},
		{"s-1", 1, 3, 4}, // the answer was lost
		{"s-1", 2, 5, 6}, // sent again with more
		{"s-1", 8, 9, 6}, // after a gap: sent in vain, and told where to begin
		{"s-2", 1, 1, 2}, // a stream of its own
		{"s-1", 6, 9, 10},
	} {
		next, err := l.Append(t.Context(), of, wire.Output{Stream: c.stream, First: uint64(c.first), Lines: numbered(c.first, c.last)})
		if err != nil || next != c.next {
			t.Fatalf("%+v: next %d, %v", c, next, err)
		}
	}
	want := []string{"s-1:1 line 1", "s-1:2 line 2", "s-1:3 line 3", "s-1:4 line 4", "s-1:5 line 5", "s-2:1 line 1",
		"s-1:6 line 6", "s-1:7 line 7", "s-1:8 line 8", "s-1:9 line 9"}
	if got := all(t, l, store); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// A machine that sends the same lines many times at once has each stored once.
func TestAppendAtOnce(t *testing.T) {
	l, store, _ := newLog(t)
	var all_ sync.WaitGroup
	for range 8 {
		all_.Go(func() {
			for first := 1; first <= 40; first += 10 {
				out := wire.Output{Stream: "s-1", First: uint64(first), Lines: numbered(first, first+14)}
				if _, err := l.Append(context.WithoutCancel(t.Context()), of, out); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all_.Wait()
	chunks, next := store.View().Chunks(of, 0, 0), uint64(1)
	for _, c := range chunks {
		if c.First != next {
			t.Errorf("chunk %d begins with line %d, not %d", c.Seq, c.First, next)
		}
		next = c.Last + 1
	}
	if next != 46 {
		t.Errorf("%d lines", next-1)
	}
	if got := all(t, l, store); len(got) != 45 {
		t.Errorf("%d lines are read back", len(got))
	}
}

func TestAppendFails(t *testing.T) {
	l, store, files := newLog(t)
	ask := wire.Output{Stream: "s-1", First: 1, Lines: numbered(1, 2)}
	plenty := files.space
	broken := errors.New("the medium does not answer")
	files.space = func() (free, all uint64, err error) { return 0, 0, broken }
	if _, err := l.Append(t.Context(), of, ask); !errors.Is(err, broken) || !strings.Contains(err.Error(), "stream s-1: lines 1 to 2") {
		t.Errorf("a broken disk: %v", err)
	}
	if n := len(store.View().Chunks(of, 0, 0)); n != 0 {
		t.Errorf("%d chunks are known, none is on disk", n)
	}
	files.space = plenty
	if _, err := l.Append(t.Context(), of, wire.Output{Stream: "s 1", First: 1}); !errors.Is(err, ErrRequest) {
		t.Errorf("a bad stream: %v", err)
	}
	var refused *state.Refusal
	if _, err := l.Append(t.Context(), "m-nobody", ask); !errors.As(err, &refused) {
		t.Errorf("an unknown machine: %v", err)
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.Append(canceled, of, ask); !errors.Is(err, context.Canceled) {
		t.Errorf("a request that ended: %v", err)
	}
}

// A reader goes on after the last chunk it saw, and sees each line once.
func TestLinesResume(t *testing.T) {
	l, store, files := newLog(t)
	for first := 1; first <= 60; first += 3 {
		if _, err := l.Append(t.Context(), of, wire.Output{Stream: "s-1", First: uint64(first), Lines: numbered(first, first+2)}); err != nil {
			t.Fatal(err)
		}
	}
	// A replica that led before stored some of the lines in a chunk of its own.
	text := "line 60\nline 61\n"
	digest, err := files.put(of, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Propose(t.Context(), string(of), state.OutputStore{Chunk: machine.Chunk{
		Machine: of, Stream: "s-1", First: 60, Last: 61, Digest: digest, Size: int64(len(text))}}); err != nil {
		t.Fatal(err)
	}
	if got := all(t, l, store); len(got) != 61 {
		t.Errorf("%d lines in one read: %q", len(got), got)
	}
	var seq, n uint64
	for reads := 0; ; reads++ {
		lines, err := l.Lines(t.Context(), store.View(), of, seq, 7)
		if err != nil {
			t.Fatal(err)
		}
		if len(lines) == 0 {
			if n != 61 || reads != 7 {
				t.Errorf("%d lines in %d reads", n, reads)
			}
			break
		}
		if len(lines) > 9 {
			t.Errorf("%d lines at once", len(lines))
		}
		for _, x := range lines {
			if x.N <= n { // as Lines says
				continue
			}
			if n++; x.N != n || x.Text != fmt.Sprintf("line %d", n) {
				t.Fatalf("%+v, want line %d", x, n)
			}
			seq = x.ChunkSeq
		}
	}
	if err := os.RemoveAll(filepath.Join(files.dir, string(of))); err != nil {
		t.Fatal(err)
	}
	lines, err := l.Lines(t.Context(), store.View(), of, 0, 1)
	if err != nil || len(lines) != 1 || lines[0] != (Line{"s-1", 3, "[lines 1 to 3 are no longer kept]", 1}) {
		t.Errorf("a chunk that is not here: %+v, %v", lines, err)
	}
}

func TestReadChecksTheManifest(t *testing.T) {
	l, _, files := newLog(t)
	digest, err := files.put(of, []byte("one\n"))
	if err != nil {
		t.Fatal(err)
	}
	c := machine.Chunk{Machine: of, Stream: "s-1", First: 1, Last: 2, Digest: digest, Size: 4}
	if _, err := l.Read(t.Context(), c); err == nil || !strings.Contains(err.Error(), "has 1 lines, its manifest says 2") {
		t.Errorf("%v", err)
	}
	c.Last = 1
	if lines, err := l.Read(t.Context(), c); err != nil || !slices.Equal(lines, []string{"one"}) {
		t.Errorf("%q, %v", lines, err)
	}
	path, err := files.name(of, digest)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("two\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Read(t.Context(), c); err == nil || !strings.Contains(err.Error(), "digest mismatch") {
		t.Errorf("other bytes than were stored: %v", err)
	}
	c.Digest = "sha256:../../id"
	if _, err := l.Read(t.Context(), c); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a digest that leads elsewhere: %v", err)
	}
}
