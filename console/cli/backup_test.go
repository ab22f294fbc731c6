package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rackseed/rackseed/services/keyring"
	"github.com/rackseed/rackseed/services/state"
)

// A backup is read again once it was saved, and what it is worth is said; one that broke
// off leaves no file.
func TestBackup(t *testing.T) {
	r := newRig(t)
	r.setup()
	file := filepath.Join(t.TempDir(), "one")
	if out := r.must("", "backup", file); !strings.HasPrefix(out, file+": ") || !strings.Contains(out, "of cluster ") {
		t.Errorf("it says %q", out)
	}
	r.fails("choose another name", "", "backup", file)
	saved, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"saved": saved, "piped": []byte(r.must("", "backup", "-"))} {
		past, err := state.ReadBackup(bytes.NewReader(b))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, there := past.View.User("ann"); !there {
			t.Errorf("%s: it does not know ann", name)
		}
		if err := past.Close(); err != nil {
			t.Error(err)
		}
	}
	broken := filepath.Join(t.TempDir(), "broken")
	if err := os.WriteFile(broken, append(saved[:len(saved)/2:len(saved)/2], saved[len(saved)/2+1:]...), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(broken)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if text, err := readBackup(f, int64(len(saved))); err == nil {
		t.Errorf("a broken one: %s", text)
	}

	// A recovery key opens those that were made since it was.
	made, recipient, err := keyring.NewRecoveryKey()
	if err != nil {
		t.Fatal(err)
	}
	data := keyring.NewKey()
	copied, err := keyring.Copy(recipient, data)
	if err != nil {
		t.Fatal(err)
	}
	r.Must(state.RecoveryPut{Recipient: recipient, Copy: copied, Keys: []string{data.ID}})
	key, after := filepath.Join(t.TempDir(), "key"), filepath.Join(t.TempDir(), "after")
	if err := os.WriteFile(key, []byte(made+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.must("", "backup", after)
	if out := r.must("", "backup", after, "--check", key); !strings.Contains(out, "The recovery key opens it.") {
		t.Errorf("it says %q", out)
	}
	r.fails("recovery key", "", "backup", file, "--check", key)
}
