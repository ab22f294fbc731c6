package tartree

import (
	"archive/tar"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
)

// Share makes hard links of files from min bytes on that have the same
// contents, mode and owner. It is for trees that nobody writes to: in a
// read-only image each is then there once. It returns the bytes saved.
func (t Tree) Share(min int64) (saved int64, err error) {
	type kind struct {
		size, mode int64
		uid, gid   int
	}
	same := map[kind][]string{}
	for _, p := range t.Paths() {
		if e := t[p]; e.Type == tar.TypeReg && e.Size >= min && len(e.XAttrs) == 0 {
			k := kind{e.Size, e.Mode, e.UID, e.GID}
			same[k] = append(same[k], p)
		}
	}
	for _, paths := range same {
		if len(paths) < 2 {
			continue
		}
		first := map[[sha256.Size]byte]string{}
		for _, p := range paths {
			sum, err := t.sum(p)
			if err != nil {
				return saved, fmt.Errorf("/%s: %w", p, err)
			}
			e := t[p]
			if to, ok := first[sum]; ok {
				saved += e.Size
				t[p] = Entry{Type: tar.TypeLink, Mode: e.Mode, UID: e.UID, GID: e.GID, Link: to}
			} else {
				first[sum] = p
			}
		}
	}
	return saved, nil
}

func (t Tree) sum(p string) (sum [sha256.Size]byte, err error) {
	r, err := t[p].Open()
	if err != nil {
		return sum, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		return sum, err
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}
