package api

import (
	"context"
	"errors"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/setup"
	"github.com/rackseed/rackseed/services/site"
	"github.com/rackseed/rackseed/services/state"
)

// SetupState is how far a site is set up.
type SetupState struct {
	Source   setup.Source `json:"source" enum:"none,given,kept" doc:"The site file in force: none; the given one, on the stick; or the one that is kept, as setup made it."`
	Problems []string     `json:"problems" doc:"What is wrong with the given site file, a line each, or that there is none."`
	Draft    setup.Draft  `json:"draft" doc:"What is in force, as far as setup asks for it; what to begin with."`
	Lost     []string     `json:"lost" doc:"Parts of the site file in force, by their keys, that one made by setup would not have."`
}

// SetupDraft is a draft with the site file that it makes.
type SetupDraft struct {
	Draft    setup.Draft    `json:"draft"`
	Text     string         `json:"text" doc:"The site file that it makes."`
	Problems []site.Problem `json:"problems" doc:"What is wrong with it; also what is not answered yet."`
	Warnings []site.Problem `json:"warnings" doc:"What is valid and should be looked at. None while something is wrong."`
}

func (s *Server) registerSetup(api huma.API) {
	const tag = "setup"
	none := func() error {
		if s.Setup == nil {
			return huma.Error409Conflict("this boot service is not set up here: write its site file, and start it with --site FILE")
		}
		return nil
	}
	huma.Register(api, operation("setup-state", http.MethodGet, "/api/setup", tag, "The site file in force, and where setup begins", http.StatusConflict),
		func(context.Context, *struct{}) (*body[SetupState], error) {
			if err := none(); err != nil {
				return nil, err
			}
			now := s.Setup.Files.Read()
			return &body[SetupState]{SetupState{
				Source: now.Source, Problems: append([]string{}, now.Problems...),
				Draft: setup.DraftOf(now.Site), Lost: append([]string{}, setup.Lost(now.Site)...),
			}}, nil
		})
	huma.Register(api, operation("setup-links", http.MethodGet, "/api/setup/links", tag,
		"The appliance's links, and what answers DHCP there; takes seconds", http.StatusConflict),
		func(ctx context.Context, _ *struct{}) (*body[List[setup.Found]], error) {
			if err := none(); err != nil {
				return nil, err
			}
			found, err := s.Setup.Links(ctx)
			if err != nil {
				return nil, huma.Error500InternalServerError(err.Error())
			}
			list := make([]setup.Found, len(found))
			for i, f := range found {
				list[i] = f
				list[i].Offers = append([]setup.Offer{}, f.Offers...)
			}
			return items(list), nil
		})
	huma.Register(api, operation("setup-propose", http.MethodPost, "/api/setup/propose", tag,
		"Fill in what a draft has no answer for, by what is seen on its link; takes seconds", http.StatusConflict),
		func(ctx context.Context, in *struct{ Body setup.Draft }) (*body[SetupDraft], error) {
			if err := none(); err != nil {
				return nil, err
			}
			d, err := s.Setup.Propose(ctx, in.Body)
			if err != nil {
				return nil, huma.Error409Conflict(err.Error())
			}
			return &body[SetupDraft]{s.drafted(d)}, nil
		})
	huma.Register(api, operation("setup-check", http.MethodPost, "/api/setup/check", tag, "The site file that a draft makes, and what is wrong with it"),
		func(_ context.Context, in *struct{ Body setup.Draft }) (*body[SetupDraft], error) {
			return &body[SetupDraft]{s.drafted(in.Body)}, nil
		})
	keep := operation("setup-keep", http.MethodPost, "/api/setup/keep", tag, "Keep a site file: it is in force from then on", http.StatusConflict, http.StatusUnprocessableEntity)
	keep.MaxBodyBytes = maxSiteBody
	huma.Register(api, keep, func(ctx context.Context, in *struct{ Body SiteText }) (*body[SiteCheck], error) {
		if err := none(); err != nil {
			return nil, err
		}
		return s.keepSite(ctx, []byte(in.Body.Text))
	})
}

func (s *Server) drafted(d setup.Draft) SetupDraft {
	text := d.YAML()
	check := s.checkSite(text)
	return SetupDraft{Draft: d, Text: string(text), Problems: check.Problems, Warnings: check.Warnings}
}

func (s *Server) keepSite(ctx context.Context, text []byte) (*body[SiteCheck], error) {
	check := s.checkSite(text)
	if !check.Valid {
		list := site.Error{File: "site.yaml"}
		var details []error
		for _, p := range check.Problems {
			details = append(details, errors.New(list.Line(p)))
		}
		return nil, huma.Error422UnprocessableEntity("the site file is not kept: something is wrong with it", details...)
	}
	kept, err := s.Setup.Files.Keep(text)
	switch {
	case errors.Is(err, setup.ErrGiven):
		return nil, huma.Error409Conflict(err.Error())
	case err != nil:
		return nil, huma.Error500InternalServerError(err.Error())
	}
	// It is on disk; the replica applies it, whether this is told or not.
	if _, err := s.propose(ctx, state.Note{
		What: "site.kept", Severity: machine.Info, Text: "Site file of \"" + kept.Name + "\" made in the console by operator " + asker(ctx).name,
		Data: map[string]string{"by": asker(ctx).by()},
	}); err != nil {
		s.Logger.Warn("the event of a site file that was kept could not be recorded", "by", asker(ctx).by(), "error", err)
	}
	return &body[SiteCheck]{check}, nil
}
