package netboot

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"time"

	"github.com/rackseed/rackseed/services/bounded"
	"github.com/rackseed/rackseed/services/wire"
)

// Blobs is what the server needs of the blob store. Digests are sha256:HEX.
type Blobs interface {
	// Open opens a blob. The error wraps fs.ErrNotExist if it is not here.
	Open(digest string) (io.ReadSeekCloser, error)
	// Files lists the files of the artifact whose manifest has the digest.
	Files(manifest string) ([]wire.File, error)
}

// digestForm is strict: what goes on from here becomes a file's name.
var digestForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

const (
	// transferWait is how long a request for a blob waits for its turn.
	transferWait = 10 * time.Second
	// A transfer slower than this is cut. Its client goes on by Range.
	slowest       = 128 << 10 // bytes a second
	transferGrace = time.Minute
)

// serveBlob answers with a blob, whole or by Range (RFC 9110 §14). The name
// after the digest is for the client alone: iPXE and GRUB name files by URL.
func (s *Server) serveBlob(w http.ResponseWriter, r *http.Request) error {
	digest := r.PathValue("digest")
	if !digestForm.MatchString(digest) {
		return status(http.StatusBadRequest, fmt.Errorf("blob %.100q: sha256: and 64 hex digits are expected", digest))
	}
	from := bounded.Source(r.RemoteAddr)
	if !s.receivers.Enter(from) {
		return status(http.StatusServiceUnavailable, errors.New("too many transfers to this address: ask again"))
	}
	defer s.receivers.Leave(from)
	wait := time.NewTimer(transferWait)
	defer wait.Stop()
	select {
	case s.transfers <- struct{}{}:
		defer func() { <-s.transfers }()
	case <-r.Context().Done():
		return r.Context().Err()
	case <-wait.C:
		return status(http.StatusServiceUnavailable, errors.New("too many transfers: ask again"))
	}
	b, err := s.Blobs.Open(digest)
	if err != nil {
		return fmt.Errorf("blob %s: %w", digest, err)
	}
	defer func() {
		if err := b.Close(); err != nil {
			s.Logger.Warn("closing a blob", "digest", digest, "error", err)
		}
	}()
	h := w.Header()
	h.Set("ETag", `"`+digest+`"`) // strong: the content is the name
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	h.Set("Content-Type", "application/octet-stream")
	pace := bounded.Pace{Stall: s.Limits.Stall, Slowest: slowest, Grace: transferGrace}
	http.ServeContent(pace.Answer(w), r, "", time.Time{}, b)
	return nil
}
