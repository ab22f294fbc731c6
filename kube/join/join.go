// Package join is the boot service's hand in the cluster, by an administrator's
// certificate of minutes that it signs by the cluster's authority: it makes the
// token by which one node joins, takes it back when the join is over, and puts
// those labels of the profile on the node that a node may not give itself.
package join

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"github.com/rackseed/rackseed/kube/config"
	"github.com/rackseed/rackseed/kube/core"
	"github.com/rackseed/rackseed/kube/pki"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/wire"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	// tokenLifetime of a bootstrap token, and of an emulated machine's.
	// kubeadm join takes a minute, there up to half an hour.
	tokenLifetime         = 15 * time.Minute
	emulatedTokenLifetime = time.Hour

	// certificateLifetime of the administrator's certificate that each visit
	// to the cluster signs for itself.
	certificateLifetime = 10 * time.Minute
	// requestTimeout is what an API server has for one request, dialTimeout
	// until it is connected with.
	requestTimeout = 10 * time.Second
	dialTimeout    = 3 * time.Second
	// user is who the API servers' audit logs name.
	user = "rackseed:boot-service"
)

// View is what of the state is looked at; state.View has it.
type View interface {
	Site() (machine.Site, bool)
	Secret(name string) ([]byte, bool)
	Machines() []machine.Machine
	Profile(machine.ID) (machine.Profile, bool)
	Bootstrap() *machine.Intent
	JoinIntent(machine.ID) *machine.Intent
}

// Cluster is the cluster as the boot service comes to it.
type Cluster struct {
	Now func() time.Time
	// servers are the API servers' addresses (HOST:PORT); Servers but in tests.
	servers func(View) []string
}

// New makes a Cluster; now is the boot service's clock.
func New(now func() time.Time) *Cluster { return &Cluster{Now: now, servers: Servers} }

// inCluster says whether a machine has become a node: it began the cluster, or
// joined it.
func inCluster(v View, id machine.ID) bool {
	if b := v.Bootstrap(); b != nil && b.Machine == id {
		return b.Status == machine.IntentDone
	}
	j := v.JoinIntent(id)
	return j != nil && j.Status == machine.IntentDone
}

// Servers are the API servers of the control planes that are in the cluster.
func Servers(v View) (list []string) {
	for _, m := range v.Machines() {
		p, ok := v.Profile(m.ID)
		if ok && p.Role == machine.RoleControlPlane && m.Address.IsValid() && inCluster(v, m.ID) {
			list = append(list, hostPort(m.Address))
		}
	}
	return list
}

func hostPort(a netip.Addr) string { return net.JoinHostPort(a.String(), strconv.Itoa(config.APIPort)) }

// Secret makes what a machine joins by under a claimed join intent: a token for
// it alone, which ends by itself. Tokens of its earlier attempts are taken back.
func (c *Cluster) Secret(ctx context.Context, view state.View, m machine.Machine, intent machine.Intent) (wire.JoinSecret, error) {
	return c.secret(ctx, view, m, intent)
}

func (c *Cluster) secret(ctx context.Context, v View, m machine.Machine, intent machine.Intent) (wire.JoinSecret, error) {
	site, ok := v.Site()
	if !ok {
		return wire.JoinSecret{}, errors.New("there is no site file in force, which says where the cluster is")
	}
	ca, ok := v.Secret(pki.Prefix + "ca.crt")
	if !ok {
		return wire.JoinSecret{}, errNoAuthority
	}
	hash, err := pki.CertHash(ca)
	if err != nil {
		return wire.JoinSecret{}, err
	}
	lifetime := tokenLifetime
	if site.Emulated {
		lifetime = emulatedTokenLifetime
	}
	t := newToken()
	object := t.object(m, intent, c.Now().Add(lifetime))
	err = c.visit(ctx, v, func(ctx context.Context, client rest.Interface) error {
		if err := create(ctx, client, object); err != nil {
			return err
		}
		return remove(ctx, client, func(of tokenOf) bool { return of.machine == m.ID && of.before(intent) })
	})
	if err != nil {
		return wire.JoinSecret{}, fmt.Errorf("a token could not be made: %w", err)
	}
	return wire.JoinSecret{
		Intent: intent.ID, Epoch: intent.Epoch, Token: t.String(), CACertHashes: []string{hash},
		Endpoint: hostPort(site.ServiceAddress),
	}, nil
}

var errNoAuthority = errors.New("this boot service has no certificate authority for the cluster: it is made when the boot service first starts")

// visit does something by one API server, the first that answers.
func (c *Cluster) visit(ctx context.Context, v View, do func(context.Context, rest.Interface) error) error {
	ca, found := v.Secret(pki.Prefix + "ca.crt")
	key, foundKey := v.Secret(pki.Prefix + "ca.key")
	if !found || !foundKey {
		return errNoAuthority
	}
	servers := c.servers(v)
	if len(servers) == 0 {
		return errors.New("the cluster has no API server yet")
	}
	var failed []error
	for _, server := range servers {
		if err := c.by(ctx, ca, key, server, do); err != nil {
			failed = append(failed, fmt.Errorf("API server %s: %w", server, err))
			continue
		}
		return nil
	}
	return errors.Join(failed...)
}

func (c *Cluster) by(ctx context.Context, ca, key []byte, server string, do func(context.Context, rest.Interface) error) error {
	b, err := pki.Kubeconfig(ca, key, c.Now(), pki.Client{
		Cluster: "rackseed", Server: "https://" + server, User: user, Groups: []string{pki.AdminGroup}, Lifetime: certificateLifetime,
	})
	if err != nil {
		return err
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(b)
	if err != nil {
		return err
	}
	config.Timeout = requestTimeout
	config.Dial = (&net.Dialer{Timeout: dialTimeout}).DialContext
	config.Proxy = func(*http.Request) (*url.URL, error) { return nil, nil } // it is on the nodes' network
	client, err := core.New(config, "rackseed-boot-service")
	if err != nil {
		return err
	}
	// Each visit has its own certificate, and so its own connection.
	defer client.Client.CloseIdleConnections()
	return do(ctx, client)
}
