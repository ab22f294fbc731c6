package registry

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"time"

	"cuelabs.dev/go/oci/ociregistry"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/rackseed/rackseed/services/blob"
	"github.com/rackseed/rackseed/services/durable"
)

// uploads are the blobs that are on their way. They live as long as the
// process: what a restart left is removed, and its client begins again.
type uploads struct {
	limits Limits
	blobs  *blob.Store
	log    *slog.Logger

	mu  sync.Mutex
	all map[string]*upload
}

// upload is one blob on its way; one request at a time works on it.
type upload struct {
	id, repo string
	busy     chan struct{} // one place: who is in it works on the upload
	blob     *blob.Upload
	idle     *time.Timer
	ended    bool // by busy
}

// patience is how long a request waits for the one before it: who asks where an
// upload stands must not make a part fail that comes at that instant, and a
// connection that broke is noticed a little after its client has gone on.
const patience = time.Second

// take waits for an upload, and says whether it is the caller's now.
func (up *upload) take(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case up.busy <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// release gives it back.
func (up *upload) release() { <-up.busy }

// roomEach is after how many bytes of an upload the free space is looked at
// again.
const roomEach = 8 << 20

// room says whether more bytes fit, with what must stay free.
func (u *uploads) room(more int64) error {
	free, err := u.blobs.Free()
	if err != nil {
		return err
	}
	if free-more < u.limits.KeepFree {
		return refuse(http.StatusInsufficientStorage, ociregistry.ErrDenied,
			"the data partition has %d MiB free, of which %d MiB are kept for the boot service itself: %d MiB more do not fit; use a larger stick or disk",
			free>>20, u.limits.KeepFree>>20, (more+1<<20-1)>>20)
	}
	return nil
}

func (u *uploads) tooLarge(repo string) error {
	return refuse(http.StatusRequestEntityTooLarge, ociregistry.ErrSizeInvalid,
		"%s: a blob may have %d MiB and this one has more", repo, u.limits.MaxBlob>>20)
}

// fits says whether a blob of size bytes may come now; size is -1 if it is not
// known.
func (u *uploads) fits(repo string, size int64) error {
	if size > u.limits.MaxBlob {
		return u.tooLarge(repo)
	}
	return u.room(max(size, 0))
}

// begin begins an upload. It is the caller's until close.
func (u *uploads) begin(repo string) (*writer, error) {
	if err := u.room(0); err != nil {
		return nil, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.all) >= u.limits.Uploads {
		return nil, tooMany("%d uploads are open, which is the most: try again when one has ended", len(u.all))
	}
	b, err := u.blobs.Create()
	if err != nil {
		return nil, err
	}
	var id [16]byte
	rand.Read(id[:]) // never fails since Go 1.24
	up := &upload{id: hex.EncodeToString(id[:]), repo: repo, blob: b, busy: make(chan struct{}, 1)}
	up.busy <- struct{}{}
	up.idle = time.AfterFunc(u.limits.Idle, func() { u.expire(up) })
	u.all[up.id] = up
	return &writer{all: u, up: up, offset: 0}, nil
}

// resume goes on with an upload. Offset is where the caller will write, -1 for
// where it stands, and length how much comes, 0 if that is not known.
func (u *uploads) resume(ctx context.Context, repo, id string, offset, length int64) (*writer, error) {
	u.mu.Lock()
	up := u.all[id]
	u.mu.Unlock()
	unknown := refuse(http.StatusNotFound, ociregistry.ErrBlobUploadUnknown,
		"%s: there is no such upload: it ended, stood still for %v, or the boot service was restarted; begin again", repo, u.limits.Idle)
	if up == nil || up.repo != repo {
		return nil, unknown
	}
	if !up.take(ctx) {
		return nil, refuse(http.StatusRequestedRangeNotSatisfiable, ociregistry.ErrBlobUploadInvalid,
			"%s: another request is still writing to this upload: ask where it stands, or begin again", repo)
	}
	if up.ended {
		up.release()
		return nil, unknown
	}
	w := &writer{all: u, up: up, offset: offset}
	if length > 0 {
		if err := w.place(); err != nil {
			w.end(false)
			return nil, err
		}
		// What is refused because of its length is refused before it was sent.
		if err := u.fits(repo, up.blob.Size()+length); err != nil {
			w.end(true)
			return nil, err
		}
	}
	return w, nil
}

// expire removes an upload that nobody goes on with.
func (u *uploads) expire(up *upload) {
	select {
	case up.busy <- struct{}{}:
	default:
		return // it is written to; end sets the timer again
	}
	defer up.release()
	if !up.ended {
		u.remove(up)
		u.log.Info("registry: an abandoned upload was removed", "repository", up.repo, "bytes", up.blob.Size())
		u.abort(up)
	}
}

// remove takes an upload, which is busy, off the list.
func (u *uploads) remove(up *upload) {
	up.ended = true
	up.idle.Stop()
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.all, up.id)
}

func (u *uploads) abort(up *upload) {
	if err := up.blob.Abort(); err != nil {
		u.log.Warn("registry: removing a part of a blob", "error", err)
	}
}

