// Command rackseed is every role of Rackseed that serves or operates. This file
// picks the role, and nothing else.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/rackseed/rackseed/appliance"
	"github.com/rackseed/rackseed/console/cli"
	"github.com/rackseed/rackseed/images/pid1"
	"github.com/rackseed/rackseed/images/pid1/kmod"
	"github.com/rackseed/rackseed/kube/agent"
	"github.com/rackseed/rackseed/kube/config"
	"github.com/rackseed/rackseed/kube/join"
	"github.com/rackseed/rackseed/kube/pki"
	"github.com/rackseed/rackseed/services/ignition"
	"github.com/rackseed/rackseed/services/replica"
	"github.com/rackseed/rackseed/services/support"
	"github.com/rackseed/rackseed/services/wire"
)

func main() {
	switch appliance.RoleOf(os.Args[0], os.Getpid()) {
	case appliance.RoleModprobe:
		os.Exit(kmod.Modprobe(os.Args[1:], os.Stderr))
	case appliance.RoleInit:
		appliance.Main()
		return
	}
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // nohup
		signals = append(signals, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), signals...)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	if err := root().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "rackseed:", err)
		os.Exit(cli.ExitCode(err))
	}
}

func root() *cobra.Command {
	c := &cobra.Command{
		Use:           "rackseed",
		Short:         "A USB stick that turns bare machines into a Kubernetes cluster",
		SilenceErrors: true,
	}
	c.AddGroup(&cobra.Group{ID: "role", Title: "Roles, started by the appliance and by nodes:"})
	c.AddCommand(serve(), node())
	cli.Add(c, config.CheckProfile)
	cli.AddLocal(c, agent.RecoveryHost, pid1.BuildDate)
	return c
}

func serve() *cobra.Command {
	cluster := join.New(time.Now)
	options := replica.Config{Links: appliance.SetupLinks, Release: pid1.BuildDate, Image: os.Getenv(wire.ReplicaImageEnv), Log: &support.Ring{}, Plugins: replica.Plugins{
		Secrets:      pki.New,
		Contributors: []ignition.Contributor{config.Contributor{}, config.Registry{}},
		Kubeconfig:   pki.Admin,
		JoinSecret:   cluster.Secret,
		Follow:       cluster.Follow,
		CheckProfile: config.CheckProfile,
	}}
	c := &cobra.Command{
		Use: "serve", Short: "Run a replica of the boot service", GroupID: "role", Args: cobra.NoArgs, SilenceUsage: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			options.Out = cmd.OutOrStdout()
			options.Logger = slog.New(slog.NewTextHandler(io.MultiWriter(cmd.ErrOrStderr(), options.Log), nil))
			slog.SetDefault(options.Logger)
			return replica.Run(cmd.Context(), options)
		},
	}
	f := c.Flags()
	f.StringVar(&options.Data, "data", "", "folder of the state and the blobs; made if absent")
	f.StringArrayVar(&options.Images, "images", nil, "OCI layout with images, read-only; may be repeated")
	f.StringVar(&options.Site, "site", "", "the site file")
	f.StringVar(&options.Console, "console", "", "folder of the console's files")
	f.StringVar(&options.Local, "local", "", "Unix socket for the appliance's screen")
	f.StringVar(&options.Endpoint, "endpoint", "", "on a node: ADDRESS:PORT where the other replicas find this one")
	f.StringVar(&options.Join, "join", "", "on a node: file with the invitation by which this replica joins, once")
	f.IntVar(&options.Slower, "slower", 0, "multiplies the times after which replicas give each other up, for emulated machines")
	f.StringVar(&options.Volatile, "volatile", "", "why what is in --data will be lost; machines are then served only if the site file says memoryOnly")
	f.StringVar(&options.HTTPS, "https", "", "where people are served; :443 without it, 127.0.0.1:8443 with --dev")
	f.Int64Var(&options.Registry.MaxBlob, "registry-max-blob", 0, "bytes that one blob pushed to the registry may have; 20 GiB without it")
	f.BoolVar(&options.Dev, "dev", false, "serve on loopback alone, without DHCP, TFTP and service address")
	f.StringVar(&options.HTTP, "http", "", "where machines are served with --dev; 127.0.0.1:8080 without it")
	return c
}

func node() *cobra.Command {
	return &cobra.Command{
		Use: "node", Short: "Run the node agent on an installed node", GroupID: "role", Args: cobra.NoArgs, SilenceUsage: true,
		RunE: func(cmd *cobra.Command, _ []string) error { return agent.Main(cmd.Context()) },
	}
}
