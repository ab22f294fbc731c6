package events

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"testing"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/wire"
)

// second is another replica's output, which may be away.
type second struct {
	*Log
	away error
}

func (s *second) Keep(ctx context.Context, of machine.ID, stream string, text []byte) error {
	if s.away != nil {
		return s.away
	}
	return s.Take(ctx, of, stream, text)
}

func (s *second) Chunk(ctx context.Context, c machine.Chunk) ([]byte, error) {
	if s.away != nil {
		return nil, s.away
	}
	return s.Kept(ctx, c)
}

// beside is another replica of the same state, with files of its own.
func beside(t *testing.T, l *Log) *second {
	t.Helper()
	files, err := OpenFiles(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	files.space = l.files.space
	return &second{Log: New(l.store, files)}
}

// Lines are acknowledged once two replicas have them, and what one lost the other
// has.
func TestTwoHaveIt(t *testing.T) {
	l, store, files := newLog(t)
	other := beside(t, l)
	l.Others = other
	next, err := l.Append(t.Context(), of, wire.Output{Stream: "installer", First: 1, Lines: numbered(1, 3)})
	if err != nil || next != 4 {
		t.Fatal(next, err)
	}
	other.away = errors.New("its power is cut")
	if next, err := l.Append(t.Context(), of, wire.Output{Stream: "installer", First: 4, Lines: numbered(4, 4)}); !errors.Is(err, other.away) {
		t.Errorf("acknowledged to %d with one copy: %v", next, err)
	}
	other.away = nil
	if err := os.RemoveAll(files.dir); err != nil {
		t.Fatal(err)
	}
	want := []string{"installer:1 line 1", "installer:2 line 2", "installer:3 line 3"}
	if got := all(t, l, store); !slices.Equal(got, want) {
		t.Errorf("read from the other one: %q", got)
	}
}

// A new replica fetches what there is; what no other one has any more it does not
// wait for.
func TestCopy(t *testing.T) {
	old, store, files := newLog(t)
	for n := range 3 {
		first := uint64(1 + 3*n)
		if _, err := old.Append(t.Context(), of, wire.Output{Stream: "installer", First: first, Lines: numbered(int(first), int(first)+2)}); err != nil {
			t.Fatal(err)
		}
	}
	lost := store.View().Chunks(of, 0, 1)[0]
	path, err := files.name(of, lost.Digest)
	if err == nil {
		err = os.Remove(path)
	}
	if err != nil {
		t.Fatal(err)
	}
	l := beside(t, old).Log
	if l.Copies().Counted {
		t.Error("it counted before it looked")
	}
	from := &second{Log: old, away: errors.New("its power is cut")}
	l.Others = from
	ctx, stop := context.WithCancel(t.Context())
	var told []string
	err = l.Copy(ctx, func(ok bool, text string) {
		told = append(told, fmt.Sprint(ok))
		if from.away = nil; ok {
			stop()
		}
	})
	if now := l.Copies(); err != nil || !now.Counted || now.Missing != 0 || !slices.Equal(told, []string{"false", "true"}) {
		t.Errorf("%+v, %v, told %v", now, err, told)
	}
	for i, c := range store.View().Chunks(of, 0, 0) {
		if _, err := l.Kept(t.Context(), c); i == 0 != errors.Is(err, fs.ErrNotExist) || i > 0 && err != nil {
			t.Errorf("chunk %d: %v", i, err)
		}
	}
}

// What there is no room for is said, and nobody waits for it.
func TestCopyWithoutRoom(t *testing.T) {
	old, store, _ := newLog(t)
	if _, err := old.Append(t.Context(), of, wire.Output{Stream: "installer", First: 1, Lines: numbered(1, 3)}); err != nil {
		t.Fatal(err)
	}
	l := beside(t, old).Log
	l.budgets.machine = 0
	l.Others = &second{Log: old}
	ctx, stop := context.WithCancel(t.Context())
	var said string
	err := l.Copy(ctx, func(_ bool, text string) { said = text; stop() })
	if now := l.Copies(); err != nil || !now.Counted || now.Missing != 0 || said != "machines' output is here, too, but 1 pieces that no replica has any more or that there is no room for" {
		t.Errorf("%+v, %v, told %q", now, err, said)
	}
	if _, err := l.Kept(t.Context(), store.View().Chunks(of, 0, 0)[0]); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is kept all the same: %v", err)
	}
}
