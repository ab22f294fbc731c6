package api

import (
	"net/http"
	"testing"

	"github.com/rackseed/rackseed/services/keyring"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/statetest"
)

// A recovery key opens the keys' copy that is in the state; the next one takes its
// place. None is in an event.
func TestRecoveryKey(t *testing.T) {
	r := newRig(t)
	r.want(http.StatusUnauthorized, "POST", "/api/recovery-key", "")
	r.want(http.StatusConflict, "POST", "/api/recovery-key", "", bearer(siteToken)) // its cluster names no data key
	r.Must(state.KeyNext{Key: statetest.NextKey})
	r.Must(state.KeyTurn{Key: statetest.NextKey})
	a := r.want(http.StatusOK, "POST", "/api/recovery-key", "", bearer(siteToken))
	if a.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("it may be kept: %v", a.Header)
	}
	first := decode[RecoveryKey](t, a.body).Key
	old := r.View().Keyring().Copy
	r.want(http.StatusConflict, "POST", "/api/recovery-key", "", bearer(siteToken))
	r.want(http.StatusConflict, "POST", "/api/recovery-key", `{}`, bearer(siteToken))
	if now := r.View().Keyring().Copy; string(now) != string(old) {
		t.Error("it was replaced unasked")
	}
	second := decode[RecoveryKey](t, r.want(http.StatusOK, "POST", "/api/recovery-key", `{"replace": true}`, bearer(siteToken)).body).Key
	now := r.View().Keyring().Copy
	if keys, err := keyring.Recover(second, now); err != nil || len(keys) != 1 || keys[0].ID != statetest.NextKey {
		t.Errorf("%v, %v", keys, err)
	}
	if _, err := keyring.Recover(first, now); err == nil {
		t.Error("the replaced key opened the newer copy")
	}
	if _, err := keyring.Recover(first, old); err != nil {
		t.Errorf("its own copy, as an older backup has it: %v", err)
	}
}
