package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/rackseed/rackseed/console/client"
	"github.com/rackseed/rackseed/services/api"
)

const recoveryKeyPath = "/api/recovery-key"

func (o *options) recoveryKey() *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use: "recovery-key", Short: "Make the key that opens the cluster's secrets when all else is lost", Args: cobra.NoArgs,
		Long: `Make the recovery key: it opens the secrets in a backup (rackseed recover) where no
replica's own way to them is left, as after its TPM was cleared. It is shown this once
and kept nowhere: write it down, away from the cluster. If there is one already it asks.
The old key then opens only the backups that were made until now, and the new one only
those from now on: keep the old key with the old backups, or save a backup anew.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := o.connect()
			if err != nil {
				return err
			}
			there, err := hasRecoveryKey(cmd.Context(), c)
			if err == nil && there && !yes {
				err = consent(cmd, "There is a recovery key already. Once it is replaced it opens only the backups that were made until now, and the new one only those from now on: save a backup anew then.", "Replace it?")
			}
			if err != nil {
				return err
			}
			return showRecoveryKey(cmd.Context(), c, cmd.OutOrStdout(), api.RecoveryKeyRequest{Replace: there})
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}

// firstRecoveryKey makes a recovery key and shows it, if there is none.
func firstRecoveryKey(ctx context.Context, c *client.Client, to io.Writer) error {
	there, err := hasRecoveryKey(ctx, c)
	switch {
	case err != nil:
		return err
	case there:
		_, err := fmt.Fprintln(to, "There is a recovery key already, and it stays. If nobody has it, replace it, with: rackseed recovery-key")
		return err
	}
	return showRecoveryKey(ctx, c, to, api.RecoveryKeyRequest{})
}

func hasRecoveryKey(ctx context.Context, c *client.Client) (bool, error) {
	var h api.Handoff
	err := c.Call(ctx, http.MethodGet, "/api/handoff", nil, nil, &h)
	return h.RecoveryKey, err
}

// showRecoveryKey makes a recovery key and shows it.
func showRecoveryKey(ctx context.Context, c *client.Client, to io.Writer, in api.RecoveryKeyRequest) error {
	var key api.RecoveryKey
	if err := c.Call(ctx, http.MethodPost, recoveryKeyPath, nil, in, &key); err != nil {
		return err
	}
	_, err := fmt.Fprintf(to, "Recovery key, which opens the cluster's secrets when all else is lost. It is shown this\nonce and kept nowhere: write it down, away from the cluster.\n\n  %s\n", key.Key)
	return err
}
