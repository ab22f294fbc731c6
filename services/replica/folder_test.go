package replica

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A folder that is another replica's in part is refused, with what to do.
func TestFolderOfOthers(t *testing.T) {
	made := func() string {
		t.Helper()
		dir := t.TempDir()
		if err := start(t, dir, false).stop(); err != nil {
			t.Fatal(err)
		}
		return filepath.Join(dir, "data")
	}
	for name, c := range map[string]struct {
		spoil func(data string) error
		want  string
	}{
		"its state is gone":    {func(data string) error { return os.RemoveAll(filepath.Join(data, "state")) }, "must not begin anew under its name"},
		"its identity is gone": {func(data string) error { return os.RemoveAll(filepath.Join(data, "identity")) }, "it was copied in part"},
		"another one's state": {func(data string) error {
			if err := os.RemoveAll(filepath.Join(data, "state")); err != nil {
				return err
			}
			return os.Rename(filepath.Join(made(), "state"), filepath.Join(data, "state"))
		}, "the log belongs to"},
	} {
		data := made()
		if err := c.spoil(data); err != nil {
			t.Fatal(err)
		}
		err := Run(t.Context(), Config{Data: data, Dev: true, HTTP: "127.0.0.1:0", HTTPS: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler)})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
