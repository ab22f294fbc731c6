package notrun

import (
	"os"
	"path/filepath"
	"testing"
)

func TestWhole(t *testing.T) {
	for text, want := range map[string]bool{
		"         0          0 4294967295\n":                        true,
		"         0       1000          1\n":                        false,
		"         0          0      65536\n":                        false,
		"         0       1000          1\n  1     100000  65536\n": false,
		"": false,
	} {
		if got := whole(text); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestSkippedIsNamed(t *testing.T) {
	list := filepath.Join(t.TempDir(), "list")
	if err := os.WriteFile(list, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv(Variable, list)
	t.Run("mount", func(t *testing.T) { skip(t, "to mount") })
	got, err := os.ReadFile(list)
	if want := "TestSkippedIsNamed/mount: to mount\n"; err != nil || string(got) != want {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
}
