package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/rackseed/rackseed/services/keyring"
)

// RecoveryKey opens the cluster's secrets where every replica's own way to them is
// lost. It is kept nowhere.
type RecoveryKey struct {
	Key string `json:"key" doc:"An age identity (X25519). It is shown this once."`
}

// RecoveryKeyRequest makes a recovery key.
type RecoveryKeyRequest struct {
	Replace bool `json:"replace,omitempty" doc:"Replace the one that there is, which opens older backups only from then on; without it that is refused."`
}

type recoveryKeyOutput struct {
	NoStore string `header:"Cache-Control"`
	Body    RecoveryKey
}

func (s *Server) registerRecoveryKey(api huma.API) {
	huma.Register(api, operation("recovery-key", http.MethodPost, "/api/recovery-key", "cluster",
		"Make a recovery key, or replace it: it opens the secrets in backups that are made from now on, and is shown this once", http.StatusConflict),
		func(ctx context.Context, in *struct{ Body *RecoveryKeyRequest }) (*recoveryKeyOutput, error) {
			view := s.Store.View()
			if view.Keyring().Recipient != "" && (in.Body == nil || !in.Body.Replace) {
				return nil, huma.Error409Conflict("there is a recovery key already: only if nobody has it, replace it")
			}
			key, recipient, err := keyring.NewRecoveryKey()
			if err != nil {
				return nil, huma.Error500InternalServerError(err.Error())
			}
			c, err := view.CopyKeys(recipient)
			if err != nil {
				return nil, huma.Error409Conflict("a recovery key: " + err.Error())
			}
			if _, err := s.propose(ctx, c); err != nil {
				return nil, err
			}
			return &recoveryKeyOutput{NoStore: "no-store", Body: RecoveryKey{Key: key}}, nil
		})
}
