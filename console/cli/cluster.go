package cli

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/rackseed/rackseed/console/client"
	"github.com/rackseed/rackseed/services/api"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/support"
)

func (o *options) cluster() *cobra.Command {
	return family("cluster", "The Kubernetes cluster", &cobra.Command{
		Use: "status", Short: "Say how far the cluster is on its way", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return show(cmd.Context(), o, cmd.OutOrStdout(), "/api/cluster", nil, writeCluster)
		},
	}, o.abandon())
}

func writeCluster(w io.Writer, c api.ClusterStart) error {
	var f facts
	f.add("Cluster", fmt.Sprintf("%s, generation %d, epoch %d", c.ID, c.Generation, c.Epoch))
	f.add("Started by", ref(c.Starter))
	if b := c.Bootstrap; b != nil {
		f.add(order(b))
	}
	f.add("Joins now", ref(c.Joining))
	if c.NoKubeconfig == "" {
		f.add("Kubeconfig", "rackseed kubeconfig")
	} else {
		f.add("Kubeconfig", c.NoKubeconfig)
	}
	return f.flush(w)
}

func ref(m *api.MachineRef) string {
	if m == nil {
		return ""
	}
	return called(machine.Machine{ID: m.ID, Name: m.Name})
}

func (o *options) abandon() *cobra.Command {
	var in api.AbandonRequest
	c := &cobra.Command{
		Use: "abandon", Short: "Give up a cluster whose first machine is lost for good", Args: cobra.NoArgs,
		Long: `Give up a cluster whose first machine is lost for good, before another control
plane joined it.

The machine is forgotten and the cluster gets new keys: what that machine may
have started, and every kubeconfig made until now, is worth nothing any more. The
next control plane that is approved starts the cluster anew. If the machine can
be repaired, do that instead: it goes on by itself when it boots.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := o.connect()
			if err != nil {
				return err
			}
			if err := confirmAbandon(cmd, c, &in); err != nil {
				return err
			}
			return act(cmd.Context(), o, cmd.OutOrStdout(), "/api/cluster/abandon", in, writeCluster)
		},
	}
	c.Flags().StringVar(&in.Reason, "reason", "", "why, for the event log; needed")
	c.Flags().StringVar(&in.Cluster, "cluster", "", "name of the cluster, once it is started; asked for at a terminal")
	c.Flags().StringVar(&in.Confirm, "confirm", "", "name of the machine that is lost; asked for at a terminal")
	return c
}

// confirmAbandon asks the person at the terminal for what the command line did
// not say. Elsewhere it must say all.
func confirmAbandon(cmd *cobra.Command, c *client.Client, in *api.AbandonRequest) error {
	a := newAsker(cmd)
	if _, ok := a.terminal(); !ok {
		if in.Reason == "" || in.Confirm == "" {
			return usageError{errors.New("--reason and --confirm are needed: why, and the name of the machine that is lost")}
		}
		return nil
	}
	var now api.ClusterStart
	if err := c.Call(cmd.Context(), http.MethodGet, "/api/cluster", nil, nil, &now); err != nil {
		return err
	}
	if now.NoAbandon != "" {
		return errors.New(now.NoAbandon)
	}
	fmt.Fprintf(a.out, "What %s began is given up: the machine is forgotten, the cluster's keys are replaced, and kubeconfigs made until now are worth nothing.\n", clean(ref(now.Starter)))
	if o := now.Orphans; o != nil {
		fmt.Fprintf(a.out, "The cluster %s is started, and all in it are left behind, to be forgotten and installed anew: Ready nodes: %d, installed machines: %d.\n",
			clean(o.Cluster), o.Ready, o.Machines)
		if in.Cluster == "" {
			if err := a.fill(&in.Cluster, "Type the name of the cluster to go on"); err != nil {
				return err
			}
		}
	}
	if in.Confirm == "" {
		if err := a.fill(&in.Confirm, "Type the name of the lost machine to go on"); err != nil {
			return err
		}
	}
	return a.fill(&in.Reason, "Reason, for the event log")
}

func (o *options) kubeconfig() *cobra.Command {
	var server string
	c := &cobra.Command{
		Use:   "kubeconfig",
		Short: "Write an administrator's kubeconfig to standard output",
		Long: `Write an administrator's kubeconfig to standard output, as YAML or, with -o json,
as JSON; kubectl reads both. There is none before the cluster is started: rackseed
cluster status says how far that is.

--server is the API server's URL to put into it, where the service address
cannot be reached; the boot service is the one of the login, or RACKSEED_SERVER.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := o.connect()
			if err != nil {
				return err
			}
			q := url.Values{}
			if server != "" {
				q.Set("server", server)
			}
			config, err := c.Raw(cmd.Context(), http.MethodGet, "/api/kubeconfig", q, nil)
			if err != nil {
				return err
			}
			if o.output == outputJSON {
				if config, err = yaml.YAMLToJSON(config); err != nil {
					return notExpected(err)
				}
				return render[any](o, cmd.OutOrStdout(), config, nil)
			}
			_, err = cmd.OutOrStdout().Write(config)
			return err
		},
	}
	c.Flags().StringVar(&server, "server", "", "API server's URL, as https://192.0.2.10:6443")
	return c
}

// versions are the programs on both ends.
type versions struct {
	Client support.Program  `json:"client"`
	Server *support.Program `json:"server,omitempty"`
}

func (o *options) version() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Show which build this is, and which one the boot service is if it can be asked", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := versions{Client: support.ThisProgram()}
			c, err := o.connect()
			if err == nil {
				var s api.Status
				if err = c.Call(cmd.Context(), http.MethodGet, "/api/status", nil, nil, &s); err == nil {
					v.Server = &s.Program
				}
			}
			if o.plain() {
				return writeVersions(cmd.OutOrStdout(), v, o.explain(err))
			}
			return o.renderItem(cmd.OutOrStdout(), v)
		},
	}
}

// writeVersions writes both ends' builds; missing is why the server's is not
// known.
func writeVersions(w io.Writer, v versions, missing error) error {
	var f facts
	f.add("This program", program(v.Client))
	switch {
	case v.Server == nil:
		f.add("Boot service", "not asked: "+strings.SplitN(missing.Error(), "\n", 2)[0])
	case v.Server.Digest == v.Client.Digest:
		f.add("Boot service", "the same build")
	default:
		f.add("Boot service", program(*v.Server))
	}
	return f.flush(w)
}

func program(p support.Program) string {
	return fmt.Sprintf("rackseed %s, %s, %s", p.Version, p.Go, p.Digest)
}
