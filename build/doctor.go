package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// check is one thing that a build needs.
type check struct {
	what string
	// find returns what is there, or an error that says how to get it.
	find func(ctx context.Context) (string, error)
	must bool
}

// freeGiB is what a cold build needs in the cache, roughly.
const freeGiB = 12

func checks(cache string) []check {
	return []check{
		{"Go", version("go", "run build/bootstrap.sh, which unpacks one privately", "version"), true},
		{"C compiler", compiler, true},
		{"git", version("git", "install git", "--version"), true},
		{"make", version("make", "install make", "--version"), true},
		{"apt-get", version("apt-get", "build on Debian 12 or 13: packages are fetched by apt", "--version"), true},
		{"dpkg-deb", version("dpkg-deb", "build on Debian 12 or 13", "--version"), true},
		{"mount", version("mount", "install mount: without /proc Debian's packages do not install alike", "--version"), true},
		{"Debian's keys", file("/usr/share/keyrings/debian-archive-keyring.gpg", "install debian-archive-keyring"), true},
		{"certificates", file("/etc/ssl/certs/ca-certificates.crt", "install ca-certificates: Go modules and npm packages come by HTTPS"), true},
		{"root", func(context.Context) (string, error) {
			if os.Geteuid() == 0 {
				return "yes", nil
			}
			return "", errors.New("no: the node's root file system and container images are then made in user namespaces, which need newuidmap (package uidmap) and subuids")
		}, false},
		{"room in the cache", room(cache), false},
		{"KVM", func(context.Context) (string, error) {
			f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
			if err != nil {
				return "", fmt.Errorf("%w: virtual machines are emulated, about ten times slower", err)
			}
			return "/dev/kvm opens; whether it works is tried when a virtual machine starts", f.Close()
		}, false},
	}
}

// doctor prints what is there and what is missing. It returns an error if a
// build cannot work.
func doctor(ctx context.Context, cache string, w io.Writer) error {
	missing := 0
	for _, c := range checks(cache) {
		found, err := c.find(ctx)
		switch {
		case err == nil:
			fmt.Fprintf(w, "  ok    %-18s %s\n", c.what, found)
		case c.must:
			missing++
			fmt.Fprintf(w, "  NO    %-18s %v\n", c.what, err)
		default:
			fmt.Fprintf(w, "  note  %-18s %v\n", c.what, err)
		}
	}
	if missing > 0 {
		return fmt.Errorf("doctor: %d things are missing", missing)
	}
	return nil
}

func version(program, way string, args ...string) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		out, err := exec.CommandContext(ctx, program, args...).Output()
		if err != nil {
			return "", fmt.Errorf("%w; %s", err, way)
		}
		line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
		return line, nil
	}
}

// compiler makes a program: Debian's gcc comes without the C library's headers.
func compiler(ctx context.Context) (string, error) {
	const way = "install gcc and libc6-dev: runc, Ignition and the start of Node.js are compiled"
	cmd := exec.CommandContext(ctx, "gcc", "-x", "c", "-o", "/dev/null", "-")
	cmd.Stdin = strings.NewReader("#include <stdio.h>\nint main(void) { return puts(\"\") < 0; }\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		line, _, _ := strings.Cut(string(out), "\n")
		return "", fmt.Errorf("%w %s; %s", err, line, way)
	}
	return version("gcc", way, "--version")(ctx)
}

func file(path, way string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) {
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("%w; %s", err, way)
		}
		return path, nil
	}
}

func room(dir string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return "", err
		}
		var s unix.Statfs_t
		if err := unix.Statfs(dir, &s); err != nil {
			return "", fmt.Errorf("%s: %w", dir, err)
		}
		free := int64(s.Bavail) * s.Bsize >> 30
		if free < freeGiB {
			return "", fmt.Errorf("%s has %d GiB free, a cold build takes about %d", dir, free, freeGiB)
		}
		return fmt.Sprintf("%s, %d GiB free", dir, free), nil
	}
}
