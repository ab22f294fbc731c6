package tools

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// WriteScripts writes a script for each of the root's programs into dir, by
// its name: with dir in PATH they are found and run like installed ones. The
// scripts hold the root's absolute path. Programs that are scripts themselves
// are refused: what they call would be the host's.
func (r Root) WriteScripts(dir string, names ...string) error {
	for _, name := range names {
		path, err := r.Path(name)
		if err != nil {
			return err
		}
		if interpreted(path) {
			return fmt.Errorf("tool %s: %s is a script and would run what the host has", name, path)
		}
		libs := r.at(libDir)
		if own, err := os.Stat(r.at(libDir + "/" + name)); err == nil && own.IsDir() { // libraries of its own
			libs += ":" + r.at(libDir+"/"+name)
		}
		// exec, so that signals reach the program and not a shell.
		text := fmt.Sprintf("#!/bin/sh\nexec %s --library-path %s --argv0 %s %s \"$@\"\n",
			Quote(r.at(loader)), Quote(libs), Quote(name), Quote(path))
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			return fmt.Errorf("tool %s: %w", name, err)
		}
	}
	return nil
}

// Quote makes text one word of a shell's command line.
func Quote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }
