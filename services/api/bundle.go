package api

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/rackseed/rackseed/services/support"
)

func (s *Server) registerSupport(api huma.API) {
	op := operation("support-bundle", http.MethodGet, "/api/support-bundle", "support",
		"A gzipped tar archive of what somebody who helps needs to know, without secrets")
	s.registerGzip(api, op, "The archive.", func() (string, func(io.Writer) error) {
		source := support.Source{View: s.Store.View(), Now: s.Now(), Status: s.status(), Log: s.Log}
		for _, i := range source.View.Images() {
			shown := s.image(i)
			source.Images = append(source.Images, support.Image{Image: i, Size: shown.Size, Problem: shown.Problem})
		}
		return "rackseed-support.tar.gz", func(w io.Writer) error { return support.Write(w, source) }
	})
}

// registerGzip registers a file to download, gzipped. content is asked for its name and
// for what writes it, once a request was let in.
func (s *Server) registerGzip(api huma.API, op huma.Operation, description string, content func() (name string, write func(io.Writer) error)) {
	op.Responses = map[string]*huma.Response{"200": {
		Description: description, Content: map[string]*huma.MediaType{"application/gzip": {}},
	}}
	huma.Register(api, op, func(context.Context, *struct{}) (*huma.StreamResponse, error) {
		name, write := content()
		return &huma.StreamResponse{Body: func(ctx huma.Context) {
			ctx.SetHeader("Content-Type", "application/gzip")
			ctx.SetHeader("Content-Disposition", fmt.Sprintf("attachment; filename=%q", name))
			if err := write(ctx.BodyWriter()); err != nil {
				s.Logger.Warn("api: a download broke off", "file", name, "error", err)
				panic(http.ErrAbortHandler) // the client must not take it for whole
			}
		}}, nil
	})
}
