package initramfs

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path"
	"sort"
	"strings"
)

// entry is one thing in the archive: exactly one of file, link, data and
// neither (a folder) applies.
type entry struct {
	mode uint32 // type and permissions as in stat(2)
	file string // regular file: its contents' path on the host
	data []byte // regular file or link target
	dev  [2]uint32
}

const (
	modeDir  = 0o040755
	modeFile = 0o100644
	modeProg = 0o100755
	modeLink = 0o120777
	modeChar = 0o020600
)

// tree is the archive's contents by path, without a leading slash.
type tree map[string]entry

func clean(p string) string { return strings.TrimPrefix(path.Clean("/"+p), "/") }

// put adds an entry and the folders above it.
func (t tree) put(p string, e entry) {
	p = clean(p)
	for d := path.Dir(p); d != "."; d = path.Dir(d) {
		if _, ok := t[d]; !ok {
			t[d] = entry{mode: modeDir}
		}
	}
	t[p] = e
}

// write writes the tree as a cpio archive in the format that the kernel reads
// (Documentation/driver-api/early-userspace/buffer-format.rst, "newc"), sorted,
// owned by root, with one date: the same tree gives the same bytes.
func (t tree) write(w io.Writer, epoch int64) error {
	names := make([]string, 0, len(t))
	for n := range t {
		names = append(names, n)
	}
	sort.Strings(names)
	for i, n := range names {
		e := t[n]
		data := e.data
		if e.file != "" {
			b, err := os.ReadFile(e.file)
			if err != nil {
				return fmt.Errorf("initramfs /%s: %w", n, err)
			}
			data = b
		}
		if err := record(w, uint32(i+1), n, e, data, epoch); err != nil {
			return fmt.Errorf("initramfs /%s: %w", n, err)
		}
	}
	return record(w, 0, "TRAILER!!!", entry{}, nil, 0)
}

// record writes one header, name and contents, each padded to four bytes.
func record(w io.Writer, ino uint32, name string, e entry, data []byte, epoch int64) error {
	if int64(len(data)) > 1<<32-1 {
		return fmt.Errorf("%d bytes: the format ends at 4 GiB", len(data))
	}
	var b bytes.Buffer
	b.WriteString("070701")
	for _, f := range []uint32{
		ino, e.mode, 0, 0, 1, uint32(epoch), uint32(len(data)),
		0, 0, e.dev[0], e.dev[1], uint32(len(name) + 1), 0,
	} {
		fmt.Fprintf(&b, "%08X", f)
	}
	b.WriteString(name)
	b.WriteByte(0)
	b.Write(make([]byte, pad(b.Len())))
	b.Write(data)
	b.Write(make([]byte, pad(len(data))))
	_, err := w.Write(b.Bytes())
	return err
}

func pad(n int) int { return (4 - n%4) % 4 }
