package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/goccy/go-yaml"

	"github.com/rackseed/rackseed/services/machine"
)

// Forms of output.
const (
	outputText = "text"
	outputWide = "wide" // text, with more columns where there are some
	outputJSON = "json"
	outputYAML = "yaml"
)

// known refuses a form that there is not, before anything is done.
func (o *options) known() error {
	switch o.output {
	case outputText, outputWide, outputJSON, outputYAML:
		return nil
	}
	return usageError{fmt.Errorf("-o %s: text, wide, json and yaml are known", o.output)}
}

// plain says whether the output is for people.
func (o *options) plain() bool { return o.output == outputText || o.output == outputWide }

// render writes an answer in the form that was asked for.
func render[T any](o *options, w io.Writer, answer []byte, text func(io.Writer, T) error) error {
	switch o.output {
	case outputJSON:
		var v any
		if err := json.Unmarshal(answer, &v); err != nil {
			return err
		}
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(v)
	case outputYAML:
		return writeYAML(w, answer)
	}
	var v T
	if err := json.Unmarshal(answer, &v); err != nil {
		return notExpected(err)
	}
	return text(w, v)
}

func notExpected(err error) error {
	return fmt.Errorf("the answer is not what was expected: %w; is the boot service of the same version?", err)
}

// renderItem writes one of many that come one after the other: a line of JSON,
// or a document of YAML.
func (o *options) renderItem(w io.Writer, item any) error {
	b, err := json.Marshal(item)
	if err != nil {
		return err
	}
	if o.output == outputYAML {
		if _, err := io.WriteString(w, "---\n"); err != nil {
			return err
		}
		return writeYAML(w, b)
	}
	_, err = w.Write(append(b, '\n'))
	return err
}

func writeYAML(w io.Writer, answer []byte) error {
	y, err := yaml.JSONToYAML(answer)
	if err != nil {
		return err
	}
	_, err = w.Write(y)
	return err
}

// table lays out rows in columns. What was written keeps its columns when more
// rows come.
type table struct {
	rows   [][]string
	widths []int
}

func newTable(head ...string) *table {
	t := &table{}
	t.add(head...)
	return t
}

// add adds a row. Cells come from machines too: they are cleaned.
func (t *table) add(cells ...string) {
	for i, c := range cells {
		if cells[i] = clean(c); cells[i] == "" {
			cells[i] = "-"
		}
	}
	t.rows = append(t.rows, cells)
}

// flush writes the rows that were added.
func (t *table) flush(w io.Writer) error {
	for _, row := range t.rows {
		for i, c := range row {
			if i == len(t.widths) {
				t.widths = append(t.widths, 0)
			}
			t.widths[i] = max(t.widths[i], utf8.RuneCountInString(c))
		}
	}
	var b strings.Builder
	for _, row := range t.rows {
		for i, c := range row {
			b.WriteString(c)
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", t.widths[i]-utf8.RuneCountInString(c)+2))
			}
		}
		b.WriteByte('\n')
	}
	t.rows = nil
	_, err := io.WriteString(w, b.String())
	return err
}

// facts lays out names and values, one a line.
type facts struct{ table }

// add adds a line, unless there is nothing to say.
func (f *facts) add(name, value string) {
	if value != "" {
		f.table.add(name, value)
	}
}

// clean takes from a machine's words what would command the terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case r < ' ' || r >= 0x7f && r < 0xa0:
			return '�'
		}
		return r
	}, s)
}

// count is a number of things in words.
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

func size(bytes uint64) string {
	switch {
	case bytes >= 1<<30:
		return machine.DiskSize(bytes)
	case bytes >= 1<<20:
		return fmt.Sprintf("%d MiB", bytes>>20)
	}
	return fmt.Sprintf("%d KiB", (bytes+1023)>>10)
}

// span writes a duration without what is zero: 1h30m.
func span(d time.Duration) string {
	s := d.Round(time.Second).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func ago(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return span(time.Since(t)) + " ago"
}

// at is a time for people, here.
func at(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format(time.DateTime)
}
