package api

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/rackseed/rackseed/services/state"
)

// How long something is opened that closes by itself: the discovery window, and
// the time in which a machine is looked at. The state refuses more than 30 days.
const (
	defaultFor = 2 * time.Hour
	minFor     = time.Minute
)

// until is when it ends, from now on; zero, which has passed, for 0s.
func (r ForRequest) until(now time.Time) time.Time {
	switch {
	case r.For == nil:
		return now.Add(defaultFor)
	case *r.For == 0:
		return time.Time{}
	}
	return now.Add(time.Duration(*r.For))
}

// DiscoveryOf is the discovery window at a time.
func DiscoveryOf(view state.View, now time.Time) Discovery {
	open, until := view.Discovery(now)
	site, _ := view.Site()
	return Discovery{Open: open, Until: until, Always: site.Discovery.Always}
}

func (s *Server) registerDiscovery(api huma.API) {
	answer := func() *body[Discovery] { return &body[Discovery]{DiscoveryOf(s.Store.View(), s.Now())} }
	huma.Register(api, operation("discovery", http.MethodGet, "/api/discovery", "discovery", "The discovery window"),
		func(context.Context, *struct{}) (*body[Discovery], error) { return answer(), nil })
	huma.Register(api, operation("discovery-open", http.MethodPost, "/api/discovery/open", "discovery",
		"Open the discovery window for a time", http.StatusConflict),
		func(ctx context.Context, in *struct{ Body *ForRequest }) (*body[Discovery], error) {
			if in.Body == nil {
				in.Body = &ForRequest{}
			}
			if f := in.Body.For; f != nil && time.Duration(*f) < minFor {
				return nil, huma.Error422UnprocessableEntity(fmt.Sprintf("for %s: at least %s is expected; close ends it", time.Duration(*f), minFor))
			}
			if _, err := s.propose(ctx, state.DiscoveryWindow{Until: in.Body.until(s.Now())}); err != nil {
				return nil, err
			}
			return answer(), nil
		})
	huma.Register(api, operation("discovery-close", http.MethodPost, "/api/discovery/close", "discovery",
		"Close the discovery window", http.StatusConflict),
		func(ctx context.Context, _ *struct{}) (*body[Discovery], error) {
			if DiscoveryOf(s.Store.View(), s.Now()).Always {
				return nil, huma.Error409Conflict("the site file keeps the discovery window open (discovery.always): close it there")
			}
			if _, err := s.propose(ctx, state.DiscoveryWindow{}); err != nil {
				return nil, err
			}
			return answer(), nil
		})
}
