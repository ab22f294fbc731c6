package bench

import (
	"io"
	"strings"
	"testing"
)

func TestExpected(t *testing.T) {
	for _, c := range []struct {
		name, got, rest, wrong string
	}{
		{"all of it", "abcdef", "", ""},
		{"a part", "abcd", "ef", ""},
		{"nothing", "", "abcdef", ""},
		{"other bytes", "abxdef", "cdef", "other bytes than expected, 4 before the end"},
		{"too much", "abcdefg", "ef", "other bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := expected{rest: []byte("abcdef")}
			var err error
			// As they come: two bytes, and the rest.
			for _, part := range []string{c.got[:min(2, len(c.got))], c.got[min(2, len(c.got)):min(4, len(c.got))], c.got[min(4, len(c.got)):]} {
				if err == nil {
					_, err = io.WriteString(&e, part)
				}
			}
			if (err == nil) != (c.wrong == "") || err != nil && !strings.Contains(err.Error(), c.wrong) {
				t.Errorf("error %v, want %q", err, c.wrong)
			}
			if string(e.rest) != c.rest {
				t.Errorf("rest %q, want %q", e.rest, c.rest)
			}
		})
	}
}
