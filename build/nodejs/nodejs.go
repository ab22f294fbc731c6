// Package nodejs makes the Node.js and npm that build the console and run its
// tests: Debian 13's, unpacked and not installed. They are used whatever the
// host has, so that every host builds the console with the same versions.
package nodejs

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/rackseed/rackseed/build/step"
	"github.com/rackseed/rackseed/build/tools"
)

//go:embed launcher/node.c
var launcher string

const libDir = "usr/lib/x86_64-linux-gnu"

// forget is loaded before npm. It finds its modules by NODE_PATH, which must not
// reach what it starts: Debian's modules would stand in there for packages that
// are missing.
const forget = "delete process.env.NODE_PATH\n"

const npm = `#!/bin/sh
here=$(CDPATH= cd -- "${0%%/*}" && pwd) || exit
NODE_PATH=%[1]s exec "$here/node" --require "$here/../lib/forget.cjs" %[1]s/npm/bin/npm-cli.js "$@"
`

// Step makes the folder bin with the programs node and npm. packages is the
// unpacked set "nodejs". The programs hold absolute paths: cache is the folder
// of the build cache.
//
// npm's registry, proxy and certificates are those of the user's npm
// configuration (~/.npmrc, /etc/npmrc, npm_config_… in the environment).
func Step(packages *step.Step, cache string) *step.Step {
	return &step.Step{
		Name:   "nodejs",
		Inputs: []string{"1", launcher, npm, forget, cache},
		Deps:   []*step.Step{packages},
		Refers: true,
		Make: func(ctx context.Context, out string, deps []string, log io.Writer) error {
			return write(ctx, out, deps[0], log)
		},
	}
}

func write(ctx context.Context, out, root string, log io.Writer) error {
	if err := errors.Join(os.Mkdir(filepath.Join(out, "bin"), 0o755), os.Mkdir(filepath.Join(out, "lib"), 0o755)); err != nil {
		return err
	}
	files := map[string]struct {
		text string
		mode os.FileMode
	}{
		"lib/node.c":     {launcher, 0o644},
		"lib/forget.cjs": {forget, 0o644},
		"bin/npm":        {fmt.Sprintf(npm, tools.Quote(filepath.Join(root, "usr/share/nodejs"))), 0o755},
	}
	for name, f := range files {
		if err := os.WriteFile(filepath.Join(out, name), []byte(f.text), f.mode); err != nil {
			return err
		}
	}
	return compile(ctx, filepath.Join(out, "bin/node"), filepath.Join(out, "lib/node.c"), root, log)
}

// compile links the launcher with the root's loader and libraries. The host's
// C library may be older than what those want: they run with the root's.
func compile(ctx context.Context, program, source, root string, log io.Writer) error {
	found, err := filepath.Glob(filepath.Join(root, libDir, "libnode.so.*"))
	if err != nil || len(found) != 1 {
		return fmt.Errorf("Node.js: %q in %s: one libnode.so.N is expected of the set \"nodejs\"", found, filepath.Join(root, libDir))
	}
	args := []string{"-O2", "-Wall", "-Werror", "-DROOT=" + strconv.Quote(root), "-rdynamic", "-o", program, source, found[0]}
	for _, link := range []string{
		// The older tag, because it also holds for the libraries of libraries.
		"--disable-new-dtags", "-rpath", filepath.Join(root, libDir),
		"--dynamic-linker", filepath.Join(root, "lib64/ld-linux-x86-64.so.2"),
		"--allow-shlib-undefined",
	} {
		args = append(args, "-Xlinker", link)
	}
	cmd := exec.CommandContext(ctx, "gcc", args...)
	cmd.Stdout, cmd.Stderr = log, log
	fmt.Fprintf(log, "+ %s\n", cmd)
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("the launcher of Node.js: gcc: %w; install gcc and libc6-dev if they are missing", err)
	}
	return nil
}
