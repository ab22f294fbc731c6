package blob

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrMismatch is the error of bytes that are not those of the wanted digest.
var ErrMismatch = errors.New("digest mismatch")

// syncEach is after how many bytes an upload is synced, so that little is left
// for its end, which a client waits for, and for the sync of a log on the same
// file system, which would have to wait for all of it (ext4, data=ordered).
const syncEach = 4 << 20

// Upload is a blob that comes in pieces, aside from those that are whole. It is
// for one caller at a time, who ends it by Commit or Abort; Open removes what a
// crash left of what Create began. ReadAt is for anybody at any time.
type Upload struct {
	store    *Store
	file     *os.File
	sum      hash.Hash
	size     int64
	unsynced int64
}

// Create begins an upload.
func (s *Store) Create() (*Upload, error) {
	f, err := os.CreateTemp(filepath.Join(s.layouts[0], partial), "blob-")
	if err != nil {
		return nil, fmt.Errorf("beginning a blob: %w", err)
	}
	return &Upload{store: s, file: f, sum: sha256.New()}, nil
}

// Continue begins the upload of a blob whose digest is known, or goes on with one
// that broke off, also with the process: what is there of it is read first. A
// digest has one such upload at a time.
func (s *Store) Continue(ctx context.Context, d Digest) (*Upload, error) {
	p, err := s.part(d)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(p, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("beginning blob %s: %w", d, err)
	}
	u := &Upload{store: s, file: f, sum: sha256.New()}
	if u.size, err = io.Copy(u.sum, &contextReader{ctx, f}); err != nil {
		return nil, fmt.Errorf("blob %s: reading what is there of it: %w", d, errors.Join(err, f.Close()))
	}
	return u, nil
}

// part is where Continue has a blob.
func (s *Store) part(d Digest) (string, error) {
	name, err := d.hex()
	if err != nil {
		return "", err
	}
	return filepath.Join(s.layouts[0], partial, name), nil
}

// partOf is the blob that a file in partial is a part of.
func partOf(name string) (Digest, bool) {
	d, err := Parse("sha256:" + name)
	return d, err == nil
}

// Parts are the blobs that Continue began and that are not whole.
func (s *Store) Parts() ([]Digest, error) {
	all, err := os.ReadDir(filepath.Join(s.layouts[0], partial))
	if err != nil {
		return nil, fmt.Errorf("blob store %s: blobs that are not whole: %w", s.layouts[0], err)
	}
	var list []Digest
	for _, e := range all {
		if d, ok := partOf(e.Name()); ok {
			list = append(list, d)
		}
	}
	return list, nil
}

// RemovePart removes what Continue has of a blob, which nobody is writing.
func (s *Store) RemovePart(d Digest) error {
	p, err := s.part(d)
	if err == nil {
		err = os.Remove(p)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Write appends to the blob. What it says was written counts, also with an
// error.
func (u *Upload) Write(b []byte) (int, error) {
	n, err := u.file.Write(b)
	u.sum.Write(b[:n])
	u.size += int64(n)
	if u.unsynced += int64(n); err == nil && u.unsynced >= syncEach {
		u.unsynced = 0
		err = unix.Fdatasync(int(u.file.Fd()))
	}
	return n, err
}

// Size is how many bytes were written.
func (u *Upload) Size() int64 { return u.size }

// ReadAt reads what was written, before anything was compared with a digest. Its
// error is fs.ErrClosed once the upload has ended.
func (u *Upload) ReadAt(b []byte, at int64) (int, error) { return u.file.ReadAt(b, at) }

// Leave ends an upload of Continue's, which goes on with it later.
func (u *Upload) Leave() error { return u.file.Close() }

// Commit makes what was written a blob of the store and answers its digest. With
// a want, other bytes than those are refused (ErrMismatch). After it the upload
// has ended: the blob is on disk, or nothing is kept.
func (u *Upload) Commit(want Digest) (Digest, error) {
	got := Digest("sha256:" + hex.EncodeToString(u.sum.Sum(nil)))
	var err error
	if want != "" && got != want {
		err = fmt.Errorf("%w after %d bytes: they are %s", ErrMismatch, u.size, got)
	} else if u.store.Has(got) { // below, or it came twice
		return got, u.Abort()
	}
	to, pathErr := path(u.store.layouts[0], got)
	if err := finish(u.file, errors.Join(err, pathErr), to); err != nil {
		return "", fmt.Errorf("storing blob %s: %w", want, err)
	}
	return got, nil
}

// Abort ends the upload; nothing is kept.
func (u *Upload) Abort() error {
	return errors.Join(u.file.Close(), os.Remove(u.file.Name()))
}

// Free is how many bytes can still be written, as an ordinary user.
func (s *Store) Free() (int64, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(s.layouts[0], &fs); err != nil {
		return 0, fmt.Errorf("blob store %s: how much is free: %w", s.layouts[0], err)
	}
	return int64(fs.Bavail) * fs.Bsize, nil
}
