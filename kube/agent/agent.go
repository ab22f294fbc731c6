// Package agent is `rackseed node`: on an installed node it tells the boot
// service how the node fares, marks the root slot as good, runs kubeadm when
// the boot service orders it, and keeps up the pod network.
//
// What it does next is decided by pure functions in decide.go; everything that
// it does can be interrupted, and goes on at the next start.
package agent

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/rackseed/rackseed/kube/agent/slot"
	"github.com/rackseed/rackseed/kube/endpoint"
	"github.com/rackseed/rackseed/kube/podnet"
	"github.com/rackseed/rackseed/services/keyring"
	"github.com/rackseed/rackseed/services/wire"
	"golang.org/x/sync/errgroup"
)

// Main runs the node agent until the context ends; then it returns nil.
func Main(ctx context.Context) error {
	a, err := newAgent("/", slog.Default())
	if err != nil {
		return err
	}
	a.markGood = func() error { return slot.MarkGood("/run/rackseed/esp") }
	a.setRoutes = podnet.SetRoutes
	a.setMasquerade = podnet.SetMasquerade
	return a.run(ctx)
}

// searchPath is where the node image has its programs.
const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

type agent struct {
	host     host
	config   wire.NodeConfig
	bootID   string
	slot     string // root slot, "a" or "b"
	client   *client
	output   *output
	reports  *reports
	commands commands
	endpoint *endpoint.Endpoint // the node's own, of the Kubernetes API
	tpm      *keyring.Relay     // lends the machine's TPM to its replica of the boot service
	log      *slog.Logger

	kubeadmTook string // of this boot, for people; "" if it did not run

	// The edges that a test on a build host has no node for.
	markGood      func() error
	sync          func() error // everything that kubeadm wrote
	findEtcd      func(context.Context, wire.JoinSecret) (membership, error)
	setRoutes     func([]podnet.Route) error
	setMasquerade func(context.Context, podSubnet) error

	joined chan struct{} // closed when the boot service knows that the node joined
	routes chan []podnet.Route
}

// newAgent reads what the node knows about itself; root is "/" but in tests.
func newAgent(root string, log *slog.Logger) (*agent, error) {
	h := host{root}
	b, err := os.ReadFile(h.path(wire.PathNodeConfig))
	if err != nil {
		return nil, fmt.Errorf("the node's configuration: %w: this machine was not installed by Rackseed", err)
	}
	c, err := wire.ParseNodeConfig(b)
	if err != nil {
		return nil, err
	}
	bootID, err := h.word(bootIDFile)
	if err != nil {
		return nil, fmt.Errorf("the boot ID: %w", err)
	}
	cmdline, err := h.word(cmdlineFile)
	if err != nil {
		return nil, fmt.Errorf("the kernel command line: %w", err)
	}
	client := newClient(c.URL, c.KeySeed)
	rootSlot := slot.Argument(cmdline, "rackseed.slot")
	reports, err := newReports(client, bootID, rootSlot, h.path(progressFile), log)
	if err != nil {
		return nil, err
	}
	a := &agent{
		sync: h.syncAll,
		host: h, config: c, bootID: bootID, slot: rootSlot, client: client, reports: reports, log: log,
		output:   newOutput(client, "node-"+bootID, log),
		commands: commands{path: searchPath},
		endpoint: endpoint.New(endpointConfig(h, c, log)),
		tpm:      keyring.NewRelay(),
		joined:   make(chan struct{}),
		routes:   make(chan []podnet.Route, 1),
	}
	a.findEtcd = a.etcdOfCluster
	return a, nil
}

func (a *agent) run(ctx context.Context) error {
	if a.reports.Last() == "" {
		a.reports.Send(wire.NodeBooted, "root slot "+a.slot)
	}
	group, ctx := errgroup.WithContext(ctx)
	// First and by itself: the kubelet goes by it.
	group.Go(func() error {
		a.persist(ctx, "the node's endpoint of the Kubernetes API", func() error { return a.endpoint.Run(ctx) })
		return nil
	})
	group.Go(func() error { return a.output.Run(ctx) })
	group.Go(func() error { return a.reports.Run(ctx) })
	group.Go(func() error {
		if !a.waitHealthy(ctx) {
			return nil
		}
		// A node that cannot mark its slot works on, but its next boot will
		// be from the other one.
		group.Go(func() error {
			a.persist(ctx, "marking the root slot as good", a.markGood)
			return nil
		})
		return a.join(ctx)
	})
	group.Go(func() error {
		watchNodes(ctx, a.host.path(kubeletConf), a.config.Name, a.ownNode(ctx), a.allNodes, a.log)
		return nil
	})
	group.Go(func() error { a.keepRoutes(ctx); return nil })
	group.Go(func() error { a.keepReplica(ctx); return nil })
	group.Go(func() error { a.keepAccess(ctx); return nil })
	group.Go(func() error { a.leadKubelet(ctx); return nil })
	group.Go(func() error {
		a.persist(ctx, "masquerading", func() error { return a.setMasquerade(ctx, a.config.PodSubnet) })
		return nil
	})
	return group.Wait()
}

// persist tries until it succeeds; each new error is told.
func (a *agent) persist(ctx context.Context, what string, try func() error) {
	retry := backoff{first: retryFirst, most: retryMost}
	for told := ""; ; {
		err := try()
		if err == nil || ctx.Err() != nil {
			return
		}
		a.log.Warn(what, "error", err)
		if err.Error() != told {
			told = err.Error()
			a.output.Print("rackseed: " + what + ": " + told)
		}
		if !retry.wait(ctx) {
			return
		}
	}
}
