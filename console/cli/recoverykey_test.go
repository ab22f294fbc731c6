package cli

import (
	"bytes"
	"strings"
	"testing"

	"github.com/rackseed/rackseed/services/api"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/statetest"
)

// The first setup makes the recovery key; nothing replaces it unasked.
func TestRecoveryKey(t *testing.T) {
	r := newRig(t)
	r.Must(state.KeyNext{Key: statetest.NextKey})
	r.Must(state.KeyTurn{Key: statetest.NextKey})
	const key = "AGE-SECRET-KEY-1"
	setup := func(name string) string {
		t.Helper()
		return r.must("correct horse\n", "setup", "--server", r.url, "--fingerprint", r.fingerprint, "--code", code, "--name", name)
	}
	if out := setup("ann"); !strings.Contains(out, key) {
		t.Fatalf("the first setup: %s", out)
	}
	first := r.View().Keyring().Copy
	r.Must(state.SetupRenew{SetupHash: api.SetupHash(code)})
	if out := setup("bob"); strings.Contains(out, key) || !strings.Contains(out, "it stays") {
		t.Errorf("setup by a code that was made anew: %s", out)
	}
	r.fails("There is a recovery key already", "", "recovery-key")
	if !bytes.Equal(first, r.View().Keyring().Copy) {
		t.Error("it was replaced unasked")
	}
	if out := r.must("", "recovery-key", "--yes"); !strings.Contains(out, key) || bytes.Equal(first, r.View().Keyring().Copy) {
		t.Errorf("replaced: %s", out)
	}
}
