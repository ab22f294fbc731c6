package netboot

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"time"

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
	// slowest is the rate in bytes a second below which a transfer is cut, so
	// that stalled machines do not hold the turns of others. Its client goes
	// on by Range.
	slowest = 128 << 10
)

// serveBlob answers with a blob, whole or by Range (RFC 9110 §14). The name
// after the digest is for the client alone: iPXE and GRUB name files by URL.
func (s *Server) serveBlob(w http.ResponseWriter, r *http.Request) error {
	digest := r.PathValue("digest")
	if !digestForm.MatchString(digest) {
		return status(http.StatusBadRequest, fmt.Errorf("blob %.100q: sha256: and 64 hex digits are expected", digest))
	}
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
	size, err := b.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("blob %s: %w", digest, err)
	}
	deadline(w, time.Minute+time.Duration(size/slowest)*time.Second)
	h := w.Header()
	h.Set("ETag", `"`+digest+`"`) // strong: the content is the name
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	h.Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", time.Time{}, b)
	return nil
}
