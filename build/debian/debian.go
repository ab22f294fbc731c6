package debian

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/rackseed/rackseed/build/step"
)

// Archive is where packages come from: the cache, else a mirror.
type Archive struct {
	Repository string // root of our own repository, for build/locks
	Cache      string // step.Cache's folder; .debs are its packages, as HASH.deb
	// Unlocked goes on with what the mirror has where it no longer has a
	// locked version.
	Unlocked bool
	Log      io.Writer // what apt says

	lock *Lock
}

// MovedError says which locked packages can no longer be had.
type MovedError struct{ Packages []Package }

func (e *MovedError) Error() string {
	var names []string
	for _, p := range e.Packages {
		names = append(names, p.Name+" "+p.Version)
	}
	return fmt.Sprintf("the Debian mirror no longer has, and the cache has not:\n    %s\n"+
		"Debian keeps only each package's current version. Take those with \"make lock\" (and commit build/locks/debian.lock), or go on once with UNLOCKED=1.",
		strings.Join(names, "\n    "))
}

func (a *Archive) lockFile() string { return filepath.Join(a.Repository, "build/locks/debian.lock") }
func (a *Archive) setsFile() string {
	return filepath.Join(a.Repository, "build/locks/packages.yaml")
}

func (a *Archive) cache() *step.Cache { return &step.Cache{Dir: a.Cache} }

// deb is where the cache keeps a package.
func (a *Archive) deb(p Package) string { return filepath.Join(a.cache().Packages(), fileName(p)) }

func fileName(p Package) string { return p.SHA256 + ".deb" }

func fileNames(packages []Package) (names []string) {
	for _, p := range packages {
		names = append(names, fileName(p))
	}
	return names
}

// Locked are the names of the locked packages' files in the cache.
func (a *Archive) Locked() ([]string, error) {
	l, err := ReadLock(a.lockFile())
	return fileNames(l.Packages), err
}

// Refresh writes the lock anew from what the mirror has, and returns what
// changed, for people.
func (a *Archive) Refresh(ctx context.Context) ([]string, error) {
	all, err := readSets(a.setsFile())
	if err != nil {
		return nil, err
	}
	before, err := ReadLock(a.lockFile())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		// A refresh is also what repairs a broken lock.
		fmt.Fprintf(a.Log, "%v; it is made anew\n", err)
	}
	root, done, err := openApt(ctx, filepath.Join(a.Cache, "apt"), a.Log)
	if err != nil {
		return nil, err
	}
	defer done()
	after, err := root.resolve(ctx, all)
	if err != nil {
		return nil, fmt.Errorf("refreshing %s: %w", a.lockFile(), err)
	}
	if err := os.WriteFile(a.lockFile(), after.format(), 0o644); err != nil {
		return nil, fmt.Errorf("refreshing the lock: %w", err)
	}
	a.lock = &after
	return Changes(before, after), nil
}

// Lock is the lock that holds for this build: debian.lock, or, with Unlocked
// and once the mirror has moved on, what the mirror has now. All sets move
// together, so that kernel and modules always match.
func (a *Archive) Lock(ctx context.Context) (Lock, error) {
	if a.lock != nil {
		return *a.lock, nil
	}
	l, err := ReadLock(a.lockFile())
	if err != nil {
		return Lock{}, err
	}
	if a.Unlocked && len(a.absent(l.Packages)) > 0 {
		root, done, err := openApt(ctx, filepath.Join(a.Cache, "apt"), a.Log)
		if err != nil {
			return Lock{}, err
		}
		defer done()
		if err := root.update(ctx); err != nil {
			return Lock{}, err
		}
		moved, err := root.moved(a.absent(l.Packages))
		if err != nil {
			return Lock{}, err
		}
		if len(moved) > 0 {
			all, err := readSets(a.setsFile())
			if err != nil {
				return Lock{}, err
			}
			if l, err = root.resolve(ctx, all); err != nil {
				return Lock{}, fmt.Errorf("packages without the lock: %w", err)
			}
		}
	}
	a.lock = &l
	return l, nil
}

// absent are the packages that the cache does not have.
func (a *Archive) absent(packages []Package) []Package {
	var out []Package
	for _, p := range packages {
		if info, err := os.Stat(a.deb(p)); err != nil || info.Size() != p.Size {
			out = append(out, p)
		}
	}
	return out
}

