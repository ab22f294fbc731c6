// Package journal keeps the appliance's log: the last lines in memory, for the
// screen, and more of them in files of bounded size on the stick.
package journal

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

const (
	ringLines = 1000
	maxLine   = 2048    // bytes; longer lines are cut
	fileBytes = 4 << 20 // of each of the two files
	fileName  = "appliance.log"
)

// Journal is a log of lines. It is an io.Writer for programs' output; each
// writer of lines in parts needs its own Writer.
type Journal struct {
	mu      sync.Mutex
	ring    []string // up to ringLines, oldest first
	changed func(line string)
	file    *os.File
	size    int64
	path    string
	lost    error // why there is no file any more
}

// OnLine has f called with each line, outside of any lock.
func (j *Journal) OnLine(f func(line string)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.changed = f
}

// Line adds one line.
func (j *Journal) Line(line string) {
	line = printable(line)
	j.mu.Lock()
	if len(j.ring) >= ringLines {
		j.ring = append(j.ring[:0], j.ring[1:]...)
	}
	j.ring = append(j.ring, line)
	if err := j.store(line); err != nil {
		j.lost, j.file = err, nil
		j.ring = append(j.ring, fmt.Sprintf("journal: %v; lines are kept in memory only from here", err))
	}
	changed := j.changed
	j.mu.Unlock()
	if changed != nil {
		changed(line)
	}
}

// Last returns the last n lines, oldest first.
func (j *Journal) Last(n int) []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]string(nil), j.ring[max(0, len(j.ring)-n):]...)
}

// Open keeps the log in dir from now on, and writes there what is in memory.
// Two files are kept, of at most fileBytes each.
func (j *Journal) Open(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.path = filepath.Join(dir, fileName)
	f, err := os.OpenFile(j.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(fmt.Errorf("journal: %w", err), f.Close())
	}
	j.file, j.size, j.lost = f, info.Size(), nil
	for _, line := range append([]string{"---- the machine started"}, j.ring...) {
		if err := j.store(line); err != nil {
			return fmt.Errorf("journal: %w", err)
		}
	}
	return nil
}

// Close ends the file; lines are kept in memory again.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		return j.lost
	}
	err := errors.Join(j.file.Sync(), j.file.Close())
	j.file = nil
	return err
}

// store appends a line to the file, if there is one. When the file is full, it
// takes the place of the older one.
func (j *Journal) store(line string) error {
	if j.file == nil {
		return nil
	}
	if j.size > 0 && j.size+int64(len(line))+1 > fileBytes {
		if err := errors.Join(j.file.Close(), os.Rename(j.path, j.path+".1")); err != nil {
			return err
		}
		f, err := os.OpenFile(j.path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		j.file, j.size = f, 0
	}
	n, err := j.file.WriteString(line + "\n")
	j.size += int64(n)
	return err
}

// printable cuts a line and drops what would act on a terminal: a machine's
// name comes from outside.
func printable(line string) string {
	if len(line) > maxLine {
		line = line[:maxLine] + "…"
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case r < ' ', r >= 0x7f && r < 0xa0:
			return -1
		}
		return r
	}, strings.ToValidUTF8(line, "?"))
}

// Writer splits what is written into lines of the journal. It is for one
// writer.
type Writer struct {
	Journal *Journal
	part    []byte
}

func (w *Writer) Write(p []byte) (int, error) {
	w.part = append(w.part, p...)
	for {
		i := bytes.IndexByte(w.part, '\n')
		if i < 0 && len(w.part) <= maxLine {
			return len(p), nil
		}
		if i < 0 {
			i = maxLine
		}
		w.Journal.Line(string(w.part[:i]))
		w.part = bytes.TrimPrefix(w.part[i:], []byte("\n"))
	}
}
