package install

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/rackseed/rackseed/services/wire"
)

// pieces are a blob that comes piece by piece, or an error.
type pieces struct {
	list [][]byte
	err  error
}

func (p pieces) Fetch(_ context.Context, _ wire.File, w io.WriterAt, progress func(int64)) error {
	var at int64
	for _, b := range p.list {
		if _, err := w.WriteAt(b, at); err != nil {
			return err
		}
		at += int64(len(b))
		progress(at)
	}
	return p.err
}

func TestStream(t *testing.T) {
	path := filepath.Join(t.TempDir(), "partition")
	// Larger than what is written, as a slot is, and with something on it.
	if err := os.WriteFile(path, bytes.Repeat([]byte("x"), 3*pushEvery), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	blob := pieces{list: [][]byte{bytes.Repeat([]byte("a"), pushEvery+1), []byte("b")}}
	var told int64
	if err := Stream(t.Context(), blob, wire.File{}, f, func(done int64) { told = done }); err != nil {
		t.Fatal(err)
	}
	if told != pushEvery+2 {
		t.Errorf("told of %d bytes", told)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := append(bytes.Join(blob.list, nil), bytes.Repeat([]byte("x"), 2*pushEvery-2)...)
	if !bytes.Equal(got, want) {
		t.Error("the partition does not hold the blob and, behind it, what was there")
	}
	cut := errors.New("cut")
	if err := Stream(t.Context(), pieces{err: cut}, wire.File{}, f, func(int64) {}); !errors.Is(err, cut) {
		t.Errorf("a failed transfer: %v", err)
	}
}
