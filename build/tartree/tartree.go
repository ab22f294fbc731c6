// Package tartree puts file trees together without unpacking them: owners,
// modes and device numbers need no root, and the same tree is always written as
// the same bytes.
package tartree

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"
)

// Entry is one file, folder or link. Its time is the tree's.
type Entry struct {
	Type byte // tar.TypeReg, TypeDir, TypeSymlink, TypeLink, TypeChar …
	Mode int64
	UID  int
	GID  int
	// Link is a symbolic link's target, or the path of what a hard link names.
	Link   string
	Size   int64
	Open   func() (io.ReadCloser, error) // a regular file's contents
	XAttrs map[string]string
	major  int64
	minor  int64
}

// Tree is files by their cleaned paths, relative to the root ("usr/bin/x"). The
// root itself is "": root's and 0755 unless it was added.
type Tree map[string]Entry

// Clean is how a Tree names a path.
func Clean(p string) string { return strings.TrimPrefix(path.Clean("/"+p), "/") }

// Put adds an entry, and the folders above it (root's, 0755). It fails where a
// folder above is a link: the file would end up elsewhere, or nowhere.
func (t Tree) Put(p string, e Entry) error {
	p = Clean(p)
	if p == "" && e.Type != tar.TypeDir {
		return fmt.Errorf("/: the root is a folder")
	}
	for dir := path.Dir(p); p != "" && dir != "."; dir = path.Dir(dir) {
		above, ok := t[dir]
		if ok && above.Type != tar.TypeDir {
			return fmt.Errorf("/%s: /%s above it is not a folder (it is a link to %q)", p, dir, above.Link)
		}
		if !ok {
			t[dir] = Entry{Type: tar.TypeDir, Mode: 0o755}
		}
	}
	if was, ok := t[p]; ok && (was.Type == tar.TypeDir) != (e.Type == tar.TypeDir) {
		return fmt.Errorf("/%s: a folder and something else have the same name", p)
	}
	t[p] = e
	return nil
}

// Dir adds an empty folder, or changes the mode of one.
func (t Tree) Dir(p string, mode int64) error {
	return t.Put(p, Entry{Type: tar.TypeDir, Mode: mode})
}

// Symlink adds a symbolic link.
func (t Tree) Symlink(p, target string) error {
	return t.Put(p, Entry{Type: tar.TypeSymlink, Mode: 0o777, Link: target})
}

// Bytes adds a file with these contents.
func (t Tree) Bytes(p string, mode int64, b []byte) error {
	return t.Put(p, Entry{Type: tar.TypeReg, Mode: mode, Size: int64(len(b)), Open: func() (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(string(b))), nil
	}})
}

// File adds a file of the host.
func (t Tree) File(p string, mode int64, file string) error {
	info, err := os.Stat(file)
	if err != nil {
		return fmt.Errorf("/%s: %w", Clean(p), err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("/%s: %s is not a regular file", Clean(p), file)
	}
	return t.Put(p, Entry{Type: tar.TypeReg, Mode: mode, Size: info.Size(), Open: func() (io.ReadCloser, error) { return os.Open(file) }})
}

// Folder adds all below a folder of the host at p, as root's: folders and
// programs 0755, other files 0644, links as they are. Git keeps no other modes.
func (t Tree) Folder(p, folder string) error {
	return filepath.WalkDir(folder, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(folder, file)
		if err != nil {
			return err
		}
		at := path.Join(p, filepath.ToSlash(rel))
		switch {
		case d.IsDir():
			if _, ok := t[Clean(at)]; ok {
				return nil
			}
			return t.Dir(at, 0o755)
		case d.Type() == fs.ModeSymlink:
			target, err := os.Readlink(file)
			if err != nil {
				return err
			}
			return t.Symlink(at, target)
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		mode := int64(0o644)
		if info.Mode()&0o111 != 0 {
			mode = 0o755
		}
		return t.File(at, mode, file)
	})
}

// Tar adds what a tar file holds, at p, without what drop says. The file must
// stay as it is until the tree is written. Paths that lead out of the tree are
// errors.
func (t Tree) Tar(p, file string, drop func(path string, e Entry) bool) (err error) {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	r := tar.NewReader(f)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		// The reader takes exactly the blocks of headers: here contents begin.
		at, err := f.Seek(0, io.SeekCurrent)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		if slices.Contains(strings.Split(h.Name, "/"), "..") {
			return fmt.Errorf("%s: %q leads out of the tree", file, h.Name)
		}
		e := Entry{Type: h.Typeflag, Mode: h.Mode & 0o7777, UID: h.Uid, GID: h.Gid, Link: h.Linkname, Size: h.Size, XAttrs: xattrs(h), major: h.Devmajor, minor: h.Devminor}
		if h.Typeflag == tar.TypeLink {
			e.Link = path.Join(Clean(p), Clean(h.Linkname))
		}
		if h.Typeflag == tar.TypeReg {
			e.Open = section(file, at, h.Size)
		}
		if drop != nil && drop(Clean(h.Name), e) {
			continue
		}
		if err := t.Put(path.Join(p, h.Name), e); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
}

const xattrPrefix = "SCHILY.xattr."

func xattrs(h *tar.Header) map[string]string {
	var out map[string]string
	for k, v := range h.PAXRecords {
		if name, ok := strings.CutPrefix(k, xattrPrefix); ok {
			if out == nil {
				out = map[string]string{}
			}
			out[name] = v
		}
	}
	return out
}

func section(file string, at, size int64) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		return struct {
			io.Reader
			io.Closer
		}{io.NewSectionReader(f, at, size), f}, nil
	}
}

// Paths are the tree's paths in the order in which they are written: a folder
// before what is in it, a file before the hard links to it.
func (t Tree) Paths() []string {
	paths := make([]string, 0, len(t))
	for p := range t {
		paths = append(paths, p)
	}
	sort.Slice(paths, func(i, j int) bool {
		a, b := t[paths[i]].Type == tar.TypeLink, t[paths[j]].Type == tar.TypeLink
		if a != b {
			return b
		}
		return paths[i] < paths[j]
	})
	return paths
}

// Write writes the tree as a tar file, every time in it being mtime.
func (t Tree) Write(ctx context.Context, file string, mtime time.Time) (err error) {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	buffered := bufio.NewWriterSize(f, 1<<20)
	w := tar.NewWriter(buffered)
	if _, ok := t[""]; !ok {
		root := Entry{Type: tar.TypeDir, Mode: 0o755}
		if err := writeEntry(w, "", root, mtime); err != nil {
			return fmt.Errorf("%s: /: %w", file, err)
		}
	}
	for _, p := range t.Paths() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := writeEntry(w, p, t[p], mtime); err != nil {
			return fmt.Errorf("%s: /%s: %w", file, p, err)
		}
	}
	return errors.Join(w.Close(), buffered.Flush())
}

func writeEntry(w *tar.Writer, p string, e Entry, mtime time.Time) (err error) {
	h := &tar.Header{Name: p, Typeflag: e.Type, Mode: e.Mode, Uid: e.UID, Gid: e.GID, Linkname: e.Link, ModTime: mtime,
		Devmajor: e.major, Devminor: e.minor, Format: tar.FormatPAX}
	switch e.Type {
	case tar.TypeDir:
		h.Name = "./"
		if p != "" {
			h.Name = p + "/"
		}
	case tar.TypeReg:
		h.Size = e.Size
	}
	for k, v := range e.XAttrs {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords[xattrPrefix+k] = v
	}
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	if e.Type != tar.TypeReg || e.Size == 0 {
		return nil
	}
	r, err := e.Open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	_, err = io.Copy(w, r)
	return err
}
