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

type recoveryKeyOutput struct {
	NoStore string `header:"Cache-Control"`
	Body    RecoveryKey
}

func (s *Server) registerRecoveryKey(api huma.API) {
	huma.Register(api, operation("recovery-key", http.MethodPost, "/api/recovery-key", "cluster",
		"Make a recovery key, which replaces the one before: it opens the secrets in backups that are made from now on, and is shown this once", http.StatusConflict),
		func(ctx context.Context, _ *struct{}) (*recoveryKeyOutput, error) {
			key, recipient, err := keyring.NewRecoveryKey()
			if err != nil {
				return nil, huma.Error500InternalServerError(err.Error())
			}
			c, err := s.Store.View().CopyKeys(recipient)
			if err != nil {
				return nil, huma.Error409Conflict("a recovery key: " + err.Error())
			}
			if _, err := s.propose(ctx, c); err != nil {
				return nil, err
			}
			return &recoveryKeyOutput{NoStore: "no-store", Body: RecoveryKey{Key: key}}, nil
		})
}
