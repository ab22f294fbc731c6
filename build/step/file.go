package step

import (
	"fmt"
	"path/filepath"
)

// File is one file, or folder, that a step makes.
type File struct {
	Step *Step
	Path string // relative to the step's folder
}

// Resolver finds where files are, for a step that has their steps among its
// Deps.
type Resolver struct {
	deps []*Step
	dirs []string
}

// NewResolver takes a step's Deps, and their folders as Make gets them.
func NewResolver(deps []*Step, dirs []string) Resolver { return Resolver{deps, dirs} }

// Path is where a file is.
func (r Resolver) Path(f File) (string, error) {
	for i, d := range r.deps {
		if d == f.Step {
			return filepath.Join(r.dirs[i], f.Path), nil
		}
	}
	return "", fmt.Errorf("build: file %s comes from a step that is not among the dependencies", f.Path)
}

// Deps are the steps that make files, each once, in the files' order.
func Deps(files ...File) []*Step {
	var deps []*Step
	seen := map[*Step]bool{}
	for _, f := range files {
		if !seen[f.Step] {
			seen[f.Step] = true
			deps = append(deps, f.Step)
		}
	}
	return deps
}
