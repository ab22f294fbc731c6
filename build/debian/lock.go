// Package debian takes packages from Debian 13: which ones the build needs is
// in build/locks/packages.yaml, which versions and hashes in
// build/locks/debian.lock. It uses the host's apt with a private root, so that
// nothing on the host changes, and it works as an ordinary user.
package debian

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Package is one locked package of one set.
type Package struct {
	Set     string
	Name    string
	Version string
	Arch    string // "amd64" or "all"
	SHA256  string // 64 hex digits
	Size    int64  // of the .deb, in bytes
}

// Lock is what debian.lock says.
type Lock struct {
	Packages []Package // by set, then name
}

const lockHeader = `# Debian packages of the build: set name version architecture sha256 bytes.
# Made by "make lock" from packages.yaml.
`

// ReadLock reads a lock file.
func ReadLock(path string) (Lock, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Lock{}, fmt.Errorf("locked packages: %w; make them with \"make lock\"", err)
	}
	l, err := parseLock(b)
	if err != nil {
		return Lock{}, fmt.Errorf("locked packages: %s: %w", path, err)
	}
	return l, nil
}

func parseLock(b []byte) (Lock, error) {
	var l Lock
	for i, line := range strings.Split(string(b), "\n") {
		f := strings.Fields(line)
		switch {
		case len(f) == 0 || strings.HasPrefix(line, "#"):
		case len(f) == 6:
			size, err := strconv.ParseInt(f[5], 10, 64)
			if err != nil || size <= 0 {
				return Lock{}, fmt.Errorf("line %d: size %q: a number of bytes is expected", i+1, f[5])
			}
			if sum, err := hex.DecodeString(f[4]); err != nil || len(sum) != 32 {
				return Lock{}, fmt.Errorf("line %d: %q is not a SHA-256 in hex", i+1, f[4])
			}
			l.Packages = append(l.Packages, Package{f[0], f[1], f[2], f[3], f[4], size})
		default:
			return Lock{}, fmt.Errorf("line %d: expected: set name version architecture sha256 bytes", i+1)
		}
	}
	return l, nil
}

// format is the inverse of parseLock.
func (l Lock) format() []byte {
	var b bytes.Buffer
	b.WriteString(lockHeader)
	slices.SortFunc(l.Packages, func(a, b Package) int {
		return cmp.Or(cmp.Compare(a.Set, b.Set), cmp.Compare(a.Name, b.Name))
	})
	for _, p := range l.Packages {
		fmt.Fprintf(&b, "%s %s %s %s %s %d\n", p.Set, p.Name, p.Version, p.Arch, p.SHA256, p.Size)
	}
	return b.Bytes()
}

// Set is the packages of one set, by name.
func (l Lock) Set(name string) ([]Package, error) {
	var set []Package
	for _, p := range l.Packages {
		if p.Set == name {
			set = append(set, p)
		}
	}
	if len(set) == 0 {
		return nil, fmt.Errorf("package set %q is not in the lock; refresh it with \"make lock\"", name)
	}
	return set, nil
}

// Inputs are the packages as inputs of a build step.
func Inputs(set []Package) []string {
	var in []string
	for _, p := range set {
		in = append(in, p.Name+" "+p.SHA256)
	}
	return in
}

// Changes are the differences between two locks, for people, one a line.
func Changes(before, after Lock) []string {
	key := func(p Package) string { return p.Set + " " + p.Name }
	old := map[string]Package{}
	for _, p := range before.Packages {
		old[key(p)] = p
	}
	var out []string
	for _, p := range after.Packages {
		was, ok := old[key(p)]
		delete(old, key(p))
		switch {
		case !ok:
			out = append(out, fmt.Sprintf("+ %s %s %s", p.Set, p.Name, p.Version))
		case was.Version != p.Version:
			out = append(out, fmt.Sprintf("  %s %s %s → %s", p.Set, p.Name, was.Version, p.Version))
		case was.SHA256 != p.SHA256:
			out = append(out, fmt.Sprintf("! %s %s %s: the same version with other contents", p.Set, p.Name, p.Version))
		}
	}
	for _, p := range old {
		out = append(out, fmt.Sprintf("- %s %s %s", p.Set, p.Name, p.Version))
	}
	slices.SortFunc(out, func(a, b string) int { return cmp.Compare(a[2:], b[2:]) })
	return out
}
