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
	return &cobra.Command{
		Use: "recovery-key", Short: "Make the key that opens the cluster's secrets when all else is lost", Args: cobra.NoArgs,
		Long: `Make the recovery key: it opens the secrets in a backup (rackseed recover) where no
replica's own way to them is left, as after its TPM was cleared. It is shown this once
and kept nowhere: write it down, away from the cluster. It replaces the one before,
which opens older backups only.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := o.connect()
			if err != nil {
				return err
			}
			return showRecoveryKey(cmd.Context(), c, cmd.OutOrStdout())
		},
	}
}

// showRecoveryKey makes a recovery key and shows it.
func showRecoveryKey(ctx context.Context, c *client.Client, to io.Writer) error {
	var key api.RecoveryKey
	if err := c.Call(ctx, http.MethodPost, recoveryKeyPath, nil, nil, &key); err != nil {
		return err
	}
	_, err := fmt.Fprintf(to, "Recovery key, which opens the cluster's secrets when all else is lost. It is shown this\nonce and kept nowhere: write it down, away from the cluster.\n\n  %s\n", key.Key)
	return err
}
