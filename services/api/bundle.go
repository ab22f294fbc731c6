package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/rackseed/rackseed/services/support"
)

func (s *Server) registerSupport(api huma.API) {
	op := operation("support-bundle", http.MethodGet, "/api/support-bundle", "support",
		"A gzipped tar archive of what somebody who helps needs to know, without secrets")
	op.Responses = map[string]*huma.Response{"200": {
		Description: "The archive.", Content: map[string]*huma.MediaType{"application/gzip": {}},
	}}
	huma.Register(api, op, func(context.Context, *struct{}) (*huma.StreamResponse, error) {
		source := support.Source{View: s.Store.View(), Now: s.Now(), Status: s.status(), Log: s.Log}
		for _, i := range source.View.Images() {
			shown := s.image(i)
			source.Images = append(source.Images, support.Image{Image: i, Size: shown.Size, Problem: shown.Problem})
		}
		return &huma.StreamResponse{Body: func(ctx huma.Context) {
			ctx.SetHeader("Content-Type", "application/gzip")
			ctx.SetHeader("Content-Disposition", `attachment; filename="rackseed-support.tar.gz"`)
			if err := support.Write(ctx.BodyWriter(), source); err != nil {
				s.Logger.Warn("api: support bundle", "error", err)
				panic(http.ErrAbortHandler) // the client must not take it for whole
			}
		}}, nil
	})
}
