package netboot

import (
	"context"
	"crypto/ecdh"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/wire"
)

// joinLimit bounds what the cluster has to make a node's token.
const joinLimit = 20 * time.Second

// serveNodeJoin hands out what a node joins the cluster by, sealed to a key of
// the request. The join intent is claimed first; then the cluster is asked for
// a token, which may fail and is asked for again; and that one was made is told
// before it is handed out. The token itself is told nowhere.
func (s *Server) serveNodeJoin(w http.ResponseWriter, r *http.Request, c caller) error {
	key, err := sealKey(c, "join")
	if err != nil {
		return err
	}
	if s.JoinSecret == nil {
		return status(http.StatusServiceUnavailable, errors.New("this boot service was built without Kubernetes: no node joins"))
	}
	if err := s.binding(r, c.machine, state.JoinClaim{Machine: c.machine.ID, Intent: "j-" + randomHex(8)}); err != nil {
		return err
	}
	view := s.Store.View()
	intent := view.JoinIntent(c.machine.ID)
	if intent == nil {
		return status(http.StatusForbidden, errUnknownKey)
	}
	ctx, cancel := context.WithTimeout(r.Context(), joinLimit)
	defer cancel()
	secret, err := s.JoinSecret(ctx, view, c.machine, *intent)
	if err != nil {
		return status(http.StatusServiceUnavailable, fmt.Errorf("machine %s: join: %w", c.machine.ID, err))
	}
	sealed, err := sealFor(key, wire.JoinPurpose(string(c.machine.ID)), secret)
	if err != nil {
		return fmt.Errorf("machine %s: join: %w", c.machine.ID, err)
	}
	err = s.binding(r, c.machine, state.Note{
		Machine: c.machine.ID, What: "join.token", Severity: machine.Info,
		Text: fmt.Sprintf("A token was made by which %s joins, and sealed to it", nameOf(c.machine)),
		Data: map[string]string{"intent": intent.ID, "epoch": fmt.Sprint(intent.Epoch)},
	})
	if err != nil {
		return err
	}
	// Meanwhile it may have been revoked, or asked for once more.
	now := s.Store.View().JoinIntent(c.machine.ID)
	if now == nil || now.ID != intent.ID || now.Epoch != intent.Epoch || now.Status != machine.IntentClaimed {
		return status(http.StatusConflict, fmt.Errorf("machine %s: join intent %s has changed meanwhile: ask for the order again", c.machine.ID, intent.ID))
	}
	return writeJSON(w, sealed)
}

// sealKey is the key of a node's request, which a secret is sealed to.
func sealKey(c caller, what string) ([]byte, error) {
	var q wire.JoinRequest
	if err := readJSON(c.body, &q); err != nil {
		return nil, err
	}
	if _, err := ecdh.X25519().NewPublicKey(q.SealKey); err != nil {
		return nil, status(http.StatusBadRequest, fmt.Errorf("machine %s: %s: sealing key: %w", c.machine.ID, what, err))
	}
	return q.SealKey, nil
}

// sealFor seals a secret to a key.
func sealFor(key []byte, purpose string, secret any) (wire.Sealed, error) {
	plaintext, err := json.Marshal(secret)
	if err != nil {
		return wire.Sealed{}, err
	}
	return wire.Seal(key, purpose, plaintext)
}

// nameOf is a machine's name for people.
func nameOf(m machine.Machine) string {
	if m.Name != "" {
		return m.Name
	}
	return string(m.ID)
}
