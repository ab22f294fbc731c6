package netboot

import (
	"net/http"

	"github.com/rackseed/rackseed/services/wire"
)

// serveNodeAccess tells a node who may log in. Without a site nobody knows, and it keeps
// what it has.
func (s *Server) serveNodeAccess(w http.ResponseWriter, r *http.Request, c caller) error {
	site, ok := s.Store.View().Site()
	if !ok {
		return status(http.StatusServiceUnavailable, errNoSite)
	}
	return writeJSON(w, wire.NodeAccess{SSHKeys: append([]string{}, site.SSHKeys...)})
}
