package netboot

import (
	"context"
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
	// Open opens a blob for who asks with ctx. The error wraps fs.ErrNotExist if no
	// replica has it.
	Open(ctx context.Context, digest string) (io.ReadSeekCloser, error)
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
	h := w.Header()
	h.Set("ETag", `"`+digest+`"`) // strong: the content is the name
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	err := s.send(w, r, func(ctx context.Context) (io.ReadSeekCloser, error) { return s.Blobs.Open(ctx, digest) })
	if err != nil {
		h.Del("ETag")
		return fmt.Errorf("blob %s: %w", digest, err)
	}
	if r.PathValue("name") == fileKernel && r.Method == http.MethodGet {
		s.fetched(r, digest)
	}
	return nil
}

// send answers with a file, whole or by Range, once it is its turn.
func (s *Server) send(w http.ResponseWriter, r *http.Request, open func(context.Context) (io.ReadSeekCloser, error)) error {
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
	f, err := open(r.Context())
	if err != nil {
		return err
	}
	defer func() {
		if err := f.Close(); err != nil {
			s.Logger.Warn("closing a file that was sent", "path", r.URL.Path, "error", err)
		}
	}()
	w.Header().Set("Content-Type", "application/octet-stream")
	pace := bounded.Pace{Stall: s.Limits.Stall, Slowest: slowest, Grace: transferGrace}
	http.ServeContent(pace.Answer(w), r, "", time.Time{}, f)
	return nil
}
