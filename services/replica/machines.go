package replica

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/rackseed/rackseed/services/address"
	"github.com/rackseed/rackseed/services/api"
	"github.com/rackseed/rackseed/services/bounded"
	"github.com/rackseed/rackseed/services/dhcp"
	"github.com/rackseed/rackseed/services/ignition"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/netboot"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/tftp"
)

var errNoSite = errors.New("there is no valid site file yet: no machine is served")

// serveSite serves machines as the site file says, and anew when it changes.
// On loopback (Dev) there is only HTTP, which no site file decides on.
func (r *replica) serveSite(ctx context.Context, tell report) error {
	select {
	case <-r.file.read:
	case <-ctx.Done():
		return nil
	}
	if r.Dev {
		return r.whileServing(r.serveLoopback)(ctx, tell)
	}
	return r.whileServing(r.serveLinks)(ctx, tell)
}

// serveLoopback serves machines in Dev.
func (r *replica) serveLoopback(ctx context.Context, tell report) error {
	tell(true, "only HTTP, on loopback")
	r.tasks.run(ctx, task{"netboot", func(ctx context.Context, tell report) error {
		return r.serveNetboot(ctx, tell, r.HTTP)
	}})
	return nil
}

// serveLinks serves machines on the site's links.
func (r *replica) serveLinks(ctx context.Context, tell report) error {
	store := r.store.Load()
	for ctx.Err() == nil {
		view := store.View()
		changed := view.Changed("site")
		site, ok := view.Site()
		if !ok {
			tell(false, errNoSite.Error())
			select {
			case <-changed:
			case <-ctx.Done():
			}
			continue
		}
		whole := site
		site, err := r.siteHere(site)
		if err != nil {
			return err
		}
		if away := unserved(whole, site); away != "" && len(site.Links) > 0 {
			tell(false, away)
		} else if len(site.Links) == 0 {
			tell(false, fmt.Sprintf("this node has no address in any of the site's networks, which are where machines are served; service address: %s", site.ServiceAddress))
		} else {
			tell(true, fmt.Sprintf("served at %s as site %q says", site.ServiceAddress, site.Name))
		}
		serving, stop := context.WithCancel(ctx)
		var all sync.WaitGroup
		all.Go(func() { r.tasks.run(serving, r.siteTasks(site)...) })
		select {
		case <-changed:
		case <-ctx.Done():
		}
		stop()
		all.Wait()
	}
	return nil
}

// siteTasks are the servers that one site file asks for.
func (r *replica) siteTasks(site machine.Site) []task {
	service, share := site.ServiceAddress, forwardShare(1+len(site.Links))
	// Nothing listens on the service address before it is ours, and nothing
	// but it is listened on: a link that the site file does not name is not
	// served.
	held := func(run func(ctx context.Context, tell report) error) func(context.Context, report) error {
		return func(ctx context.Context, tell report) error {
			waiting := func() { tell(false, "waiting for the service address "+service.String(), api.HealthWaiting) }
			return whileHeld(ctx, service, waiting, func(ctx context.Context) error { return run(ctx, tell) })
		}
	}
	// Hosts with the service address that were told of.
	conflicts := &bounded.Repeat{Pause: conflictPause, Most: 16}
	at := func(port string) string { return net.JoinHostPort(service.String(), port) }
	tasks := []task{
		{"address", func(ctx context.Context, tell report) error { return r.holdAddress(ctx, tell, site, conflicts) }},
		{"dhcp", held(func(ctx context.Context, tell report) error { return r.serveDHCP(ctx, tell, site) })},
		{"tftp", held(func(ctx context.Context, tell report) error { return r.serveTFTP(ctx, tell, at("69")) })},
		{"netboot", held(func(ctx context.Context, tell report) error { return r.serveNetboot(ctx, tell, at("80")) })},
		{"kubernetes", held(func(ctx context.Context, tell report) error { return r.forwardKubernetes(ctx, tell, service, share) })},
	}
	if r.onNode() {
		// Elsewhere the console listens everywhere; a node's other addresses are
		// for the cluster's own services.
		return append(tasks, task{"console at " + service.String(), held(func(ctx context.Context, tell report) error {
			return r.serveConsoleAt(ctx, tell, at("443"))
		})})
	}
	// People come by the appliance's own addresses too, as to the console:
	// theirs may be the only link that they can reach.
	for _, l := range site.Links {
		own := l.Address.Addr()
		tasks = append(tasks, task{"kubernetes at " + own.String(), func(ctx context.Context, tell report) error {
			return r.forwardKubernetes(ctx, tell, own, share)
		}})
	}
	return tasks
}

// forwardKubernetes connects whoever comes to an address with an API server, at
// most share at once.
func (r *replica) forwardKubernetes(ctx context.Context, tell report, at netip.Addr, share int) error {
	listen := net.JoinHostPort(at.String(), apiPort)
	tell(true, "connections to "+listen+" are forwarded to healthy API servers")
	return address.Forward(ctx, listen, share, func() []string { return apiServers(r.store.Load().View()) })
}

