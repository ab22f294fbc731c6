package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/rackseed/rackseed/services/recovery"
	"github.com/rackseed/rackseed/services/replica"
)

// applianceSocket is where the appliance's replica listens for root.
const applianceSocket = "/run/rackseed/local.sock"

// local is what the commands of root on a machine with a replica need.
type local struct {
	host    func() (recovery.Host, error)
	release string
}

// AddLocal puts the commands under root that root runs on a machine with a replica.
// host is this machine; fs.ErrNotExist: it is no node.
func AddLocal(root *cobra.Command, host func() (recovery.Host, error), release string) {
	l := local{host, release}
	group := &cobra.Group{ID: "local", Title: "For root on a machine with a replica of the boot service:"}
	root.AddGroup(group)
	for _, c := range []*cobra.Command{l.recover(), l.breakGlass()} {
		c.GroupID = group.ID
		strict(c)
		root.AddCommand(c)
	}
}

// here is this machine, with its replica in a folder that is given or known.
func (l local) here(data string) (recovery.Host, error) {
	host, err := l.host()
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return host, err
	case data == "" && host.Data == "":
		return host, usageError{errors.New("which replica? This machine is no node: --data FOLDER")}
	case data != "" && data != host.Data:
		return recovery.Host{Data: data, Node: host.Node}, nil
	}
	return host, nil
}

func (l local) recover() *cobra.Command {
	var data, from, cluster, keyFile string
	var yes, look bool
	c := &cobra.Command{
		Use: "recover", Short: "Go on from this replica alone, when the majority is lost for ever", Args: cobra.NoArgs,
		Long: `Go on from this replica alone, when the majority of the replicas is lost for ever.

What it has on its disk, or a backup, becomes a new generation of the cluster, which
it leads alone: with the same users, machines, leases and events, at the same
address. What the others committed after its newest entry is lost. They have left
for good, and cannot join the new generation as they are.

Do it on the replica that has the newest entry, and on no other one. On a node its
replica is stopped and started again; elsewhere stop it first. What was there is kept
beside it. docs/handoff.md has the steps.`,
		Example: `  rackseed recover
  rackseed recover --from /var/lib/rackseed/replica/backup/state-00000000000000004711`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			host, err := l.here(data)
			if err != nil {
				return err
			}
			key := ""
			if keyFile != "" {
				text, err := os.ReadFile(keyFile)
				if err != nil {
					return err
				}
				key = string(text)
			}
			return l.recoverAt(cmd, host, from, cluster, key, yes, look)
		},
	}
	f := c.Flags()
	f.StringVar(&data, "data", "", "the replica's folder; without it that of this node's")
	f.StringVar(&from, "from", "", "a file of a replica's backup/, instead of what the folder has")
	f.StringVar(&keyFile, "recovery-key", "", "a file with the recovery key, where this folder has not the keys to the secrets: from a backup of another replica, or once its TPM is another one")
	f.StringVar(&cluster, "cluster", "", "the name of the cluster that is recovered, instead of being asked for it")
	f.BoolVar(&yes, "yes", false, "do not ask")
	f.BoolVar(&look, "dry-run", false, "only say from where it would go on, and what would be lost, and end with 1 if it could not; on a node its replica is stopped meanwhile, unless one leads")
	c.MarkFlagsMutuallyExclusive("dry-run", "yes")
	return c
}

func (l local) recoverAt(cmd *cobra.Command, host recovery.Host, from, cluster, key string, yes, look bool) (err error) {
	ctx, out := cmd.Context(), cmd.OutOrStdout()
	if host.Stop != nil {
		// Before it is stopped: that may take a majority away from the others.
		if leads := leaderOf(ctx, host.Socket); leads != "" {
			return fmt.Errorf("nothing is lost, and nothing was done: replica %s leads, as the one here knows", leads)
		}
		fmt.Fprintln(cmd.ErrOrStderr(), "Stopping this node's replica …")
		if err := host.Stop(); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, host.Start()) }()
		if err := recovery.AwaitStopped(ctx, host.Data); err != nil {
			return err
		}
	}
	if finished, err := recovery.Finish(host.Data); err != nil || finished {
		if err == nil {
			fmt.Fprintln(out, "A recovery that was cut off is complete now: nothing else was done.")
		}
		return err
	}
	r, err := recovery.Begin(ctx, recovery.Options{
		Data: host.Data, From: from, RecoveryKey: key, Node: host.Node, Release: l.release, Now: time.Now,
		Logger: slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelError})),
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	for _, line := range r.Text() {
		fmt.Fprintln(out, clean(line))
	}
	if err := r.Ready(); err != nil || look {
		return err
	}
	if ahead := r.Ahead(); ahead != "" && yes && cluster == "" {
		return fmt.Errorf("nothing was done: the replica of %s is there and has more, which would be lost: recover that one. Only if it must be this one: --cluster NAME instead of --yes", ahead)
	}
	if !yes || cluster != "" {
		if err := confirmRecovery(cmd, r, cluster); err != nil {
			return err
		}
	}
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	if err := r.Do(ctx, "root@"+name); err != nil {
		return err
	}
	text := "Recovered. "
	if host.Start == nil {
		text += "Start the replica again. "
	}
	fmt.Fprintf(out, "%sIt leads alone: put replicas on other nodes with rackseed handoff start --node NAME. Never start an old replica elsewhere: it knows nothing of this one.\n", text)
	return nil
}

