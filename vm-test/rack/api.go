package rack

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/rackseed/rackseed/console/client"
	"github.com/rackseed/rackseed/services/api"
	"github.com/rackseed/rackseed/services/machine"
)

// Console is the boot service's API, reached as people reach it.
type Console struct{ *client.Client }

// OpenConsole connects to the appliance's console by its fingerprint.
func (r *Rack) OpenConsole(s Screen) (Console, error) {
	c, err := client.New(r.ConsoleURL(), s.Fingerprint, r.OperatorToken)
	return Console{c}, err
}

// ConsoleURL is where the console is, on the host's loopback.
func (r *Rack) ConsoleURL() string { return fmt.Sprintf("https://127.0.0.1:%d", r.ConsolePort) }

// KubernetesURL is where the API server is, on the host's loopback.
func (r *Rack) KubernetesURL() string { return fmt.Sprintf("https://127.0.0.1:%d", r.KubernetesPort) }

// Events are those after a sequence number, oldest first.
func (c Console) Events(ctx context.Context, after uint64) ([]machine.Event, error) {
	var list api.EventList
	q := url.Values{"after": {strconv.FormatUint(after, 10)}, "limit": {"1000"}}
	err := c.Call(ctx, http.MethodGet, "/api/events", q, nil, &list)
	return list.Items, err
}

// Machines are all that the boot service knows.
func (c Console) Machines(ctx context.Context) ([]api.Machine, error) {
	var list api.List[api.Machine]
	err := c.Call(ctx, http.MethodGet, "/api/machines", nil, nil, &list)
	return list.Items, err
}

// Kubeconfig is an administrator's, for the API server at a URL.
func (c Console) Kubeconfig(ctx context.Context, server string) ([]byte, error) {
	return c.Raw(ctx, http.MethodGet, "/api/kubeconfig", url.Values{"server": {server}}, nil)
}
