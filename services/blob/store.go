// Package blob keeps bulk outside the replicated log: files named by their
// digest, in OCI image layouts (image-spec 1.1, image-layout.md).
//
// A store is one layout that is written and any number below it that are only
// read, as those on the ISO. What is in a layout under a digest is whole and on
// disk: it is written aside, compared with its digest while it streams, synced,
// and renamed into place.
package blob

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Store is a set of layouts, the writable one first.
type Store struct {
	layouts []string
}

// Content is an open blob: bytes that never change.
type Content interface {
	io.ReadSeekCloser
	Size() int64 // bytes
}

// File is the content of a blob of this store. It is a file of the system's, which
// the kernel can send by itself.
type File interface {
	Content
	io.ReaderAt
}

// partial is the folder in the writable layout for blobs that are not whole.
const partial = "partial"

// Open opens a store; the writable layout is made if absent, and what a
// crash left half written there is removed, but for the parts that Continue goes
// on with. A read-only one that is absent is empty. One process writes to a
// layout.
func Open(writable string, readOnly ...string) (*Store, error) {
	s := &Store{layouts: append([]string{writable}, readOnly...)}
	if err := s.removeHalfWritten(); err != nil {
		return nil, fmt.Errorf("blob store %s: removing half-written blobs: %w", writable, err)
	}
	for _, d := range []string{filepath.Join(v1.ImageBlobsDir, "sha256"), partial} {
		if err := os.MkdirAll(filepath.Join(writable, d), 0o700); err != nil {
			return nil, fmt.Errorf("blob store %s: %w", writable, err)
		}
	}
	for name, content := range map[string]any{
		v1.ImageLayoutFile: v1.ImageLayout{Version: v1.ImageLayoutVersion},
		v1.ImageIndexFile:  v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex, Manifests: []v1.Descriptor{}},
	} {
		if err := s.writeOnce(name, content); err != nil {
			return nil, fmt.Errorf("blob store %s: %w", writable, err)
		}
	}
	return s, nil
}

func (s *Store) removeHalfWritten() error {
	all, err := os.ReadDir(filepath.Join(s.layouts[0], partial))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range all {
		if _, part := partOf(e.Name()); !part {
			err = errors.Join(err, os.RemoveAll(filepath.Join(s.layouts[0], partial, e.Name())))
		}
	}
	return err
}

// writeOnce writes a JSON file of the layout unless it is there.
func (s *Store) writeOnce(name string, content any) error {
	path := filepath.Join(s.layouts[0], name)
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	b, err := json.Marshal(content)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Join(s.layouts[0], partial), "layout-")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return finish(f, err, path)
}

// path is where a layout has a blob.
func path(layout string, d Digest) (string, error) {
	name, err := d.hex()
	if err != nil {
		return "", err
	}
	return filepath.Join(layout, v1.ImageBlobsDir, "sha256", name), nil
}

// Open opens a blob for reading, from the first layout that has it. The error
// of one that none has is fs.ErrNotExist.
func (s *Store) Open(d Digest) (File, error) {
	for _, layout := range s.layouts {
		p, err := path(layout, d)
		if err != nil {
			return nil, err
		}
		f, err := os.Open(p)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("blob %s: %w", d, err)
		}
		info, err := f.Stat()
		if err == nil && !info.Mode().IsRegular() {
			err = fmt.Errorf("%s is no file", p)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("blob %s: %w", d, err), f.Close())
		}
		return &file{f, info.Size()}, nil
	}
	return nil, fmt.Errorf("blob %s is in none of %v: %w", d, s.layouts, fs.ErrNotExist)
}

type file struct {
	*os.File
	size int64
}

func (f *file) Size() int64 { return f.size }

// Has says whether the blob is here, whole.
func (s *Store) Has(d Digest) bool {
	f, err := s.Open(d)
	if err != nil {
		return false
	}
	return f.Close() == nil
}

// Put stores what it reads and answers its digest and size in bytes. With a
// want, other bytes than those are refused and nothing is kept; a wanted blob
// that is here already is not read again. On return the blob is on disk.
func (s *Store) Put(ctx context.Context, from io.Reader, want Digest) (Digest, int64, error) {
	if want != "" {
		f, err := s.Open(want)
		if err == nil {
			return want, f.Size(), f.Close()
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", 0, err
		}
	}
	u, err := s.Create()
	if err != nil {
		return "", 0, err
	}
	if _, err := io.Copy(u, &contextReader{ctx, from}); err != nil {
		return "", 0, fmt.Errorf("storing blob %s: %w", want, errors.Join(err, u.Abort()))
	}
	got, err := u.Commit(want)
	return got, u.Size(), err
}

// finish closes a file that was written aside and puts it into place, on disk;
// after an error it removes it.
func finish(f *os.File, err error, to string) error {
	if err == nil {
		err = f.Sync()
	}
	if closing := f.Close(); err == nil {
		err = closing
	}
	if err == nil {
		err = os.Rename(f.Name(), to)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	// The name is on disk only once its folder is.
	d, err := os.Open(filepath.Dir(to))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// contextReader ends with its context. A Read that blocks is the source's to
// interrupt, as HTTP bodies are.
type contextReader struct {
	ctx  context.Context
	from io.Reader
}

func (r *contextReader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.from.Read(b)
}
