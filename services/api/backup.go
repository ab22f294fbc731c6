package api

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
)

func (s *Server) registerBackup(api huma.API) {
	op := operation("backup", http.MethodGet, "/api/backup", "cluster",
		"A gzipped backup of the state, as rackseed recover --from takes it. Its secrets are sealed: it opens with the recovery key")
	op.Responses = map[string]*huma.Response{"200": {
		Description: "The backup.", Content: map[string]*huma.MediaType{"application/gzip": {}},
	}}
	huma.Register(api, op, func(context.Context, *struct{}) (*huma.StreamResponse, error) {
		return &huma.StreamResponse{Body: func(ctx huma.Context) {
			ctx.SetHeader("Content-Type", "application/gzip")
			ctx.SetHeader("Content-Disposition", fmt.Sprintf(`attachment; filename="rackseed-%d.backup.gz"`, s.Store.View().Index()))
			z := gzip.NewWriter(ctx.BodyWriter())
			_, err := s.Store.Export(z)
			if err = errors.Join(err, z.Close()); err != nil {
				s.Logger.Warn("api: backup", "error", err)
				panic(http.ErrAbortHandler) // the client must not take it for whole
			}
		}}, nil
	})
}
