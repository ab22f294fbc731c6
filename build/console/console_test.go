package console

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestMissingSourcesAreNamed(t *testing.T) {
	if _, err := Step(t.TempDir(), nil); err == nil || !strings.Contains(err.Error(), "console/web/package-lock.json") {
		t.Errorf("got %v", err)
	}
}

func TestCopySourcesLeavesOutWhatIsMade(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	for _, p := range []string{"src/a.ts", "node_modules/x/index.js", "dist/index.html"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(from, p)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(from, p), []byte(p), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := copySources(from, to); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(to)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 || entries[0].Name() != "src" {
		t.Errorf("copied %v", entries)
	}
}
