//go:build full

package scenario

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// report is what the rows of all tables came to, for people: out/firmware.md,
// written anew after each row.
var report struct {
	mu     sync.Mutex
	tables []*table
}

// table is one of them.
type table struct {
	title string
	rows  []row
}

type row struct {
	name, result string
	took         time.Duration
}

func newTable(t *testing.T, title string) *table {
	t.Helper()
	report.mu.Lock()
	defer report.mu.Unlock()
	table := &table{title: title}
	report.tables = append(report.tables, table)
	return table
}

// run runs one row as a test of its own. f says in a few words what was seen.
func (b *table) run(t *testing.T, name string, f func(t *testing.T) string) {
	t.Run(name, func(t *testing.T) {
		began := time.Now()
		result := "FAILED"
		defer func() {
			if err := b.add(row{name, result, time.Since(began)}); err != nil {
				t.Error(err)
			}
		}()
		result = f(t)
		t.Logf("%s: %s", name, result)
	})
}

func (b *table) add(r row) error {
	report.mu.Lock()
	defer report.mu.Unlock()
	b.rows = append(b.rows, r)
	p, err := built()
	if err != nil {
		return err
	}
	var text strings.Builder
	for _, b := range report.tables {
		fmt.Fprintf(&text, "## %s\n\n| row | result | took |\n|---|---|---|\n", b.title)
		for _, r := range b.rows {
			fmt.Fprintf(&text, "| %s | %s | %.0f s |\n", r.name, r.result, r.took.Seconds())
		}
		text.WriteString("\n")
	}
	return os.WriteFile(filepath.Join(p.Repository, "out", "firmware.md"), []byte(text.String()), 0o644)
}
