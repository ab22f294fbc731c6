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

// Step makes the files. node is the step nodejs.Step, which also says where
// npm's settings come from.
func Step(repo string, node *step.Step) (*step.Step, error) {
	if _, err := os.Stat(filepath.Join(repo, Folder, "package-lock.json")); err != nil {
		return nil, fmt.Errorf("console: %w; the console's sources and their lock belong there", err)
	}
	in, err := step.Files(repo, Folder)
	if err != nil {
		return nil, err
	}
	return &step.Step{
		Name:   "console",
		Inputs: []string{"2", in},
		Deps:   []*step.Step{node},
		Make: func(ctx context.Context, out string, deps []string, log io.Writer) (err error) {
			bin := filepath.Join(deps[0], "bin")
			work, err := os.MkdirTemp("", "rackseed-console-")
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
			if err := copySources(filepath.Join(repo, Folder), work); err != nil {
				return err
			}
			// No package of ours needs its install script, and none shall run.
			if err := npm(ctx, bin, work, log, "ci", "--ignore-scripts", "--no-audit", "--no-fund"); err != nil {
				return err
			}
			if err := npm(ctx, bin, work, log, "exec", "--offline", "--", "vite", "build", "--outDir", out, "--emptyOutDir"); err != nil {
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

// npm runs npm of the folder bin, and has what it starts find node there.
func npm(ctx context.Context, bin, dir string, log io.Writer, args ...string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "npm"), args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	cmd.Env = append(os.Environ(), "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"),
		"CI=1", "NODE_ENV=", "NODE_OPTIONS=", "SOURCE_DATE_EPOCH="+strconv.Itoa(pins.SourceDateEpoch))
	fmt.Fprintf(log, "+ npm %s\n", strings.Join(args, " "))
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("npm %s: %w", strings.Join(args, " "), err)
	}
	return nil
}
