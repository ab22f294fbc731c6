package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/rackseed/rackseed/services/keyring"
	"github.com/rackseed/rackseed/services/state"
)

func (o *options) backup() *cobra.Command {
	var key string
	c := &cobra.Command{
		Use: "backup FILE", Short: "Save a backup of all that the boot service knows, for rackseed recover --from; - is standard output", Args: cobra.ExactArgs(1),
		Long: `Save a backup of all that the boot service knows, for rackseed recover --from.

It holds machines, leases, events and the site, hashes of passwords, and the cluster's
secrets, sealed: the recovery key opens them (rackseed recovery-key). Images are not in it.
Each replica writes one to its own disk each day; this one is for elsewhere.

With --check nothing is saved, and no boot service is asked: it looks whether a recovery
key opens a backup that there is.`,
		Example: `  rackseed backup site.backup
  rackseed backup site.backup --check recovery-key.txt`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if key == "" {
				return o.save(cmd, "/api/backup", args[0], readBackup)
			}
			text, err := checkBackup(args[0], key)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", args[0], text)
			return err
		},
	}
	c.Flags().StringVar(&key, "check", "", "a file with the recovery key: say whether it opens FILE, and save nothing")
	return c
}

// readBackup reads a backup that was saved, as recover would.
func readBackup(f *os.File, n int64) (text string, err error) {
	past, err := openBackup(f)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, past.Close()) }()
	text = backupText(past, n)
	if past.View.Keyring().Recipient == "" {
		return text + "NOBODY CAN OPEN ITS SECRETS where no replica is left: there is no recovery key. Make one (rackseed recovery-key), and save a backup again.", nil
	}
	return text + "With the recovery key it is enough for a new stick: docs/handoff.md, \"When the majority is lost\".", nil
}

// checkBackup looks whether a recovery key opens a backup.
func checkBackup(file, keyFile string) (text string, err error) {
	key, err := os.ReadFile(keyFile)
	if err != nil {
		return "", err
	}
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	past, err := openBackup(f)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, past.Close()) }()
	now := past.View.Keyring()
	keys, err := keyring.Recover(string(key), now.Copy)
	if err != nil {
		return "", err
	}
	if now.Current != "" && !slices.ContainsFunc(keys, func(k keyring.Key) bool { return k.ID == now.Current }) {
		return "", errors.New("the recovery key opens an older copy of the keys, and not those that this backup's secrets are sealed under")
	}
	return backupText(past, info.Size()) + "The recovery key opens it.", nil
}

func openBackup(f *os.File) (*state.Past, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	return state.ReadBackup(f)
}

func backupText(past *state.Past, bytes int64) string {
	cluster, _ := past.View.Cluster()
	return fmt.Sprintf("%s, up to entry %d of cluster %s. ", size(uint64(bytes)), past.Last, cluster.ID)
}
