package replica

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/rackseed/rackseed/services/api"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
)

// Status is what the appliance's screen shows: GET /status on the local socket.
// It holds the setup code, so it goes nowhere else.
type Status struct {
	api.Status
	ConsoleURLs []string `json:"consoleURLs"`
	Fingerprint string   `json:"fingerprint"`         // of the console's certificate: SHA-256, as browsers show it; empty while starting
	SetupCode   string   `json:"setupCode,omitempty"` // while it was not used
	Sealed      bool     `json:"sealed,omitempty"`    // it is over for this replica: nodes carry the boot service
	LetGo       bool     `json:"letGo,omitempty"`     // and they know: safe to unplug
}

// warnUnplug is true as long as the API endpoint is a forwarder on the stick.
const warnUnplug = "The Kubernetes API is reached through this machine: unplugging it now stops the API for everyone but the nodes that run it."

// status is how the replica is, as far as it has come.
func (r *replica) status() Status {
	s := Status{ConsoleURLs: []string{}}
	s.Health = r.tasks.list()
	s.Sealed, s.LetGo = r.sealed.Load(), r.letGo.Load()
	s.SiteProblems = r.siteProblems()
	s.Machines, s.Warnings = map[string]int{}, []api.Warning{}
	store := r.store.Load()
	if store == nil || s.LetGo {
		return s
	}
	view := store.View()
	if s.Leads = store.Membership().Leader; s.Leads != "" {
		if x, known := view.Replica(s.Leads); known {
			s.Leads = x.Name
		}
	}
	site, applied := view.Site()
	if applied {
		s.Site, s.Service = site.Name, site.ServiceAddress.String()
		if len(s.SiteProblems) > 0 {
			s.Warnings = append(s.Warnings, api.Warning{Kind: api.WarnSite, Text: "The site file has problems; the one that was applied before stays in force."})
		}
	}
	for _, m := range view.Machines() {
		s.Machines[string(m.Phase)]++
	}
	if len(apiServers(view)) > 0 && !r.Dev && !r.onNode() && !s.Sealed {
		s.Warnings = append(s.Warnings, api.Warning{Kind: api.WarnUnplug, Text: warnUnplug})
	}
	if _, print, err := consoleCertificate(view); err == nil {
		s.Fingerprint = print
	}
	s.ConsoleURLs = consoleURLs(r.console(), site)
	if cluster, ok := view.Cluster(); ok && !cluster.SetupUsed {
		code, err := os.ReadFile(r.setupFile())
		switch {
		case errors.Is(err, fs.ErrNotExist), err == nil && !view.OpensSetup(api.SetupHash(trim(code))):
			s.Warnings = append(s.Warnings, api.Warning{Kind: api.WarnCode, Text: "A setup code is open that was shown elsewhere, once: whoever uses it first becomes an administrator. If nobody has it, root gets another on a machine with a replica: rackseed break-glass"})
		case err != nil:
			s.Warnings = append(s.Warnings, api.Warning{Kind: api.WarnCode, Text: fmt.Sprintf("The setup code cannot be read (%v): root gets another on a machine with a replica: rackseed break-glass", err)})
		default:
			s.SetupCode = trim(code)
		}
	}
	return s
}

// peopleStatus is status for the console. That nothing is kept, the appliance's
// screen says in its own words; that there is no recovery key it does not say, since
// none can be made there.
func (r *replica) peopleStatus() api.Status {
	s := r.status().Status
	if store := r.store.Load(); store != nil && !r.sealed.Load() {
		if k := store.View().Keyring(); k.Current != "" && k.Recipient == "" {
			s.Warnings = append(s.Warnings, api.Warning{Kind: api.WarnRecovery, Text: "There is no recovery key: if all replicas are lost, no backup gives the cluster's secrets back. Make it on the page Handoff, or with: rackseed recovery-key"})
		}
	}
	if r.Volatile != "" {
		s.Warnings = append([]api.Warning{{Kind: api.WarnVolatile, Text: volatileText(r.Volatile, r.memoryOnly())}}, s.Warnings...)
	}
	return s
}

// apiServers are the addresses at which an API server of the cluster may run:
// of the control plane that starts it, and of those that have joined. One that
// is joining answers before etcd does. Whether one answers, only trying tells.
func apiServers(view state.View) []string {
	var list []string
	b := view.Bootstrap()
	for _, m := range view.Machines() {
		p, ok := view.Profile(m.ID)
		if !ok || p.Role != machine.RoleControlPlane || !m.Address.IsValid() {
			continue
		}
		starts := b != nil && b.Machine == m.ID && b.Status != machine.IntentOpen
		if j := view.JoinIntent(m.ID); starts || j != nil && j.Status == machine.IntentDone {
			list = append(list, net.JoinHostPort(m.Address.String(), apiPort))
		}
	}
	return list
}

// consoleURLs are where people find the console: at the service address first,
// then at the appliance's own. listening is the address that is listened on.
func consoleURLs(listening net.Addr, site machine.Site) []string {
	tcp, ok := listening.(*net.TCPAddr)
	if !ok {
		return []string{}
	}
	url := func(host string) string {
		if tcp.Port == 443 {
			return "https://" + host
		}
		return "https://" + net.JoinHostPort(host, fmt.Sprint(tcp.Port))
	}
	if len(tcp.IP) > 0 && !tcp.IP.IsUnspecified() {
		return []string{url(tcp.IP.String())}
	}
	list := []string{}
	if site.ServiceAddress.IsValid() {
		list = append(list, url(site.ServiceAddress.String()))
	}
	for _, l := range site.Links {
		list = append(list, url(l.Address.Addr().String()))
	}
	return list
}

// serveLocal answers on the local socket until ctx ends.
func (r *replica) serveLocal(ctx context.Context, tell report) error {
	if err := os.MkdirAll(filepath.Dir(r.Local), 0o755); err != nil {
		return err
	}
	// A socket that an earlier process left behind is in the way.
	if err := os.Remove(r.Local); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	l, err := net.Listen("unix", r.Local)
	if err != nil {
		return fmt.Errorf("local socket: %w", err)
	}
	if err := os.Chmod(r.Local, 0o600); err != nil {
		return errors.Join(err, l.Close())
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(r.status()); err != nil {
			r.Logger.Debug("replica: the screen went away", "error", err)
		}
	})
	mux.HandleFunc("POST /break-glass", r.serveBreakGlass)
	tell(true, "the screen is served")
	return serve(ctx, &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}, l)
}

// serve runs a server on l until ctx ends, then closes what is left within a
// few seconds.
func serve(ctx context.Context, server *http.Server, l net.Listener) error {
	server.BaseContext = func(net.Listener) context.Context { return ctx }
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(l) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancel()
	if server.Shutdown(stop) != nil {
		return server.Close()
	}
	return nil
}
