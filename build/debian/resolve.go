package debian

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// resolve finds the newest version of every package of every set.
func (a *apt) resolve(ctx context.Context, all sets) (Lock, error) {
	if err := a.update(ctx); err != nil {
		return Lock{}, err
	}
	var l Lock
	for _, name := range all.names() {
		one := all.Sets[name]
		seen := map[string]bool{}
		for _, args := range one.installs() {
			out, err := a.run(ctx, a.dir, append([]string{"apt-get", "install", "-qq", "-y", "--print-uris"}, args...)...)
			if err != nil {
				return Lock{}, fmt.Errorf("package set %s: %s: %w", name, strings.Join(args, " "), err)
			}
			packages, err := parseURIs(string(out))
			if err != nil {
				return Lock{}, fmt.Errorf("package set %s: %s: %w", name, strings.Join(args, " "), err)
			}
			for _, p := range packages {
				if !seen[p.Name] && one.keeps(p.Name) {
					p.Set = name
					l.Packages = append(l.Packages, p)
				}
				seen[p.Name] = true
			}
		}
	}
	return l, nil
}

// parseURIs reads what "apt-get install --print-uris" prints, one package a
// line: 'URI' name_version_arch.deb size SHA256:hex. A colon in a version is
// written %3a there.
func parseURIs(out string) ([]Package, error) {
	var packages []Package
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, "'") {
			continue
		}
		f := strings.Fields(line)
		if len(f) != 4 {
			return nil, fmt.Errorf("apt-get --print-uris: unexpected line %q", strings.TrimSpace(line))
		}
		p, err := parseFileName(f[1])
		if err != nil {
			return nil, err
		}
		if p.Size, err = strconv.ParseInt(f[2], 10, 64); err != nil {
			return nil, fmt.Errorf("apt-get --print-uris: %s: size %q", f[1], f[2])
		}
		sum, ok := strings.CutPrefix(f[3], "SHA256:")
		if raw, err := hex.DecodeString(sum); !ok || err != nil || len(raw) != 32 {
			return nil, fmt.Errorf("apt-get --print-uris: %s: %q is not a SHA-256", f[1], f[3])
		}
		p.SHA256 = sum
		packages = append(packages, p)
	}
	return packages, nil
}

// parseFileName reads name_version_arch.deb as apt writes it.
func parseFileName(file string) (Package, error) {
	f := strings.Split(strings.TrimSuffix(file, ".deb"), "_")
	if len(f) != 3 || !strings.HasSuffix(file, ".deb") {
		return Package{}, fmt.Errorf("%q is not a Debian package's file name", file)
	}
	version, err := url.PathUnescape(f[1])
	if err != nil {
		return Package{}, fmt.Errorf("%q is not a Debian package's file name: %w", file, err)
	}
	return Package{Name: f[0], Version: version, Arch: f[2]}, nil
}

// has says which name=version the mirror still has.
func (a *apt) has() (map[string]bool, error) {
	files, err := filepath.Glob(filepath.Join(a.dir, "state/lists/*_Packages"))
	if err != nil {
		return nil, err
	}
	have := map[string]bool{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		name := ""
		for line := range strings.Lines(string(b)) {
			if v, ok := strings.CutPrefix(line, "Package: "); ok {
				name = strings.TrimSpace(v)
			} else if v, ok := strings.CutPrefix(line, "Version: "); ok {
				have[name+"="+strings.TrimSpace(v)] = true
			}
		}
	}
	if len(have) == 0 {
		return nil, fmt.Errorf("the mirror's indexes in %s are empty", a.dir)
	}
	return have, nil
}
