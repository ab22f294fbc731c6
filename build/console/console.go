// Package console builds the web console: console/web and its locked npm
// packages to a folder of static files.
package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/rackseed/rackseed/build/pins"
	"github.com/rackseed/rackseed/build/step"
)

// Folder of the console's sources in the repository.
const Folder = "console/web"

// Step makes the files. npm's registry, proxy and certificates are those of
// the host's own npm configuration.
func Step(repo string) (*step.Step, error) {
	if _, err := os.Stat(filepath.Join(repo, Folder, "package-lock.json")); err != nil {
		return nil, fmt.Errorf("console: %w; the console's sources and their lock belong there", err)
	}
	in, err := step.Files(repo, Folder)
	if err != nil {
		return nil, err
	}
	return &step.Step{
		Name:   "console",
		Inputs: []string{"1", in},
		Make: func(ctx context.Context, out string, _ []string, log io.Writer) error {
			if err := checkNode(ctx); err != nil {
				return err
			}
			work, err := os.MkdirTemp("", "rackseed-console-")
			if err != nil {
				return err
			}
			defer os.RemoveAll(work)
			if err := copySources(filepath.Join(repo, Folder), work); err != nil {
				return err
			}
			// No package of ours needs its install script, and none shall run.
			if err := run(ctx, work, log, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"); err != nil {
				return err
			}
			if err := run(ctx, work, log, "npm", "exec", "--offline", "--", "vite", "build", "--outDir", out, "--emptyOutDir"); err != nil {
				return err
			}
			if _, err := os.Stat(filepath.Join(out, "index.html")); err != nil {
				return fmt.Errorf("vite made no page: %w", err)
			}
			return nil
		},
	}, nil
}

// copySources copies what Git has, so that the build neither uses nor leaves
// anything in the working folder.
func copySources(from, to string) error {
	return filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		switch {
		case d.IsDir() && (d.Name() == "node_modules" || d.Name() == "dist"):
			return filepath.SkipDir
		case d.IsDir():
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		case !d.Type().IsRegular():
			return nil
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), b, 0o644)
	})
}

func checkNode(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "node", "--version").Output()
	if err != nil {
		return fmt.Errorf("node: %w; the console is built with Node.js %d or newer, and npm: put them into PATH", err, pins.NodeMajor)
	}
	return enough(string(out))
}

// enough reads what node --version prints: "v20.20.2".
func enough(version string) error {
	version = strings.TrimSpace(version)
	major, _, _ := strings.Cut(strings.TrimPrefix(version, "v"), ".")
	n, err := strconv.Atoi(major)
	if err != nil {
		return fmt.Errorf("node --version printed %q", version)
	}
	if n < pins.NodeMajor {
		return fmt.Errorf("Node.js %s is too old for the console's tools, which want %d or newer: put a newer one first into PATH", version, pins.NodeMajor)
	}
	return nil
}

func run(ctx context.Context, dir string, log io.Writer, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	cmd.Env = append(os.Environ(), "CI=1", "NODE_ENV=", "SOURCE_DATE_EPOCH="+strconv.Itoa(pins.SourceDateEpoch))
	fmt.Fprintf(log, "+ %s %s\n", name, strings.Join(args, " "))
	if err := cmd.Run(); errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%w: put Node.js %d or newer with npm into PATH", err, pins.NodeMajor)
	} else if err != nil {
		return fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return nil
}
