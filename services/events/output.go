// Package events keeps and reads machines' output: the lines that installers
// and node agents send.
//
// Lines are stored in chunks outside the log: a chunk is a file named by its
// digest, and the log has its manifest. A line is acknowledged when the manifest of its chunk is
// committed, so what a machine sent twice is stored once and nothing is lost
// between two leaders.
package events

import (
	"bytes"
	"fmt"
	"math"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/rackseed/rackseed/services/wire"
)

// Limits of one request.
const (
	MaxLine  = 8 << 10 // bytes; the rest of a longer line is cut off, and a mark says so
	MaxLines = 10_000
)

// streamForm is what a stream may be named: an installer's session, or "node-"
// and a boot ID.
var streamForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.-]{0,63}$`)

// run is lines that the state does not have yet, as a chunk.
type run struct {
	first, last uint64
	text        []byte // each line ended by \n
}

// fresh splits off what is known already: next is the first line that is not.
// A run without text is all known. Lines after a gap are not taken: the
// machine is told next, and sends from there.
func fresh(out wire.Output, next uint64) (run, error) {
	switch {
	case !streamForm.MatchString(out.Stream):
		return run{}, fmt.Errorf("output: stream %.80q: a session's ID or \"node-\" and a boot ID is expected", out.Stream)
	case len(out.Lines) > MaxLines:
		return run{}, fmt.Errorf("output: stream %s: %d lines at once: send %d at most", out.Stream, len(out.Lines), MaxLines)
	case out.First == 0 || out.First > math.MaxUint64-MaxLines:
		return run{}, fmt.Errorf("output: stream %s: first line is number %d: lines count from 1", out.Stream, out.First)
	case out.First > next:
		return run{}, nil
	}
	known := next - out.First
	if known >= uint64(len(out.Lines)) {
		return run{}, nil
	}
	lines := out.Lines[known:]
	var b bytes.Buffer
	for _, l := range lines {
		b.WriteString(clean(l))
		b.WriteByte('\n')
	}
	return run{next, next + uint64(len(lines)) - 1, b.Bytes()}, nil
}

// clean makes a line fit to be one: valid UTF-8, no line ends and no controls
// but tab and escape (colours), not longer than MaxLine.
func clean(l string) string {
	whole := len(l)
	if whole > MaxLine {
		// The mark is made room for, and no character is cut in two.
		cut := MaxLine - 40
		for cut > 0 && !utf8.RuneStart(l[cut]) {
			cut--
		}
		l = l[:cut]
	}
	l = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\r':
			return ' '
		case r == utf8.RuneError:
			return '?'
		case r < ' ' && r != '\t' && r != 0x1b, r == 0x7f:
			return -1
		}
		return r
	}, strings.TrimRight(l, "\r\n"))
	if whole > MaxLine {
		l += fmt.Sprintf(" [cut: it had %d bytes]", whole)
	}
	return l
}

// split is the reverse of a run's text.
func split(text []byte) []string {
	s := strings.TrimSuffix(string(text), "\n")
	return strings.Split(s, "\n")
}
