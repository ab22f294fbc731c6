package api

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
)

func (s *Server) registerBackup(api huma.API) {
	op := operation("backup", http.MethodGet, "/api/backup", "cluster",
		"A gzipped backup of the state, as rackseed recover --from takes it. Its secrets are sealed: it opens with the recovery key")
	s.registerGzip(api, op, "The backup.", func() (string, func(io.Writer) error) {
		return fmt.Sprintf("rackseed-%d.backup.gz", s.Store.View().Index()), func(w io.Writer) error {
			z := gzip.NewWriter(w)
			_, err := s.Store.Export(z)
			return errors.Join(err, z.Close())
		}
	})
}
