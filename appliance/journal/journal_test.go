package journal

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestLinesAreBoundedAndPrintable(t *testing.T) {
	j := &Journal{}
	for i := range ringLines + 10 {
		j.Line(fmt.Sprint("line ", i))
	}
	if got := j.Last(5000); len(got) != ringLines || got[0] != "line 10" {
		t.Errorf("%d lines, the first %q", len(got), got[0])
	}
	j.Line("name \x1b[2J\a\xff and \ttab" + strings.Repeat("x", 2*maxLine))
	got := j.Last(1)[0]
	if strings.ContainsAny(got, "\x1b\a\t\xff") || len(got) > maxLine+3 || !strings.HasPrefix(got, "name [2J") {
		t.Errorf("line %q", got[:40])
	}
}

func TestWriterSplitsLines(t *testing.T) {
	j := &Journal{}
	w := &Writer{Journal: j}
	for _, p := range []string{"one\ntw", "o\n\n", strings.Repeat("z", maxLine+5)} {
		if n, err := w.Write([]byte(p)); n != len(p) || err != nil {
			t.Fatalf("Write: %d, %v", n, err)
		}
	}
	if got, want := j.Last(9), []string{"one", "two", "", strings.Repeat("z", maxLine)}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %q", got)
	}
}

func TestFilesAreBoundedAndKeepTheNewest(t *testing.T) {
	dir := t.TempDir()
	j := &Journal{}
	j.Line("before there was a stick")
	if err := j.Open(dir); err != nil {
		t.Fatal(err)
	}
	line := strings.Repeat("y", 1000)
	for range 3 * fileBytes / 1000 {
		j.Line(line)
	}
	j.Line("the newest")
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 2 {
		t.Errorf("%d files", len(entries))
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() > fileBytes {
			t.Errorf("%s has %d bytes", e.Name(), info.Size())
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, fileName))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(string(b), "the newest\n") {
		t.Error("the newest line is not in the file")
	}
}

func TestOpenWritesWhatWasBefore(t *testing.T) {
	dir := t.TempDir()
	j := &Journal{}
	j.Line("early")
	if err := j.Open(dir); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, fileName))
	if err != nil {
		t.Fatal(err)
	}
	if string(b) != "---- the machine started\nearly\n" {
		t.Errorf("file %q", b)
	}
	// A dead stick is told once, and does not end the log.
	if err := j.file.Close(); err != nil {
		t.Fatal(err)
	}
	j.Line("after the stick died")
	j.Line("still there")
	last := j.Last(3)
	if last[2] != "still there" || !strings.Contains(last[1], "memory only") {
		t.Errorf("last lines %q", last)
	}
}
