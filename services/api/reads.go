package api

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"

	"github.com/danielgtaylor/huma/v2"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
)

type body[T any] struct{ Body T }

// items answers with a list; a nil one is empty, never null.
func items[T any](list []T) *body[List[T]] {
	if list == nil {
		list = []T{}
	}
	return &body[List[T]]{List[T]{Items: list}}
}

func (s *Server) registerReads(api huma.API) {
	huma.Register(api, operation("site", http.MethodGet, "/api/site", "site", "The site and its cluster"),
		func(context.Context, *struct{}) (*body[AppliedSite], error) {
			view := s.Store.View()
			site, applied := view.Site()
			return &body[AppliedSite]{AppliedSite{Applied: applied, Site: clean(site), Cluster: clusterOf(view)}}, nil
		})
	huma.Register(api, operation("status", http.MethodGet, "/api/status", "site", "How the boot service is"),
		func(context.Context, *struct{}) (*body[Status], error) { return &body[Status]{s.Status()}, nil })
	huma.Register(api, operation("leases", http.MethodGet, "/api/leases", "site", "DHCP leases, by address"),
		func(context.Context, *struct{}) (*body[List[machine.Lease]], error) {
			return items(s.Store.View().Leases()), nil
		})
	huma.Register(api, operation("images", http.MethodGet, "/api/images", "site", "Published images"),
		func(context.Context, *struct{}) (*body[List[machine.Image]], error) {
			return items(s.Store.View().Images()), nil
		})
	huma.Register(api, operation("events", http.MethodGet, "/api/events", "events", "Events, oldest first", http.StatusNotFound),
		func(_ context.Context, in *struct {
			After   uint64 `query:"after" doc:"Sequence number after which to begin."`
			Machine string `query:"machine" maxLength:"64" doc:"Only of this machine: ID, name, MAC, UUID or serial number."`
			Limit   int    `query:"limit" minimum:"1" maximum:"1000" default:"200"`
		}) (*body[EventList], error) {
			view := s.Store.View()
			var of machine.ID
			if in.Machine != "" {
				m, err := find(view, in.Machine)
				if err != nil {
					return nil, err
				}
				of = m.ID
			}
			list := view.Events(in.After, of, in.Limit)
			return &body[EventList]{EventList{Items: append([]machine.Event{}, list...), Last: view.LastEvent()}}, nil
		})
	huma.Register(api, operation("kubeconfig", http.MethodGet, "/api/kubeconfig", "site",
		"An administrator's kubeconfig for the cluster", http.StatusConflict, http.StatusUnprocessableEntity),
		func(ctx context.Context, in *struct {
			Server string `query:"server" maxLength:"256" doc:"URL of the API server, where the service address is not reachable."`
		}) (*kubeconfigOutput, error) {
			return s.kubeconfig(ctx, in.Server)
		})
}

type kubeconfigOutput struct {
	ContentType string `header:"Content-Type"`
	Disposition string `header:"Content-Disposition"`
	NoStore     string `header:"Cache-Control"`
	Body        []byte
}

// kubeconfig makes credentials, so that it is told in the events.
func (s *Server) kubeconfig(ctx context.Context, server string) (*kubeconfigOutput, error) {
	view := s.Store.View()
	site, applied := view.Site()
	if !applied {
		return nil, huma.Error409Conflict("there is no cluster yet: the site file was never applied; /api/status says why")
	}
	if server == "" {
		server = "https://" + net.JoinHostPort(site.ServiceAddress.String(), "6443")
	}
	if u, err := url.Parse(server); err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, huma.Error422UnprocessableEntity(fmt.Sprintf("server %q: expected a URL as https://192.0.2.10:6443", server))
	}
	who := asker(ctx).name
	config, err := s.Kubeconfig(view, who, server)
	if err != nil {
		return nil, huma.Error409Conflict("kubeconfig: " + err.Error())
	}
	if _, err := s.propose(ctx, state.Note{
		What: "kubeconfig.made", Severity: machine.Info,
		Text: "Kubeconfig made for operator " + who,
	}); err != nil {
		return nil, err
	}
	return &kubeconfigOutput{
		ContentType: "application/yaml", Disposition: `attachment; filename="kubeconfig"`, NoStore: "no-store", Body: config,
	}, nil
}

func clusterOf(view state.View) Cluster {
	c, _ := view.Cluster()
	return Cluster{ID: c.ID, Generation: c.Generation, Epoch: c.Epoch, FeatureLevel: c.FeatureLevel}
}

// clean takes from the site what gives power when it is known: the hashes of
// tokens. Lists are never null.
func clean(site machine.Site) machine.Site {
	operators := make([]machine.SiteOperator, 0, len(site.Operators))
	for _, o := range site.Operators {
		operators = append(operators, machine.SiteOperator{Name: o.Name})
	}
	site.Operators = operators
	site.Links = append([]machine.SiteLink{}, site.Links...)
	return site
}

// find finds a machine by what a person calls it.
func find(view state.View, word string) (machine.Machine, error) {
	m, err := view.FindMachine(word)
	if err != nil {
		return machine.Machine{}, huma.Error404NotFound(err.Error())
	}
	return m, nil
}
