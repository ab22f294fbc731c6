package events

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/rackseed/rackseed/services/wire"
)

func TestFresh(t *testing.T) {
	abc := []string{"a", "b", "c"}
	for name, c := range map[string]struct {
		out         wire.Output
		next        uint64
		first, last uint64
		text        string
	}{
		"first":        {wire.Output{Stream: "s", First: 1, Lines: abc}, 1, 1, 3, "a\nb\nc\n"},
		"goes on":      {wire.Output{Stream: "s", First: 4, Lines: abc}, 4, 4, 6, "a\nb\nc\n"},
		"overlaps":     {wire.Output{Stream: "s", First: 2, Lines: abc}, 4, 4, 4, "c\n"},
		"all known":    {wire.Output{Stream: "s", First: 1, Lines: abc}, 4, 0, 0, ""},
		"long known":   {wire.Output{Stream: "s", First: 1, Lines: abc}, 99, 0, 0, ""},
		"after a gap":  {wire.Output{Stream: "s", First: 5, Lines: abc}, 4, 0, 0, ""},
		"nothing":      {wire.Output{Stream: "s", First: 1}, 1, 0, 0, ""},
		"an empty one": {wire.Output{Stream: "s", First: 1, Lines: []string{""}}, 1, 1, 1, "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := fresh(c.out, c.next)
			if err != nil || r.first != c.first || r.last != c.last || string(r.text) != c.text {
				t.Errorf("%d to %d: %q, %v; want %d to %d: %q", r.first, r.last, r.text, err, c.first, c.last, c.text)
			}
		})
	}
	for name, out := range map[string]wire.Output{
		"no stream":   {First: 1},
		"odd stream":  {Stream: "../x", First: 1},
		"long stream": {Stream: strings.Repeat("s", 65), First: 1},
		"line 0":      {Stream: "s", Lines: abc},
		"overflow":    {Stream: "s", First: 1<<64 - 2, Lines: abc},
		"too many":    {Stream: "s", First: 1, Lines: make([]string, MaxLines+1)},
	} {
		if r, err := fresh(out, 1); err == nil {
			t.Errorf("%s: taken: %+v", name, r)
		}
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"plain":                "plain",
		"ends\r\n":             "ends",
		"two\nlines":           "two lines",
		"tab\tand \x1b[31mred": "tab\tand \x1b[31mred",
		"bell\a null\x00":      "bell null",
		"broken \xff":          "broken ?",
		"ünïcode …":            "ünïcode …",
	} {
		if got := clean(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	if got := clean(strings.Repeat("x", MaxLine)); len(got) != MaxLine {
		t.Errorf("a line of the greatest length was cut to %d", len(got))
	}
	for _, long := range []string{strings.Repeat("x", MaxLine+1), strings.Repeat("…", MaxLine)} {
		got := clean(long)
		if len(got) > MaxLine || !utf8.ValidString(got) || !strings.Contains(got, " [cut: it had ") || strings.Contains(got, "?") {
			t.Errorf("%d bytes became %d: …%q", len(long), len(got), got[len(got)-50:])
		}
	}
}

// However a machine splits and repeats its lines, what is stored is each once,
// in order, and reads back alike.
func FuzzFresh(f *testing.F) {
	f.Add("a\nb\n\nc", uint8(1), uint8(2))
	f.Add("", uint8(0), uint8(0))
	f.Add("x\x00\xff", uint8(9), uint8(1))
	f.Fuzz(func(t *testing.T, text string, first, next uint8) {
		lines := strings.Split(text, "\n")
		out := wire.Output{Stream: "s", First: uint64(first), Lines: lines}
		r, err := fresh(out, max(uint64(next), 1))
		if err != nil || len(r.text) == 0 {
			return
		}
		back := split(r.text)
		if r.first != max(uint64(next), 1) || uint64(len(back)) != r.last-r.first+1 {
			t.Fatalf("%d to %d: %q", r.first, r.last, back)
		}
		var want []string
		for _, l := range lines[r.first-uint64(first):] {
			want = append(want, clean(l))
		}
		if !slices.Equal(back, want) {
			t.Fatalf("%q, want %q", back, want)
		}
	})
}
