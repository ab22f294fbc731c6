// Package goprog builds Go programs so that the same sources give the same
// bytes: a pinned toolchain, trimmed paths, and no setting of the builder's
// own that could change the output.
package goprog

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/rackseed/rackseed/build/pins"
	"github.com/rackseed/rackseed/build/step"
)

// Set is one or more programs of one module, built together into one folder.
type Set struct {
	Name     string            // of the step: "go-etcd"
	Module   string            // the module's folder, relative to the repository
	Packages map[string]string // the program's file name → its package
	Tags     string            // comma separated
	LDFlags  string
	// C libraries to link against; with it the programs are built by cgo,
	// without it CGO_ENABLED=0 makes them static.
	C *CLibraries
}

// CLibraries are Debian packages' headers and libraries, unpacked privately, so
// that nothing needs to be installed on the host.
type CLibraries struct {
	Root    *step.Step // an unpacked Debian root
	Headers []string   // below usr/include: "blkid", "seccomp.h"
	Libs    []string   // "blkid", "seccomp": lib*.so* below usr/lib/x86_64-linux-gnu
}

// Step makes the step that builds set. inputs is what identifies its sources:
// ModuleInput for a nested module, PackageInput for programs of the main one.
func Step(repo string, set Set, inputs ...string) *step.Step {
	s := &step.Step{
		Name:   set.Name,
		Inputs: append([]string{pins.Go, set.Tags, set.LDFlags, fmt.Sprint(set.Packages)}, inputs...),
		Make: func(ctx context.Context, out string, deps []string, log io.Writer) error {
			env := Env(os.Environ(), set.C != nil)
			if set.C != nil {
				work, err := os.MkdirTemp("", "rackseed-c-")
				if err != nil {
					return err
				}
				defer os.RemoveAll(work)
				cenv, err := set.C.prepare(work, deps[0])
				if err != nil {
					return err
				}
				env = append(env, cenv...)
			}
			for name, pkg := range set.Packages {
				if err := build(ctx, filepath.Join(repo, set.Module), filepath.Join(out, name), pkg, set, env, log); err != nil {
					return err
				}
			}
			return nil
		},
	}
	if set.C != nil {
		s.Inputs = append(s.Inputs, fmt.Sprint(set.C.Headers, set.C.Libs))
		s.Deps = []*step.Step{set.C.Root}
	}
	return s
}

func build(ctx context.Context, dir, out, pkg string, set Set, env []string, log io.Writer) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-mod=readonly", "-trimpath", "-buildvcs=false",
		"-tags="+set.Tags, "-ldflags="+strings.TrimSpace("-s -w -buildid= "+set.LDFlags), "-o", out, pkg)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, env, log, log
	fmt.Fprintf(log, "+ cd %s && %s\n", dir, cmd)
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("go build %s in %s: %w", pkg, set.Module, err)
	}
	return nil
}

// ModuleInput identifies a nested module: go.mod and go.sum pin all that is
// not in its folder.
func ModuleInput(repo, module string) (string, error) { return step.Files(repo, module) }

// changesOutput are the builder's own settings that would get into the program.
var changesOutput = []string{
	"GOFLAGS", "GOEXPERIMENT", "GOAMD64", "GOARCH", "GOOS", "GODEBUG", "GOFIPS140", "GOWORK",
	"GOTOOLCHAIN", "GOENV", "GO111MODULE", "CC", "CXX",
}

// Env is the environment of every go command: the builder's own, for proxies
// and caches, without what would change the output.
func Env(environ []string, cgo bool) []string {
	var env []string
	for _, kv := range environ {
		name, _, _ := strings.Cut(kv, "=")
		drop := strings.HasPrefix(name, "CGO_")
		for _, n := range changesOutput {
			drop = drop || n == name
		}
		if !drop {
			env = append(env, kv)
		}
	}
	enabled := "0"
	if cgo {
		enabled = "1"
	}
	// GOFLAGS and GOAMD64 are set and not just left out: what is left out
	// the go command takes from the file that `go env -w` writes.
	return append(env, "GOFLAGS=-buildvcs=false", "GOTOOLCHAIN="+pins.Go, "GOWORK=off",
		"GOOS=linux", "GOARCH=amd64", "GOAMD64=v1", "CGO_ENABLED="+enabled)
}

// prepare lays out only the wanted headers and libraries of root below work,
// and returns the cgo flags that find them. The host's compiler keeps its own
// libc: with Debian 13's libc headers and Debian 12's libc the linker would
// miss symbols. The other way round works, since a newer libc has all the old
// ones: the programs run on Debian 13. Symbols that the libraries themselves
// want of a newer libc are therefore allowed to be missing here.
func (c *CLibraries) prepare(work, root string) ([]string, error) {
	inc, lib := filepath.Join(work, "include"), filepath.Join(work, "lib")
	for _, d := range []string{inc, lib} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return nil, err
		}
	}
	for _, h := range c.Headers {
		found := ""
		for _, d := range []string{"usr/include", "usr/include/x86_64-linux-gnu"} {
			if p := filepath.Join(root, d, h); exists(p) {
				found = p
			}
		}
		if found == "" {
			return nil, fmt.Errorf("header %s is not in %s: the Debian set named \"build\" lacks its -dev package", h, root)
		}
		if err := os.Symlink(found, filepath.Join(inc, h)); err != nil {
			return nil, err
		}
	}
	for _, l := range c.Libs {
		files, err := filepath.Glob(filepath.Join(root, "usr/lib/x86_64-linux-gnu", "lib"+l+".so*"))
		if err != nil || len(files) == 0 {
			return nil, fmt.Errorf("library lib%s.so is not in %s (%v): the Debian set named \"build\" lacks its package", l, root, err)
		}
		for _, f := range files {
			if err := os.Symlink(f, filepath.Join(lib, filepath.Base(f))); err != nil {
				return nil, err
			}
		}
	}
	// Stands for pkg-config, which the host may lack and which would look at
	// the host's libraries: the folders are known, only -l is missing.
	pkgConfig := filepath.Join(work, "pkg-config")
	script := "#!/bin/sh\ncase \"$*\" in *--libs*) echo -l" + strings.Join(c.Libs, " -l") + ";; esac\n"
	if err := os.WriteFile(pkgConfig, []byte(script), 0o755); err != nil {
		return nil, err
	}
	return []string{
		"CGO_CFLAGS=-O2 -I" + inc,
		"CGO_LDFLAGS=-O2 -L" + lib + " -Wl,--allow-shlib-undefined -Wl,--build-id=none",
		"PKG_CONFIG=" + pkgConfig,
	}, nil
}

func exists(p string) bool {
	_, err := os.Stat(p)
	return err == nil
}
