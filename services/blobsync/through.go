package blobsync

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/rackseed/rackseed/services/blob"
)

const (
	// ahead is how far before what a fetch has so far a reader waits for it, in
	// bytes; one that is further ahead asks another replica for itself.
	ahead = 4 << 20
	// maxBeside are the fetches at once that readers begin; of more, each asks
	// another replica for itself.
	maxBeside = 16
)

// ErrNowhere says that no replica has a blob: each was asked, and answered.
var ErrNowhere = fmt.Errorf("no replica has it: %w", fs.ErrNotExist)

// Open opens a blob that is here, or else one of another replica: what it sends is
// read while it comes, and is stored beside that if there is room. The last byte of
// what is stored comes only once all was compared with the digest. ctx is that of
// who reads. The error is ErrNowhere if no replica has it.
func (l *Loop) Open(ctx context.Context, d blob.Digest) (blob.Content, error) {
	f, err := l.Blobs.Open(d)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	peer, size, err := l.find(ctx, d)
	if err != nil {
		return nil, err
	}
	t := &through{loop: l, digest: d, size: size, holder: peer, broke: map[string]bool{}}
	t.ctx, t.stop = context.WithCancel(ctx)
	t.fetch = l.beside(t.ctx, d, size)
	return t, nil
}

// Document reads a small blob, as a manifest, from here or from another replica.
func (l *Loop) Document(ctx context.Context, d blob.Digest) ([]byte, error) {
	f, err := l.Open(ctx, d)
	if err != nil {
		return nil, err
	}
	b, err := blob.ReadDocument(f, d)
	return b, errors.Join(err, f.Close())
}

// find asks the other replicas for a blob, in order, until one has it.
func (l *Loop) find(ctx context.Context, d blob.Digest) (peer string, size int64, err error) {
	var errs []error
	for _, peer := range l.Source.Peers() {
		size, err := l.Source.Size(ctx, peer, d)
		if err == nil {
			return peer, size, nil
		}
		if ctx.Err() != nil {
			return "", 0, ctx.Err()
		}
		if !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("replica %s: %w", peer, err))
		}
	}
	if len(errs) > 0 {
		return "", 0, fmt.Errorf("blob %s: no replica that answers has it: %w", d, errors.Join(errs...))
	}
	return "", 0, fmt.Errorf("blob %s: %w", d, ErrNowhere)
}

// through is a blob that comes from another replica: out of what a fetch has of it
// or, where there is none or it is far, directly.
type through struct {
	ctx    context.Context // of who reads, until Close
	stop   context.CancelFunc
	loop   *Loop
	digest blob.Digest
	size   int64
	holder string // said that it has it
	pos    int64

	fetch  *fetch // nil: none
	took   bool   // bytes were read out of it
	began  int    // how often it had begun then
	here   blob.File
	direct io.ReadCloser // from pos on
	broke  map[string]bool
}

func (t *through) Size() int64 { return t.size }

// Seek implements io.Seeker.
func (t *through) Seek(by int64, from int) (int64, error) {
	switch from {
	case io.SeekCurrent:
		by += t.pos
	case io.SeekEnd:
		by += t.size
	}
	if by < 0 {
		return 0, fmt.Errorf("blob %s: byte %d is before its beginning", t.digest, by)
	}
	if by != t.pos {
		t.pos = by
		return by, t.closeDirect()
	}
	return by, nil
}

// Close implements io.Closer.
func (t *through) Close() error {
	t.stop()
	err := t.closeDirect()
	if t.fetch != nil {
		t.loop.leave(t.fetch)
		t.fetch = nil
	}
	if t.here != nil {
		err = errors.Join(err, t.here.Close())
	}
	return err
}

func (t *through) closeDirect() error {
	if t.direct == nil {
		return nil
	}
	err := t.direct.Close()
	t.direct = nil
	return err
}

// Read implements io.Reader.
func (t *through) Read(b []byte) (n int, err error) {
	if t.pos >= t.size {
		return 0, io.EOF
	}
	if len(b) == 0 {
		return 0, nil
	}
	for n == 0 && err == nil {
		if err = t.ctx.Err(); err == nil {
			n, err = t.some(b[:min(int64(len(b)), t.size-t.pos)])
		}
	}
	t.pos += int64(n)
	return n, err
}

