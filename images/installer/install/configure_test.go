package install

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The secret can be read by root alone, and is gone afterwards, whatever
// happened, with the copies that Ignition keeps beside it.
func TestWithSecret(t *testing.T) {
	for _, want := range []error{nil, errors.New("ignition failed")} {
		dir := filepath.Join(t.TempDir(), "rackseed")
		err := withSecret(dir, configFile, []byte("secret"), func() error {
			for path, mode := range map[string]os.FileMode{dir: 0o700 | os.ModeDir, filepath.Join(dir, configFile): 0o600} {
				if info, err := os.Stat(path); err != nil || info.Mode() != mode {
					t.Errorf("%s: %v, %v", path, info, err)
				}
			}
			if b, err := os.ReadFile(filepath.Join(dir, configFile)); err != nil || string(b) != "secret" {
				t.Errorf("%q, %v", b, err)
			}
			if err := os.WriteFile(filepath.Join(dir, "ignition.json"), []byte("secret"), 0o644); err != nil {
				t.Fatal(err)
			}
			return want
		})
		if !errors.Is(err, want) {
			t.Errorf("%v, wanted %v", err, want)
		}
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("after %v it is still there: %v", want, err)
		}
	}
}

// A program's child that keeps its output open does not keep the install.
func TestCommandEndsWithoutItsChildren(t *testing.T) {
	cmd := command(t.Context(), "", "/bin/sh", "-c", "echo said; sleep 20 &")
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Run(); !errors.Is(err, exec.ErrWaitDelay) || out.String() != "said\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
}
