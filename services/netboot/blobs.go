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
	// slowest is the rate in bytes a second below which a transfer is cut, on
	// the whole and after a start of transferGrace, so that slow readers do not
	// hold the turns of others. Its client goes on by Range.
	slowest       = 128 << 10
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
	http.ServeContent(&paced{ResponseWriter: w, began: time.Now(), stall: s.Limits.Stall}, r, "", time.Time{}, b)
	return nil
}

// paced is an answer that has to get on: each write has a deadline.
type paced struct {
	http.ResponseWriter
	began time.Time
	stall time.Duration
	sent  int64
}

func (p *paced) Write(b []byte) (int, error) {
	deadlineAt(p.ResponseWriter, paceDeadline(p.began, time.Now(), p.stall, p.sent+int64(len(b))))
	n, err := p.ResponseWriter.Write(b)
	p.sent += int64(n)
	return n, err
}

// paceDeadline is when the write must be over with which sent bytes are sent:
// it must not stand still, nor be slow on the whole.
func paceDeadline(began, now time.Time, stall time.Duration, sent int64) time.Time {
	still := now.Add(stall)
	slow := began.Add(transferGrace + time.Duration(sent/slowest)*time.Second)
	if slow.Before(still) {
		return slow
	}
	return still
}
