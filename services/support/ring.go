package support

import (
	"bytes"
	"sync"
)

// ringBytes is how much of a log is kept at least, and half of the most.
const ringBytes = 256 << 10

// Ring is an io.Writer that keeps the newest lines of a log. A nil one keeps
// nothing.
type Ring struct {
	mu    sync.Mutex
	lines []byte
}

// Write keeps p. What is older than the newest 256 KiB goes, by whole lines,
// once there are 512.
func (r *Ring) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, p...)
	if over := len(r.lines) - ringBytes; over > ringBytes {
		end := bytes.IndexByte(r.lines[over:], '\n') + 1
		r.lines = bytes.Clone(r.lines[over+end:])
	}
	return len(p), nil
}

// Bytes are the lines that are kept, oldest first.
func (r *Ring) Bytes() []byte {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return bytes.Clone(r.lines)
}