// serveNetboot is the machines' HTTP server.
func (r *replica) serveNetboot(ctx context.Context, tell report, listen string) error {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	url := "" // the service address
	if r.Dev {
		url = "http://" + l.Addr().String()
	}
	server := netboot.New(netboot.Config{
		Store: r.store.Load(), Blobs: artifacts{r}, Output: r.log, URL: url, Now: r.now, Logger: r.Logger,
		JoinSecret: r.Plugins.JoinSecret, Invite: r.invitation,
		Limits: netboot.Limits{Conns: machineConns, ConnsPerSource: machineConnsPerSource},
		Ignition: func(view state.View, m machine.Machine) ([]byte, error) {
			in, err := ignition.FromView(view, m, url)
			if err != nil {
				return nil, err
			}
			return ignition.Assemble(in, r.Plugins.Contributors...)
		},
	})
	tell(true, "served on "+l.Addr().String())
	return server.Serve(ctx, l)
}

// linkLook is how often links are looked at: a cable or a card may come later.
const linkLook = 5 * time.Second

// serveDHCP serves the site's links that are present, and anew when others are.
func (r *replica) serveDHCP(ctx context.Context, tell report, site machine.Site) error {
	tick := time.NewTicker(linkLook)
	defer tick.Stop()
	for ctx.Err() == nil {
		links, missing, err := r.dhcpLinks(site)
		if err != nil {
			return err
		}
		serving, stop := context.WithCancel(ctx)
		ended := make(chan error, 1)
		server := &dhcp.Server{
			Links: links, Watchers: r.watchers, Now: r.now, Logger: r.Logger,
			View: func() dhcp.State { return r.store.Load().View() },
			Propose: func(ctx context.Context, by string, c state.Command) error {
				_, err := r.store.Load().Propose(ctx, by, c)
				return err
			},
		}
		var telling sync.Mutex
		var hindered []string
		var listening bool
		show := func() {
			ok, text := dhcpHealth(len(links), missing, hindered, server.Stats())
			kind := api.HealthFault
			if missing == nil && listening {
				kind = api.HealthListening
			}
			tell(ok, text, kind)
		}
		server.Hindered = func(why []string) {
			telling.Lock()
			defer telling.Unlock()
			hindered, listening = why, r.onlyListening()
			show()
		}
		show()
		go func() { ended <- server.Run(serving) }()
		err = nil
		for same := true; same && err == nil && ctx.Err() == nil; {
			select {
			case <-tick.C:
				var now []dhcp.Link
				var gone error
				now, gone, err = r.dhcpLinks(site)
				same = reflect.DeepEqual(now, links) && (gone == nil) == (missing == nil)
				telling.Lock()
				show() // with new counts
				telling.Unlock()
			case err = <-ended:
				ended <- err
				same = false
			case <-ctx.Done():
			}
		}
		stop()
		if err := errors.Join(err, <-ended); err != nil {
			return err
		}
	}
	return nil
}

// dhcpLinks are the links to serve of those that are present, and what is
// missing.
func (r *replica) dhcpLinks(site machine.Site) (links []dhcp.Link, missing, err error) {
	present, err := net.Interfaces()
	if err != nil {
		return nil, nil, err
	}
	cluster, _ := r.store.Load().View().Cluster()
	links, missing = dhcp.Links(site, cluster.ID, present)
	return links, missing, nil
}

// dhcpHealth is what is told of links that are served: missing are those that
// are not there, hindered says where new machines are not served, and why, and
// counts what was done since they are served.
func dhcpHealth(links int, missing error, hindered []string, counts dhcp.Stats) (ok bool, text string) {
	if missing != nil {
		hindered = append([]string{missing.Error()}, hindered...)
	}
	switch {
	case len(hindered) > 0:
		text = strings.Join(hindered, "; ")
	case links == 0:
		return true, "the site file has no link with dhcp: nobody is served"
	default:
		ok, text = true, fmt.Sprintf("served on %d links", links)
	}
	if counts.Received > 0 {
		text += "; " + counts.String()
	}
	return ok, text
}

// onlyListening says whether nothing hinders DHCP but that it listens for other
// servers first.
func (r *replica) onlyListening() bool {
	for _, w := range r.watchers {
		if w.Hindrance() != "" && !w.Listening() {
			return false
		}
	}
	return true
}

// serveTFTP serves what firmware loads first.
func (r *replica) serveTFTP(ctx context.Context, tell report, listen string) error {
	tell(true, "served on "+listen)
	return tftp.Serve(ctx, listen, netboot.NewFirmware(netboot.Config{
		Store: r.store.Load(), Blobs: artifacts{r}, Now: r.now, Logger: r.Logger,
	}))
}