// writer is a request's hold of an upload: ociregistry.BlobWriter.
//
// Its errors come out of Close and Commit, never out of ReadFrom, which is what
// io.Copy calls: ociserver takes the code from an error of io.Copy.
type writer struct {
	all     *uploads
	up      *upload
	offset  int64 // where the next byte belongs; -1: at the end
	checked int64 // bytes since the free space was looked at
	failed  error
	gone    bool
	size    int64 // once gone
}

var (
	_ ociregistry.BlobWriter = (*writer)(nil)
	_ io.ReaderFrom          = (*writer)(nil)
)

// place says whether what comes begins where the upload stands.
func (w *writer) place() error {
	if have := w.up.blob.Size(); w.offset >= 0 && w.offset != have {
		return refuse(http.StatusRequestedRangeNotSatisfiable, ociregistry.ErrRangeInvalid,
			"%s: this part begins at byte %d, and the upload stands at byte %d", w.up.repo, w.offset, have)
	}
	w.offset = -1
	return nil
}

// errBody is that of a request whose sender went away or was too slow.
type errBody struct{ error }

func (w *writer) ReadFrom(from io.Reader) (total int64, _ error) {
	buf := make([]byte, 256<<10)
	for w.failed == nil {
		n, err := from.Read(buf)
		if n > 0 {
			n, w.failed = w.write(buf[:n])
			total += int64(n)
		}
		switch {
		case err == io.EOF:
			return total, nil
		case err != nil && w.failed == nil:
			w.failed = errBody{err}
		}
	}
	return total, nil
}

func (w *writer) Write(b []byte) (int, error) {
	n, err := w.write(b)
	w.failed = err
	return n, err
}

func (w *writer) write(b []byte) (int, error) {
	if err := w.place(); err != nil {
		return 0, err
	}
	if w.up.blob.Size()+int64(len(b)) > w.all.limits.MaxBlob {
		return 0, w.all.tooLarge(w.up.repo)
	}
	if w.checked += int64(len(b)); w.checked >= roomEach {
		w.checked = 0
		if err := w.all.room(0); err != nil {
			return 0, err
		}
	}
	n, err := w.up.blob.Write(b)
	return n, kept(err)
}

// kept is the error of a write; the client hears why a medium takes none.
func kept(err error) error {
	if durable.Unwritable(err) {
		return refuse(http.StatusInsufficientStorage, ociregistry.ErrDenied, "the data partition takes no writes: %v; nothing of this blob is kept", err)
	}
	return err
}

// Close lets go of the upload; after an error that going on cannot mend it is
// ended.
func (w *writer) Close() error {
	w.end(!resumable(w.failed))
	return w.answer()
}

// resumable says whether an upload may go on after an error.
func resumable(err error) bool {
	var own *refusal
	if errors.As(err, &own) {
		return own.status == http.StatusRequestedRangeNotSatisfiable
	}
	var body errBody
	return err == nil || errors.As(err, &body)
}

// answer is the error in the protocol's form.
func (w *writer) answer() error {
	var body errBody
	if !errors.As(w.failed, &body) {
		return w.failed
	}
	status := http.StatusBadRequest
	if errors.Is(body.error, os.ErrDeadlineExceeded) {
		status = http.StatusRequestTimeout
	}
	return refuse(status, ociregistry.ErrBlobUploadInvalid,
		"%s: the upload broke off at byte %d: %v; it can be resumed there", w.up.repo, w.Size(), body.error)
}

// end gives the upload back, or removes it.
func (w *writer) end(remove bool) {
	if w.gone {
		return
	}
	w.gone, w.size = true, w.up.blob.Size()
	if remove {
		w.all.remove(w.up)
		w.all.abort(w.up)
	} else {
		w.up.idle.Reset(w.all.limits.Idle)
	}
	w.up.release()
}

func (w *writer) Size() int64 {
	if w.gone {
		return w.size
	}
	return w.up.blob.Size()
}

// ChunkSize is the least that a part must have: any.
func (w *writer) ChunkSize() int { return 1 }

func (w *writer) ID() string { return w.up.id }

// Commit ends the upload: the blob is in the store, or nothing is kept.
func (w *writer) Commit(want ociregistry.Digest) (ociregistry.Descriptor, error) {
	if w.failed != nil {
		return ociregistry.Descriptor{}, w.Close()
	}
	digest, err := blob.Parse(string(want))
	if err != nil {
		w.end(true)
		return ociregistry.Descriptor{}, refuse(http.StatusBadRequest, ociregistry.ErrDigestInvalid, "%s: %v", w.up.repo, err)
	}
	w.gone, w.size = true, w.up.blob.Size()
	w.all.remove(w.up)
	_, err = w.up.blob.Commit(digest)
	err = kept(err)
	w.up.release()
	if errors.Is(err, blob.ErrMismatch) {
		err = refuse(http.StatusBadRequest, ociregistry.ErrDigestInvalid, "%s: %v; nothing was kept, push it again", w.up.repo, err)
	} else if err != nil {
		err = fmt.Errorf("%s: %w", w.up.repo, err)
	}
	return descriptor(octets, digest, w.size), err
}

// Cancel ends the upload if it has not ended.
func (w *writer) Cancel() error {
	w.end(true)
	return nil
}

// octets is the media type of what is only bytes.
const octets = "application/octet-stream"

func descriptor(mediaType string, d blob.Digest, size int64) ociregistry.Descriptor {
	return v1.Descriptor{MediaType: mediaType, Digest: ociregistry.Digest(d), Size: size}
}
