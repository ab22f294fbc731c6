package events

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rackseed/rackseed/services/durable"
	"github.com/rackseed/rackseed/services/machine"
)

// block is what a file takes at least on the data partition, in bytes: many
// short chunks must not cost nothing.
const block = 4 << 10

// Files keeps chunks as files, a folder for each machine: what a machine
// stored is counted, and goes with it. They are apart from images, so that
// nothing that is removed here was ever anything else.
type Files struct {
	dir string
	// space tells the free and all bytes of the file system; statfs but in
	// tests.
	space func() (free, all uint64, err error)
}

// OpenFiles opens the folder, which is made if absent. One process writes to
// it.
func OpenFiles(dir string) (*Files, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("folder for machines' output: %w", err)
	}
	return &Files{dir: dir, space: func() (free, all uint64, err error) {
		var s unix.Statfs_t
		if err := unix.Statfs(dir, &s); err != nil {
			return 0, 0, fmt.Errorf("free space of %s: %w", dir, err)
		}
		return s.Bavail * uint64(s.Bsize), s.Blocks * uint64(s.Bsize), nil
	}}, nil
}

// What becomes a file's name is strict.
var (
	folderForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9-]{0,63}$`)
	chunkForm  = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// name is the name of a chunk's file in its machine's folder; not ok: it has
// no name that a chunk may have.
func (f *Files) name(of machine.ID, digest string) (string, error) {
	hex, ok := strings.CutPrefix(digest, "sha256:")
	if !ok || !chunkForm.MatchString(hex) || !folderForm.MatchString(string(of)) {
		return "", fmt.Errorf("chunk %.80q of machine %.40q: no name for a file", digest, of)
	}
	return filepath.Join(f.dir, string(of), hex), nil
}

// digestOf is the digest of a chunk's bytes.
func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// put writes a chunk. On return it is on disk. One that is there already is
// written again: its time then says that it is in use (see Log.Sweep).
func (f *Files) put(of machine.ID, b []byte) (digest string, err error) {
	digest = digestOf(b)
	path, err := f.name(of, digest)
	if err != nil {
		return "", err
	}
	if err := f.folder(filepath.Dir(path)); err != nil {
		return "", err
	}
	return digest, durable.WriteFile(path, b, 0o600)
}

// folder makes a machine's folder, and its name durable.
func (f *Files) folder(path string) error {
	err := os.Mkdir(path, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	d, err := os.Open(f.dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// read returns a chunk's bytes; an error that wraps fs.ErrNotExist says that
// it is no longer kept.
func (f *Files) read(ctx context.Context, c machine.Chunk) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	path, err := f.name(c.Machine, c.Digest)
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if got := digestOf(b); got != c.Digest {
		return nil, fmt.Errorf("digest mismatch after %d bytes: they are %s, not %s: the medium may be failing", len(b), got, c.Digest)
	}
	return b, nil
}

// kept is one file of a machine's folder.
type kept struct {
	digest  string // "" for what is no chunk: left by a crash
	path    string
	charge  int64 // bytes
	written time.Time
}

// list tells what is in a machine's folder; nothing if it has none.
func (f *Files) list(of machine.ID) (all []kept, err error) {
	if !folderForm.MatchString(string(of)) {
		return nil, nil // it has never stored anything
	}
	entries, err := os.ReadDir(filepath.Join(f.dir, string(of)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // written aside, and in place since
		}
		if err != nil {
			return nil, err
		}
		k := kept{path: filepath.Join(f.dir, string(of), e.Name()), charge: charge(info.Size()), written: info.ModTime()}
		if chunkForm.MatchString(e.Name()) {
			k.digest = "sha256:" + e.Name()
		}
		all = append(all, k)
	}
	return all, nil
}

// machines are those that have a folder.
func (f *Files) machines() (ids []machine.ID, err error) {
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.IsDir() && folderForm.MatchString(e.Name()) {
			ids = append(ids, machine.ID(e.Name()))
		}
	}
	return ids, nil
}

// remove removes a file; one that is gone is no error.
func remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// charge is what a file of that many bytes counts for.
func charge(size int64) int64 { return (size + block - 1) / block * block }
