package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/rackseed/rackseed/services/approve"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/registry"
	"github.com/rackseed/rackseed/services/setup"
	"github.com/rackseed/rackseed/services/site"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/support"
	"github.com/rackseed/rackseed/services/wire"
)

type body[T any] struct{ Body T }

// items answers with a list; a nil one is empty, never null.
func items[T any](list []T) *body[List[T]] {
	if list == nil {
		list = []T{}
	}
	return &body[List[T]]{List[T]{Items: list}}
}

// maxSiteBody is the most of a request with a site file, which is longer as JSON.
const maxSiteBody = 4 * site.MaxBytes

func (s *Server) registerReads(api huma.API) {
	huma.Register(api, operation("site", http.MethodGet, "/api/site", "site", "The site and its cluster"),
		func(context.Context, *struct{}) (*body[AppliedSite], error) {
			view := s.Store.View()
			in, applied := view.Site()
			return &body[AppliedSite]{AppliedSite{Applied: applied, Site: clean(in), Cluster: clusterOf(view)}}, nil
		})
	huma.Register(api, operation("status", http.MethodGet, "/api/status", "site", "How the boot service is"),
		func(context.Context, *struct{}) (*body[Status], error) { return &body[Status]{s.status()}, nil })
	huma.Register(api, operation("profiles", http.MethodGet, "/api/profiles", "site", "Profiles, in the site file's order, and their machines"),
		func(context.Context, *struct{}) (*body[List[ProfileUse]], error) {
			return items(profiles(s.Store.View())), nil
		})
	validate := operation("site-validate", http.MethodPost, "/api/site/validate", "site", "What is wrong with a site file; changes nothing")
	validate.MaxBodyBytes = maxSiteBody
	huma.Register(api, validate,
		func(_ context.Context, in *struct{ Body SiteText }) (*body[SiteCheck], error) {
			return &body[SiteCheck]{s.checkSite([]byte(in.Body.Text))}, nil
		})
	put := operation("site-apply", http.MethodPost, "/api/site/apply", "site",
		"Apply a site file, where no file of the appliance decides: the boot service runs on nodes", http.StatusConflict)
	put.MaxBodyBytes = maxSiteBody
	huma.Register(api, put,
		func(ctx context.Context, in *struct{ Body SiteText }) (*body[SiteCheck], error) {
			if !s.SiteByHand {
				return nil, huma.Error409Conflict("the site file of the appliance decides, and would replace what is applied here: change that one, or wait until the boot service runs on nodes")
			}
			check := s.checkSite([]byte(in.Body.Text))
			if !check.Valid {
				return &body[SiteCheck]{check}, nil
			}
			now, _, err := setup.Examine("site.yaml", []byte(in.Body.Text))
			if err != nil {
				return nil, huma.Error500InternalServerError(err.Error())
			}
			if before, ok := s.Store.View().Site(); ok && before.ServiceAddress != now.ServiceAddress {
				return nil, huma.Error409Conflict(fmt.Sprintf("the service address is %s and would become %s: nodes and machines know the boot service by it, so that it stays", before.ServiceAddress, now.ServiceAddress))
			}
			if _, err := s.propose(ctx, state.SiteApply{Site: now}); err != nil {
				return nil, err
			}
			return &body[SiteCheck]{check}, nil
		})
	huma.Register(api, operation("leases", http.MethodGet, "/api/leases", "site", "DHCP leases, by address"),
		func(context.Context, *struct{}) (*body[List[machine.Lease]], error) {
			return items(s.Store.View().Leases()), nil
		})
	huma.Register(api, operation("images", http.MethodGet, "/api/images", "site", "Published images"),
		func(context.Context, *struct{}) (*body[List[Image]], error) {
			var list []Image
			for _, i := range s.Store.View().Images() {
				list = append(list, s.image(i))
			}
			return items(list), nil
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
}

// status is how the boot service is now.
func (s *Server) status() Status {
	status, view := s.Status(), s.Store.View()
	status.Discovery, status.Program = DiscoveryOf(view, s.Now()), support.ThisProgram()
	status.SiteWarnings = []site.Problem{}
	if in, applied := view.Site(); applied {
		status.SiteWarnings = append(status.SiteWarnings, setup.Warnings(in)...)
	}
	return status
}

// image is a published image with its files.
func (s *Server) image(i machine.Image) Image {
	out := Image{Image: i, Name: registry.Name(i.Ref), Files: []wire.File{}}
	if s.Files == nil {
		out.Problem = "this boot service holds no images"
		return out
	}
	files, err := s.Files(i.Digest)
	if err != nil {
		out.Problem = err.Error()
		return out
	}
	out.Files = append(out.Files, files...)
	for _, f := range files {
		out.Size += f.Size
	}
	return out
}

// profiles are the site's profiles with the machines that they are about.
func profiles(view state.View) []ProfileUse {
	site, _ := view.Site()
	list, index := make([]ProfileUse, len(site.Profiles)), map[string]int{}
	for i, p := range site.Profiles {
		list[i] = ProfileUse{Profile: p, Machines: []MachineRef{}, Matches: []ProfileMatch{}}
		index[p.Name] = i
	}
	for _, m := range view.Machines() {
		ref := MachineRef{ID: m.ID, Name: m.Name}
		if m.Approved() {
			if i, ok := index[m.Profile]; ok {
				list[i].Machines = append(list[i].Machines, ref)
			}
			continue
		}
		c, err := approve.ProfileFor(view, m, "")
		i, ok := index[c.Name]
		// One that nobody looked at is told apart by its entry in the list alone.
		if err != nil || !ok || m.Inventory == nil && c.By == approve.ByRole {
			continue
		}
		list[i].Matches = append(list[i].Matches, ProfileMatch{ref, c.Why})
	}
	return list
}

// CheckSite says what site a file describes, or all that is wrong with it. name
// is how the file is called; profile says what is wrong with what a profile gives
// its nodes in Kubernetes (nil: that is not looked at).
func CheckSite(name string, text []byte, profile func(machine.Profile) error) SiteCheck {
	checked, warnings, err := setup.Examine(name, text, func(s machine.Site) (problems, warnings []site.Problem) {
		for i, p := range s.Profiles {
			if profile == nil {
				break
			}
			if err := profile(p); err != nil {
				problems = append(problems, site.Problem{Path: fmt.Sprintf("profiles[%d]", i), Text: err.Error()})
			}
		}
		return problems, nil
	})
	check := SiteCheck{Problems: []site.Problem{}, Warnings: append([]site.Problem{}, warnings...)}
	var wrong *site.Error
	switch {
	case errors.As(err, &wrong):
		check.Problems = wrong.Problems
	case err != nil:
		check.Problems = []site.Problem{{Text: err.Error()}}
	default:
		checked = clean(checked)
		check.Valid, check.Site = true, &checked
	}
	return check
}

func (s *Server) checkSite(text []byte) SiteCheck {
	return CheckSite("site.yaml", text, s.CheckProfile)
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
		text := err.Error()
		site, _ := view.Site()
		for _, l := range site.Expected(view.Machines()) {
			if word != "" && (strings.EqualFold(word, l.Name) || strings.EqualFold(word, string(l.MAC)) || l.HasUUID(word)) {
				text = fmt.Sprintf("%q is in the site file's list (%s), and was not seen yet: set it to boot from the network, and switch it on", word, l.Key())
			}
		}
		return machine.Machine{}, huma.Error404NotFound(text)
	}
	return m, nil
}
