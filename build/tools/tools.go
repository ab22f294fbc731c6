// Package tools runs programs of Debian 13 on the build host without
// installing them: the package set "tools" is unpacked into a folder, and each
// program is run through that folder's own dynamic loader and libraries. So
// they run alike on Debian 12 and 13, and nothing on the host changes.
package tools

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Root is the folder that the set "tools" is unpacked in, an output of
// debian.Archive.Unpacked("tools").
type Root string

const (
	loader  = "lib64/ld-linux-x86-64.so.2"
	libDir  = "usr/lib/x86_64-linux-gnu"
	perlBin = "usr/bin/perl"
)

// Command is exec.CommandContext for a program of the root, named without a
// folder ("mkfs.erofs"). Cancelling ctx ends it with SIGTERM, and after ten
// seconds with SIGKILL. Its environment has nothing that would change what it
// does; SOURCE_DATE_EPOCH and the like are added to Env by the caller.
func (r Root) Command(ctx context.Context, name string, args ...string) (*exec.Cmd, error) {
	path, err := r.Path(name)
	if err != nil {
		return nil, err
	}
	start := []string{"--library-path", r.at(libDir), "--argv0", name, path}
	env := clean(os.Environ())
	if interpreted(path) {
		start = []string{"--library-path", r.at(libDir), "--argv0", "perl", r.at(perlBin), path}
		env = append(env, "PERL5LIB="+strings.Join(r.perlLib(), ":"))
	}
	cmd := exec.CommandContext(ctx, r.at(loader), append(start, args...)...)
	cmd.Env = append(env, "QEMU_MODULE_DIR="+r.at(libDir+"/qemu"), "MTOOLS_SKIP_CHECK=1")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	return cmd, nil
}

// QEMU is Command for qemu-system-x86_64, told where its firmware is.
func (r Root) QEMU(ctx context.Context, args ...string) (*exec.Cmd, error) {
	var data []string
	for _, d := range []string{"usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"} {
		data = append(data, "-L", r.at(d))
	}
	return r.Command(ctx, "qemu-system-x86_64", append(data, args...)...)
}

// OVMF is a file of the UEFI firmware: "OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd",
// and for Secure Boot "OVMF_CODE_4M.secboot.fd" with "OVMF_VARS_4M.ms.fd".
func (r Root) OVMF(file string) string { return r.at(filepath.Join("usr/share/OVMF", file)) }

// Path is where a program of the root is.
func (r Root) Path(name string) (string, error) {
	if name == "" || strings.Contains(name, "/") {
		return "", fmt.Errorf("tool %q: a program's name is expected, without a folder", name)
	}
	for _, dir := range []string{"usr/bin", "usr/sbin"} {
		if _, err := os.Stat(r.at(filepath.Join(dir, name))); err == nil {
			return r.at(filepath.Join(dir, name)), nil
		}
	}
	return "", fmt.Errorf("tool %s is not in %s: add its package to the set of build/locks/packages.yaml and run \"make lock\"", name, r)
}

func (r Root) at(path string) string { return filepath.Join(string(r), path) }

// perlLib is what Debian compiles into its perl as @INC, below the root.
func (r Root) perlLib() []string {
	dirs := []string{r.at("usr/share/perl5"), r.at(libDir + "/perl-base")}
	for _, pattern := range []string{libDir + "/perl/5.*", libDir + "/perl5/5.*", "usr/share/perl/5.*"} {
		// The pattern is well formed, which is all that Glob can complain of.
		found, _ := filepath.Glob(r.at(pattern))
		dirs = append(dirs, found...)
	}
	return dirs
}

// interpreted says whether a file is a script; those among our tools are Perl.
func interpreted(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	start := make([]byte, 2)
	n, err := f.Read(start)
	return err == nil && n == 2 && string(start) == "#!"
}

// clean drops what would change how a program runs or what it writes, and
// fixes locale and time zone.
func clean(environ []string) []string {
	var env []string
	for _, kv := range environ {
		name, _, _ := strings.Cut(kv, "=")
		switch {
		case strings.HasPrefix(name, "LD_"), strings.HasPrefix(name, "PERL"), strings.HasPrefix(name, "LC_"),
			strings.HasPrefix(name, "QEMU_"), strings.HasPrefix(name, "MTOOLS"), strings.HasPrefix(name, "DPKG_"),
			name == "LANG", name == "LANGUAGE", name == "TZ", name == "SOURCE_DATE_EPOCH", name == "ZSTD_CLEVEL",
			name == "ZSTD_NBTHREADS", name == "APT_CONFIG":
		default:
			env = append(env, kv)
		}
	}
	return append(env, "LC_ALL=C.UTF-8", "TZ=UTC")
}
