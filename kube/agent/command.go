package agent

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// commands runs programs of the node image.
type commands struct {
	path string   // PATH
	env  []string // besides
}

// stopGrace is how long a program has to end after SIGTERM.
const stopGrace = 10 * time.Second

// Run runs a program and gives each line of its output and errors to line.
func (c commands) Run(ctx context.Context, line func(string), name string, args ...string) error {
	program, err := lookPath(c.path, name)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append([]string{"PATH=" + c.path, "HOME=/root", "LANG=C.UTF-8"}, c.env...)
	w := &lineWriter{line: line}
	cmd.Stdout, cmd.Stderr = w, w
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopGrace
	err = cmd.Run()
	w.flush()
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// lookPath looks in path, not in the agent's own PATH, which systemd chooses.
func lookPath(path, name string) (string, error) {
	for dir := range strings.SplitSeq(path, ":") {
		file := dir + "/" + name
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return file, nil
		}
	}
	return "", fmt.Errorf("%s is not in %s: the node image is not complete", name, path)
}

// lineWriter cuts a stream into lines. A line without an end is handed on in
// parts of maxLine.
type lineWriter struct {
	line func(string)
	mu   sync.Mutex
	rest []byte
}

func (w *lineWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rest = append(w.rest, p...)
	for {
		end := bytes.IndexByte(w.rest, '\n')
		switch {
		case end >= 0 && end <= maxLine:
			w.line(string(w.rest[:end]))
			w.rest = w.rest[end+1:]
		case len(w.rest) > maxLine:
			w.line(string(w.rest[:maxLine]))
			w.rest = w.rest[maxLine:]
		default:
			return len(p), nil
		}
	}
}

func (w *lineWriter) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.rest) > 0 {
		w.line(string(w.rest))
		w.rest = nil
	}
}

// digest keeps the errors of a unit's log: klog's E and F lines
// (E1124 12:00:00.000000  1 file.go:1] text) and logrus' level=error and
// level=fatal. Each text once, as it was last said; the last limit of them.
func digest(lines []string, limit int) []string {
	var errors []string
	seen := make(map[string]int)
	for _, l := range lines {
		key := l
		switch {
		case len(l) > 5 && (l[0] == 'E' || l[0] == 'F') && strings.Trim(l[1:5], "0123456789") == "":
			if _, text, found := strings.Cut(l, "] "); found {
				key = text
			}
		case strings.Contains(l, "level=error"), strings.Contains(l, "level=fatal"):
			if _, text, found := strings.Cut(l, " level="); found {
				key = text
			}
		default:
			continue
		}
		if at, found := seen[key]; found {
			errors[at] = ""
		}
		seen[key] = len(errors)
		errors = append(errors, l)
	}
	kept := errors[:0]
	for _, l := range errors {
		if l != "" {
			kept = append(kept, l)
		}
	}
	return kept[max(0, len(kept)-limit):]
}
