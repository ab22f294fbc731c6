package cli

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/rackseed/rackseed/services/state"
)

func (o *options) backup() *cobra.Command {
	return &cobra.Command{
		Use: "backup FILE", Short: "Save a backup of all that the boot service knows, for rackseed recover --from; - is standard output", Args: cobra.ExactArgs(1),
		Long: `Save a backup of all that the boot service knows, for rackseed recover --from.

It holds machines, leases, events and the site, hashes of passwords, and the cluster's
secrets, sealed: the recovery key opens them (rackseed recovery-key). Images are not in it.
Each replica writes one to its own disk each day; this one is for elsewhere.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.save(cmd, "/api/backup", args[0], readBackup)
		},
	}
}

// readBackup reads a backup that was saved, as recover would.
func readBackup(f *os.File, n int64) (string, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	past, err := state.ReadBackup(f)
	if err != nil {
		return "", err
	}
	cluster, _ := past.View.Cluster()
	text := fmt.Sprintf("%s, up to entry %d of cluster %s. ", size(uint64(n)), past.Last, cluster.ID)
	if past.View.Keyring().Recipient == "" {
		text += "NOBODY CAN OPEN ITS SECRETS where no replica is left: there is no recovery key. Make one (rackseed recovery-key), and save a backup again."
	} else {
		text += "With the recovery key it is enough: rackseed recover --data FOLDER --from FILE --recovery-key FILE"
	}
	return text, past.Close()
}