// some reads some bytes, or none where what there is has to be looked at anew.
func (t *through) some(b []byte) (int, error) {
	switch {
	case t.here != nil:
		return t.here.ReadAt(b, t.pos)
	case t.direct != nil:
		return t.fromDirect(b)
	case t.fetch == nil:
		return 0, t.openDirect()
	}
	now := t.fetch.look()
	if t.took && now.began != t.began {
		return 0, fmt.Errorf("blob %s: other bytes came than were asked for, and some of them were read", t.digest)
	}
	end := min(now.have, t.size-1) // the last one once all was compared
	switch {
	case now.over:
		ended := t.fetch
		t.fetch = nil
		t.loop.leave(ended)
		if ended.err != nil { // as the disk is full: it still can be read
			return 0, nil
		}
		var err error
		t.here, err = t.loop.Blobs.Open(t.digest)
		return 0, err
	case t.pos < end:
		n, err := now.part.ReadAt(b[:min(int64(len(b)), end-t.pos)], t.pos)
		if errors.Is(err, fs.ErrClosed) { // it has ended since
			return 0, nil
		}
		t.took, t.began = true, now.began
		return n, err
	case t.pos > now.have+ahead:
		return 0, t.openDirect()
	}
	select {
	case <-now.more:
	case <-t.ctx.Done():
	}
	return 0, nil
}

// openDirect asks a replica for all from here on; the first that said that it has it.
func (t *through) openDirect() error {
	var errs []error
	for _, peer := range append([]string{t.holder}, t.loop.Source.Peers()...) {
		if t.broke[peer] {
			continue
		}
		t.broke[peer] = true // until something comes
		r, err := t.loop.body(t.ctx, peer, t.digest, t.pos)
		if err == nil {
			t.direct, t.holder = r, peer
			return nil
		}
		errs = append(errs, fmt.Errorf("replica %s: %w", peer, err))
	}
	return fmt.Errorf("blob %s: it broke off at byte %d: %w", t.digest, t.pos, errors.Join(errs...))
}

// fromDirect reads what a replica sends, and where that breaks off has another one
// asked.
func (t *through) fromDirect(b []byte) (int, error) {
	n, err := t.direct.Read(b)
	if n > 0 {
		clear(t.broke)
		return n, nil // an error comes again
	}
	if err != nil {
		t.broke[t.holder] = true
		t.loop.Logger.Warn("blobs: a replica broke off while it was read through", "blob", t.digest, "replica", t.holder, "byte", t.pos, "error", err)
		_ = t.closeDirect() // it has failed already
	}
	return 0, nil
}

// body opens a replica's blob from a byte on; it ends when nothing comes for long.
func (l *Loop) body(ctx context.Context, peer string, d blob.Digest, from int64) (io.ReadCloser, error) {
	ctx, stop := context.WithCancelCause(ctx)
	stall := time.AfterFunc(stallLimit, func() { stop(fmt.Errorf("nothing came for %v", stallLimit)) })
	r, err := l.Source.Blob(ctx, peer, d, from)
	stall.Stop()
	if err != nil {
		defer stop(nil)
		return nil, cause(ctx, err)
	}
	return &watched{r, ctx, stop, stall}, nil
}

// watched is a body with a timer, which runs while something is waited for.
type watched struct {
	io.ReadCloser
	ctx   context.Context
	stop  context.CancelCauseFunc
	stall *time.Timer
}

func (w *watched) Read(b []byte) (int, error) {
	w.stall.Reset(stallLimit)
	n, err := w.ReadCloser.Read(b)
	w.stall.Stop()
	if err != nil && err != io.EOF {
		err = cause(w.ctx, err)
	}
	return n, err
}

func (w *watched) Close() error {
	w.stall.Stop()
	w.stop(nil)
	return w.ReadCloser.Close()
}

// cause is why a context ended, if that is what an error is of.
func cause(ctx context.Context, err error) error {
	if why := context.Cause(ctx); why != nil {
		return why
	}
	return err
}
