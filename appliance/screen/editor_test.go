package screen

import (
	"reflect"
	"strings"
	"testing"
)

func TestEditor(t *testing.T) {
	for _, c := range []struct {
		name, typed string
		lines       []string
		echo        string
	}{
		{"ends of lines", "a\rb\nc\r\nd\r\r", []string{"a", "b", "c", "d", ""}, "a\nb\nc\nd\n\n"},
		{"erasing with either key", "abc\b\x7fx\r", []string{"ax"}, "abc\b \b\b \bx\n"},
		{"erasing more than there is", "\b\b\x7f\r", []string{""}, "\n"},
		{"a letter of two bytes goes whole", "a\xc3\xa9\b\r", []string{"a"}, "a\xc3\xa9\b \b\n"},
		{"a whole line", "abc\x15de\r", []string{"de"}, "abc\b \b\b \b\b \bde\n"},
		{"cursor and function keys", "a\x1b[A\x1b[15~\x1bOPb\r", []string{"ab"}, "ab\n"},
		{"Ctrl-C and Ctrl-D", "ab\x03x\x04", []string{"quit", "quit"}, "ab\nx\n"},
		{"noise", "\x00\x07a\xff\r", []string{"a?"}, "a\xff\n"},
	} {
		var e editor
		var lines []string
		var echo strings.Builder
		for i := range len(c.typed) {
			text, line, ended := e.feed(c.typed[i])
			echo.WriteString(text)
			if ended {
				lines = append(lines, line)
			}
		}
		if !reflect.DeepEqual(lines, c.lines) || echo.String() != c.echo {
			t.Errorf("%s: lines %q, echo %q", c.name, lines, echo.String())
		}
	}
}

func TestEditorIsBounded(t *testing.T) {
	var e editor
	for range 3 * maxTyped {
		e.feed('x')
	}
	if echo, _, _ := e.feed('y'); echo != "\a" {
		t.Errorf("echo %q", echo)
	}
	if _, line, _ := e.feed('\r'); len(line) != maxTyped {
		t.Errorf("%d bytes", len(line))
	}
}
