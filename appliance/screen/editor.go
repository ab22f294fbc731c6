package screen

import (
	"strings"
	"unicode/utf8"
)

// maxTyped is how long a line can get, in bytes: an SSH key has 750.
const maxTyped = 2000

// editor makes lines of what is typed on a terminal that does nothing by itself
// (raw mode). Both keys that terminals send for erasing work (BS and DEL), and
// both that end a line (CR and LF). Cursor keys and the like do nothing.
type editor struct {
	typed  []byte
	afterR bool // the last byte was CR: an LF belongs to it
	escape escape
}

// escape is where in an escape sequence of a key the editor is (ECMA-48).
type escape int

const (
	plain    escape = iota
	escaped         // after ESC
	sequence        // after ESC [
	oneMore         // after ESC O
)

// Lines that keys stand for.
const lineQuit = "quit"

// feed takes one byte, and returns what to echo, and a line once one ends.
func (e *editor) feed(b byte) (echo, line string, ended bool) {
	afterR := e.afterR
	e.afterR = b == '\r'
	switch e.escape {
	case escaped:
		e.escape = map[byte]escape{'[': sequence, 'O': oneMore}[b]
		return "", "", false
	case sequence:
		if b >= 0x40 && b <= 0x7e {
			e.escape = plain
		}
		return "", "", false
	case oneMore:
		e.escape = plain
		return "", "", false
	}
	switch {
	case b == '\n' && afterR:
	case b == '\r', b == '\n':
		return "\n", e.take(), true
	case b == 3, b == 4: // Ctrl-C, Ctrl-D
		e.typed = nil
		return "\n", lineQuit, true
	case b == '\b', b == 0x7f:
		_, size := utf8.DecodeLastRune(e.typed)
		if size == 0 {
			return "", "", false
		}
		e.typed = e.typed[:len(e.typed)-size]
		return "\b \b", "", false
	case b == 0x15: // Ctrl-U
		return strings.Repeat("\b \b", utf8.RuneCountInString(e.take())), "", false
	case b == 0x1b:
		e.escape = escaped
	case b < ' ':
	case len(e.typed) >= maxTyped:
		return "\a", "", false
	default:
		e.typed = append(e.typed, b)
		return string([]byte{b}), "", false
	}
	return "", "", false
}

// take returns what was typed, and begins anew.
func (e *editor) take() string {
	line := strings.ToValidUTF8(string(e.typed), "?")
	e.typed = nil
	return line
}
