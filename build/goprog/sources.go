package goprog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rackseed/rackseed/build/step"
)

// PackageInput identifies the sources of packages of the main module: every
// file of ours that goes into them, and go.mod and go.sum for the rest. So a
// change of the console does not rebuild the installer.
func PackageInput(ctx context.Context, repo string, packages ...string) (string, error) {
	args := append([]string{"list", "-mod=readonly", "-deps",
		"-json=Dir,Module,GoFiles,SFiles,HFiles,EmbedFiles"}, packages...)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir, cmd.Env = repo, Env(os.Environ(), false)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go list %s: %w\n%s", strings.Join(packages, " "), err, strings.TrimSpace(stderr.String()))
	}
	files, err := mainFiles(repo, out)
	if err != nil {
		return "", err
	}
	return step.Files(repo, append(files, "go.mod", "go.sum")...)
}

// mainFiles reads the JSON stream of go list: files of the main module's
// packages, relative to repo, sorted.
func mainFiles(repo string, list []byte) ([]string, error) {
	var files []string
	for dec := json.NewDecoder(bytes.NewReader(list)); ; {
		var p struct {
			Dir                                 string
			Module                              *struct{ Main bool }
			GoFiles, SFiles, HFiles, EmbedFiles []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		if p.Module == nil || !p.Module.Main {
			continue
		}
		for _, f := range slices.Concat(p.GoFiles, p.SFiles, p.HFiles, p.EmbedFiles) {
			rel, err := filepath.Rel(repo, filepath.Join(p.Dir, f))
			if err != nil {
				return nil, fmt.Errorf("go list: %w", err)
			}
			files = append(files, rel)
		}
	}
	slices.Sort(files)
	return slices.Compact(files), nil
}