// moved are the packages that the mirror no longer has.
func (a *apt) moved(packages []Package) ([]Package, error) {
	have, err := a.has()
	if err != nil {
		return nil, err
	}
	var out []Package
	for _, p := range packages {
		if !have[p.Name+"="+p.Version] {
			out = append(out, p)
		}
	}
	return out, nil
}

// Fetch returns the files of packages by their names, from the cache, else
// from the mirror. Each has the SHA-256 that the lock says.
func (a *Archive) Fetch(ctx context.Context, packages []Package) (map[string]string, error) {
	// First: what is there then stays.
	if err := a.cache().UsePackages(fileNames(packages)...); err != nil {
		return nil, err
	}
	if absent := a.absent(packages); len(absent) > 0 {
		if err := a.download(ctx, absent); err != nil {
			return nil, err
		}
	}
	files := map[string]string{}
	for _, p := range packages {
		files[p.Name] = a.deb(p)
	}
	return files, nil
}

func (a *Archive) download(ctx context.Context, packages []Package) (err error) {
	root, done, err := openApt(ctx, filepath.Join(a.Cache, "apt"), a.Log)
	if err != nil {
		return err
	}
	defer done()
	// Another process may have fetched them while this one waited.
	packages = a.absent(packages)
	if len(packages) == 0 {
		return nil
	}
	if err := root.update(ctx); err != nil {
		return err
	}
	moved, err := root.moved(packages)
	if err != nil {
		return err
	}
	if len(moved) > 0 {
		return &MovedError{Packages: moved}
	}
	if err := os.MkdirAll(a.cache().Packages(), 0o755); err != nil {
		return fmt.Errorf("package cache: %w", err)
	}
	tmp, remove, err := a.cache().Scratch("fetching")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	args := []string{"apt-get", "download", "-q"}
	for _, p := range packages {
		args = append(args, p.Name+"="+p.Version)
	}
	if _, err := root.run(ctx, tmp, args...); err != nil {
		return err
	}
	for _, p := range packages {
		if err := a.keep(tmp, p); err != nil {
			return err
		}
	}
	return nil
}

// keep moves a downloaded package into the cache, if it is the locked one.
func (a *Archive) keep(dir string, p Package) error {
	file := filepath.Join(dir, fmt.Sprintf("%s_%s_%s.deb", p.Name, strings.ReplaceAll(p.Version, ":", "%3a"), p.Arch))
	sum, err := fileSum(file)
	if err != nil {
		return fmt.Errorf("package %s %s: %w", p.Name, p.Version, err)
	}
	if sum != p.SHA256 {
		return fmt.Errorf("package %s %s: the mirror's file has SHA-256 %s, the lock says %s: the mirror is not to be trusted, or the lock is wrong; compare with \"make lock\"",
			p.Name, p.Version, sum, p.SHA256)
	}
	if err := os.Rename(file, a.deb(p)); err != nil {
		return fmt.Errorf("package cache: %w", err)
	}
	return nil
}

func fileSum(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// mergedUsr are links that the package base-files has in Debian 13; a set
// without it needs them, because /lib64/ld-linux-x86-64.so.2 is a program's
// interpreter and other packages' contents are below /usr alone.
var mergedUsr = []string{"bin", "lib", "lib64", "sbin"}

// Unpacked is a step whose output is a set's packages unpacked over each
// other, without running anything of theirs.
func (a *Archive) Unpacked(ctx context.Context, set string) (*step.Step, error) {
	l, err := a.Lock(ctx)
	if err != nil {
		return nil, err
	}
	packages, err := l.Set(set)
	if err != nil {
		return nil, err
	}
	return &step.Step{
		Name:   "debian-" + set,
		Inputs: append([]string{"1"}, Inputs(packages)...),
		Make: func(ctx context.Context, out string, _ []string, log io.Writer) error {
			files, err := a.Fetch(ctx, packages)
			if err != nil {
				return err
			}
			return unpack(ctx, out, packages, files, log)
		},
	}, nil
}

func unpack(ctx context.Context, out string, packages []Package, files map[string]string, log io.Writer) error {
	for _, d := range mergedUsr {
		if err := errors.Join(os.MkdirAll(filepath.Join(out, "usr", d), 0o755), os.Symlink("usr/"+d, filepath.Join(out, d))); err != nil {
			return err
		}
	}
	for _, p := range packages {
		cmd := exec.CommandContext(ctx, "dpkg-deb", "--extract", files[p.Name], out)
		cmd.Stdout, cmd.Stderr = log, log
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("unpacking %s %s (%s): %w", p.Name, p.Version, files[p.Name], err)
		}
	}
	return nil
}
