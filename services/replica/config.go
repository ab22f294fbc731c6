// Package replica is one boot service: it opens the state, keeps the site file
// applied and the images published, and runs every server, each supervised and
// with its health to be seen. What the site file says is served as long as it
// says so; without a valid one the console and the screen still work, and say
// what is wrong.
package replica

import (
	"context"
	"io"
	"log/slog"
	"time"

	"github.com/rackseed/rackseed/services/ignition"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/registry"
	"github.com/rackseed/rackseed/services/setup"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/support"
	"github.com/rackseed/rackseed/services/wire"
)

// Config is what a replica is told at its start.
type Config struct {
	Data    string   // folder for identity/, state/, blobs/, output/ and setup-code; made if absent
	Images  []string // read-only OCI layouts
	Site    string   // the site file; may be missing
	Console string   // folder of the console's files; "": none
	Local   string   // Unix socket for the appliance's screen; "": none

	// Endpoint is where other replicas find one that runs on a node, as
	// 10.77.0.11:8300; "": this is the appliance, which finds its own address in
	// the site file.
	Endpoint string
	// Join is a file with the invitation by which a replica on a node joins. It
	// is read once.
	Join string
	// Release names the version, for people.
	Release string
	// Image is the image that it runs, as HOST/REPOSITORY@DIGEST; "": none.
	Image string
	// Slower multiplies the times after which replicas give each other up; 0 is
	// 1. For emulated machines.
	Slower int

	// Volatile says why Data is lost when the machine is switched off; "": it
	// is kept. Machines are then served only if the site file says memoryOnly.
	Volatile string

	// HTTPS is where people are served; "" is :443.
	HTTPS string
	// Dev serves on loopback alone, without privileges: no DHCP, no TFTP, no
	// service address; HTTPS defaults to 127.0.0.1:8443, HTTP to
	// 127.0.0.1:8080, and Out is told how to come in.
	Dev  bool
	HTTP string // where machines are served in Dev
	Out  io.Writer

	Registry registry.Limits

	Plugins Plugins
	// Links lists this machine's links, to set a site up in the console; nil:
	// it is not set up here.
	Links  func() ([]setup.Link, error)
	Log    *support.Ring // what Logger writes, for support bundles; nil: nothing
	Logger *slog.Logger
	Now    func() time.Time // the machine's clock; nil: time.Now
}

// Plugins are what the boot service needs of the cluster, which services do
// not know: package kube has it, and main brings them together.
type Plugins struct {
	// Secrets makes the cluster's secrets, all below "pki/": once for
	// ClusterCreate, and again when a cluster is abandoned.
	Secrets func(now time.Time) (map[string][]byte, error)
	// Contributors add files to machines' Ignition.
	Contributors []ignition.Contributor
	// Kubeconfig makes an administrator's kubeconfig from the secrets, for
	// the operator who asks.
	Kubeconfig func(secret func(name string) ([]byte, bool), cluster, server, operator string, now time.Time) ([]byte, error)
	// JoinSecret makes what a machine joins the cluster by, under its join
	// intent, which is claimed.
	JoinSecret func(ctx context.Context, view state.View, m machine.Machine, intent machine.Intent) (wire.JoinSecret, error)
	// Follow does in the cluster what joins leave to do, until ctx ends.
	Follow func(ctx context.Context, view func() state.View, tell func(ok bool, text string)) error
	// CheckProfile says what is wrong with what a profile gives its nodes in
	// Kubernetes.
	CheckProfile func(machine.Profile) error
}

// filled is c with what was left out.
func (c Config) filled() Config {
	set := func(v *string, to string) {
		if *v == "" {
			*v = to
		}
	}
	if c.Dev {
		set(&c.HTTPS, "127.0.0.1:8443")
		set(&c.HTTP, "127.0.0.1:8080")
	}
	set(&c.HTTPS, ":443")
	if c.Out == nil {
		c.Out = io.Discard
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}
