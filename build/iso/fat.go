package iso

import (
	"context"
	"hash/fnv"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// fatFile is a file on a FAT: its path there, its contents' path here.
type fatFile struct{ at, from string }

// fat makes the image of a FAT file system with files. mtools and mkfs.fat take
// their dates from SOURCE_DATE_EPOCH.
func (m maker) fat(ctx context.Context, img, label, serial string, kib int, files []fatFile) error {
	if err := run(ctx, m.Spec, "mkfs.fat", "--invariant", "-C", "-n", label, "-i", serial, img, strconv.Itoa(kib)); err != nil {
		return err
	}
	made := map[string]bool{".": true}
	for _, f := range files {
		for _, d := range parents(f.at) {
			if made[d] {
				continue
			}
			made[d] = true
			if err := run(ctx, m.Spec, "mmd", "-i", img, "::/"+d); err != nil {
				return err
			}
		}
		from, err := filepath.EvalSymlinks(f.from)
		if err != nil {
			return err
		}
		if err := run(ctx, m.Spec, "mcopy", "-i", img, from, "::/"+f.at); err != nil {
			return err
		}
	}
	return nil
}

// parents are the folders above p, outermost first.
func parents(p string) []string {
	var dirs []string
	for d := path.Dir(strings.TrimPrefix(p, "/")); d != "."; d = path.Dir(d) {
		dirs = append([]string{d}, dirs...)
	}
	return dirs
}

func checksum(s string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(s)) // a hash never fails
	return h.Sum64()
}
