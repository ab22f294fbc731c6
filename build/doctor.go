package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/rackseed/rackseed/build/host"
)

// check is one thing that a build needs.
type check struct {
	what string
	// find returns what is there, or an error that says how to get it.
	find func(ctx context.Context) (string, error)
	must bool
}

// What a build takes, roughly, in MiB. Kubernetes' linker is what takes the
// memory; a cold build fills the build cache and Go's, a later one makes an image
// and its parts anew.
const (
	memoryMiB = 3 << 10
	coldMiB   = 12 << 10
	warmMiB   = 3 << 10
	// Debian 13 has /tmp in memory, of half its size.
	temporaryMiB = 2 << 10
)

// checks are what targets of make need, beside packages, which
// build/packages.sh knows.
func checks(repo, cache string) []check {
	list := []check{
		{"build cache", func(context.Context) (string, error) { return room(cache) }, true},
		{"out/", func(context.Context) (string, error) { return writable(filepath.Join(repo, "out")) }, true},
		{"temporary", temporary, true},
		{"memory", memory, false},
		{"proxy", proxy, false},
		{"KVM", func(context.Context) (string, error) {
			return "/dev/kvm opens; whether it works is tried when a virtual machine starts", host.KVM()
		}, false},
	}
	if os.Geteuid() != 0 {
		list = append(list, check{"user namespaces", func(ctx context.Context) (string, error) {
			return "may be made: root is not needed", host.Namespaces(ctx)
		}, true})
	}
	return list
}

// doctor prints what is there and what is missing, for all targets of make. It
// returns an error if a build cannot work.
func doctor(ctx context.Context, repo, cache string, w io.Writer) error {
	list := append([]check{
		{"Go", version("go", "version"), true},
		{"packages", func(ctx context.Context) (string, error) { return packages(ctx, repo) }, true},
	}, checks(repo, cache)...)
	return examine(ctx, list, true, w)
}

// ready is doctor before a target is made: it prints only what is missing.
// build/bootstrap.sh has looked at packages before.
func ready(ctx context.Context, repo, cache string, w io.Writer) error {
	return examine(ctx, checks(repo, cache), false, w)
}

func examine(ctx context.Context, list []check, all bool, w io.Writer) error {
	missing := 0
	for _, c := range list {
		found, err := c.find(ctx)
		text, mark := found, "ok  "
		switch {
		case err != nil && c.must:
			missing++
			text, mark = err.Error(), "NO  "
		case err != nil:
			text, mark = err.Error(), "note"
		case !all:
			continue
		}
		fmt.Fprintf(w, "  %s  %-16s %s\n", mark, c.what, strings.ReplaceAll(text, "\n", "\n"+strings.Repeat(" ", 25)))
	}
	if missing > 0 {
		return fmt.Errorf("this machine is not ready: %d of what is said above must be put right", missing)
	}
	return nil
}

func version(program string, args ...string) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		out, err := exec.CommandContext(ctx, program, args...).Output()
		if err != nil {
			return "", fmt.Errorf("%s: %w", program, err)
		}
		line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
		return line, nil
	}
}

// packages are Debian's, that the host must have.
func packages(ctx context.Context, repo string) (string, error) {
	out, err := exec.CommandContext(ctx, "/bin/sh", filepath.Join(repo, "build/packages.sh")).CombinedOutput()
	switch {
	case err != nil && len(out) == 0:
		return "", fmt.Errorf("build/packages.sh: %w", err)
	case err != nil:
		return "", errors.New(strings.TrimSpace(string(out)))
	}
	return "all are installed", nil
}

func room(cache string) (string, error) {
	if err := host.Writable(cache); err != nil {
		return "", err
	}
	free, err := host.FreeMiB(cache)
	if err != nil {
		return "", err
	}
	built, err := filepath.Glob(filepath.Join(cache, "out", "node-root-*"))
	if err != nil {
		return "", err
	}
	if err := enough(free, len(built) > 0); err != nil {
		return "", fmt.Errorf("%s: %w", cache, err)
	}
	return fmt.Sprintf("%s, %d MiB free", cache, free), nil
}

// enough says whether the build cache has room, in MiB; built, that a build is
// in it.
func enough(free int, built bool) error {
	need, which := coldMiB, "a first build"
	if built {
		need, which = warmMiB, "a build"
	}
	if free >= need {
		return nil
	}
	return fmt.Errorf("%d MiB are free, and %s takes about %d: make room there, or have the cache elsewhere with: export XDG_CACHE_HOME=/a/larger/disk", free, which, need)
}

func temporary(context.Context) (string, error) {
	dir := os.TempDir()
	free, err := host.FreeMiB(dir)
	switch {
	case err != nil:
		return "", err
	case free < temporaryMiB:
		return "", fmt.Errorf("%s has %d MiB free, and compilers and packages take about %d there: go on with: export TMPDIR=/var/tmp", dir, free, temporaryMiB)
	}
	return fmt.Sprintf("%s, %d MiB free", dir, free), nil
}

func writable(dir string) (string, error) { return dir, host.Writable(dir) }

func memory(context.Context) (string, error) {
	free, err := host.AvailableMiB()
	switch {
	case err != nil:
		return "", err
	case free < memoryMiB:
		return "", fmt.Errorf("%d MiB are available, and linking Kubernetes takes about %d: it will be slow or fail; close other programs", free, memoryMiB)
	}
	return fmt.Sprintf("%d MiB available; make run says what its machines need", free), nil
}

func proxy(ctx context.Context) (string, error) {
	// Without it apt has no settings of its own.
	dump, _ := exec.CommandContext(ctx, "apt-config", "dump").Output()
	return host.Proxies(os.Environ(), host.HomeFile(".npmrc"), string(dump))
}
