package initramfs

import (
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// libraryFolders are where Debian's ld.so looks, and where dpkg puts libraries.
var libraryFolders = []string{"usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib64", "usr/lib", "lib64"}

// interpreter is where every program looks for its ld.so (x86-64 psABI §5.2.1).
const interpreter = "lib64/ld-linux-x86-64.so.2"

// programs adds Debian programs from root at their own paths, with the
// libraries that they and these need.
func (t tree) programs(root string, paths ...string) error {
	todo := []string{}
	for _, p := range paths {
		p = clean(p)
		file := filepath.Join(root, p)
		if _, err := os.Stat(file); err != nil {
			return fmt.Errorf("initramfs: program /%s: %w; is its package in the Debian set?", p, err)
		}
		t.put(p, entry{mode: modeProg, file: file})
		todo = append(todo, file)
	}
	done := map[string]bool{}
	for len(todo) > 0 {
		file := todo[0]
		todo = todo[1:]
		needed, dynamic, err := imports(file)
		if err != nil {
			return err
		}
		if dynamic {
			needed = append(needed, path.Base(interpreter))
		}
		for _, lib := range needed {
			if done[lib] {
				continue
			}
			done[lib] = true
			found, err := findLibrary(root, lib)
			if err != nil {
				return fmt.Errorf("initramfs: %s needs %s: %w", file, lib, err)
			}
			at := "usr/lib/x86_64-linux-gnu/" + lib
			if lib == path.Base(interpreter) {
				at = interpreter
			}
			t.put(at, entry{mode: modeProg, file: found})
			todo = append(todo, found)
		}
	}
	return nil
}

func imports(file string) (libs []string, dynamic bool, err error) {
	f, err := elf.Open(file)
	if err != nil {
		return nil, false, fmt.Errorf("initramfs: %s: %w", file, err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		dynamic = dynamic || p.Type == elf.PT_INTERP
	}
	libs, err = f.ImportedLibraries()
	if err != nil {
		return nil, false, fmt.Errorf("initramfs: %s: %w", file, err)
	}
	return libs, dynamic, nil
}

// findLibrary finds a library's file, through symbolic links, which in an
// unpacked root must not lead out of it.
func findLibrary(root, lib string) (string, error) {
	for _, d := range libraryFolders {
		p := path.Join(d, lib)
		for range 10 {
			info, err := os.Lstat(filepath.Join(root, p))
			if errors.Is(err, fs.ErrNotExist) {
				break
			}
			if err != nil {
				return "", err
			}
			if info.Mode().IsRegular() {
				return filepath.Join(root, p), nil
			}
			target, err := os.Readlink(filepath.Join(root, p))
			if err != nil {
				return "", err
			}
			if strings.HasPrefix(target, "/") {
				p = clean(target)
			} else {
				p = clean(path.Join(path.Dir(p), target))
			}
		}
	}
	return "", fmt.Errorf("not in %s: %w", root, fs.ErrNotExist)
}