// confirmRecovery has the person type which cluster it is.
func confirmRecovery(cmd *cobra.Command, r *recovery.Recovery, answer string) error {
	a := newAsker(cmd)
	if _, ok := a.terminal(); !ok && answer == "" {
		return errors.New("nothing was done: name the cluster with --cluster, or say --yes, if that is meant")
	}
	names := r.Cluster
	if r.Site != "" {
		names += " or " + r.Site
	}
	if err := a.fill(&answer, fmt.Sprintf("Recover it? Type its name (%s)", names)); err != nil {
		return err
	}
	if answer != r.Cluster && (answer != r.Site || r.Site == "") {
		return errors.New("nothing was done: only the cluster's name does it")
	}
	return nil
}

func (l local) breakGlass() *cobra.Command {
	var socket string
	c := &cobra.Command{
		Use: "break-glass", Short: "Get a new setup code, when nobody can log in any more", Args: cobra.NoArgs,
		Long: `Get a new setup code, when nobody can log in any more: whoever uses it first becomes
an administrator, in the console or with rackseed setup; under a name that there is,
its password is replaced and its logins end. An event says that it was
made. A replica must lead.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if socket == "" {
				host, err := l.host()
				if err != nil && !errors.Is(err, fs.ErrNotExist) {
					return err
				}
				if socket = host.Socket; socket == "" {
					socket = applianceSocket
				}
			}
			answer, err := askBreakGlass(cmd.Context(), socket)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "Setup code: %s\nConsole: %s\nFingerprint: %s\n", answer.Code, strings.Join(answer.ConsoleURLs, " "), answer.Fingerprint)
			if err == nil && len(answer.ConsoleURLs) > 0 {
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "In the console, or: rackseed setup --server %s --fingerprint %s --code %s --name NAME (a new one, or one whose password is forgotten)\n", answer.ConsoleURLs[0], answer.Fingerprint, answer.Code)
			}
			return err
		},
	}
	c.Flags().StringVar(&socket, "local", "", "the replica's local socket; without it this machine's")
	return c
}

// leaderOf is who leads, as the replica says that runs on this machine; "": nobody, or
// it does not answer.
func leaderOf(ctx context.Context, socket string) string {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://local/status", nil)
	if err != nil {
		return ""
	}
	a, err := localClient(socket).Do(q)
	if err != nil {
		return ""
	}
	defer a.Body.Close()
	var s replica.Status
	if err := json.NewDecoder(io.LimitReader(a.Body, 8<<20)).Decode(&s); err != nil {
		return ""
	}
	return s.Leads
}

func localClient(socket string) *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
}

func askBreakGlass(ctx context.Context, socket string) (answer replica.BreakGlass, err error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://local/break-glass", nil)
	if err != nil {
		return answer, err
	}
	a, err := localClient(socket).Do(q)
	if err != nil {
		return answer, fmt.Errorf("no replica of the boot service answers at %s: run this as root on a machine where one runs (--local): %w", socket, err)
	}
	defer a.Body.Close()
	if err := json.NewDecoder(io.LimitReader(a.Body, 1<<20)).Decode(&answer); err != nil {
		return answer, fmt.Errorf("%s: its answer is not understood (another release?): %w", socket, err)
	}
	if a.StatusCode != http.StatusOK {
		return answer, errors.New(answer.Error)
	}
	return answer, nil
}
