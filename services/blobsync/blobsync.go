// Package blobsync keeps a replica's blobs complete: what the images in the state
// name and is not here, it fetches from other replicas, by digest.
package blobsync

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/rackseed/rackseed/services/blob"
	"github.com/rackseed/rackseed/services/durable"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/registry"
)

const (
	atOnce     = 4 // blobs that are fetched at once
	pauseFirst = time.Second
	pauseMost  = 30 * time.Second
	// recount is how often everything is looked at anew: a medium can lose a file.
	recount = 10 * time.Minute
	// stallLimit is how long a replica may send nothing before another is asked.
	stallLimit = 30 * time.Second
	// maxParts are blobs that broke off and are gone on with; of more, the smallest
	// begin anew.
	maxParts = 16
	// partLimit is how long what came of a blob is kept that no image names (yet).
	partLimit = time.Hour
)

// Source is how other replicas are asked.
type Source interface {
	// Peers are the replicas to ask, in order.
	Peers() []string
	// Blob opens a blob of a replica, from a byte on.
	Blob(ctx context.Context, peer string, digest blob.Digest, from int64) (io.ReadCloser, error)
}

// Loop keeps the blobs complete.
type Loop struct {
	Blobs *blob.Store
	// Images are those of the state, and a channel that is closed when there are
	// others.
	Images func() ([]machine.Image, <-chan struct{})
	Source Source
	Logger *slog.Logger

	mu      sync.Mutex
	status  Status
	fetches map[blob.Digest]*fetch
	parts   map[blob.Digest]part
}

// part is what came of a blob that broke off.
type part struct {
	*blob.Upload
	since time.Time
}

// Status is how complete the blobs are.
type Status struct {
	Counted bool // they were
	Missing int
	Bytes   int64 // of those that are missing, as far as it is known
}

// Status is how complete the blobs were when it was looked last.
func (l *Loop) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.status
}

// lacks are what is missing of all images, each blob once.
func (l *Loop) lacks(images []machine.Image) ([]registry.Lack, error) {
	var all []registry.Lack
	seen := map[blob.Digest]bool{}
	for _, i := range images {
		some, err := registry.Missing(l.Blobs, i.Digest)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", i.Ref, err)
		}
		for _, x := range some {
			if !seen[x.Digest] {
				seen[x.Digest] = true
				all = append(all, x)
			}
		}
	}
	return all, nil
}

// Run fetches what is missing until ctx ends.
func (l *Loop) Run(ctx context.Context, tell func(ok bool, text string)) (err error) {
	defer func() { err = errors.Join(err, l.leaveParts()) }()
	wait := pauseFirst
	for first := true; ctx.Err() == nil; first = false {
		images, changed := l.Images()
		lacks, err := l.lacks(images)
		if err != nil {
			return err
		}
		l.dropParts(lacks, first)
		s := Status{Counted: true, Missing: len(lacks)}
		for _, x := range lacks {
			s.Bytes += max(x.Size, 0)
		}
		l.mu.Lock()
		l.status = s
		l.mu.Unlock()
		pause := recount
		if len(lacks) == 0 {
			tell(true, fmt.Sprintf("every blob of %d images is here", len(images)))
		} else {
			tell(false, fmt.Sprintf("%d blobs with %d MiB are on their way", s.Missing, s.Bytes>>20))
			err := l.all(ctx, lacks)
			if err == nil {
				wait = pauseFirst
				continue
			}
			if ctx.Err() == nil {
				tell(false, fmt.Sprintf("%d blobs with %d MiB are missing: %v", s.Missing, s.Bytes>>20, err))
			}
			pause, wait = wait, min(2*wait, pauseMost)
		}
		timer := time.NewTimer(pause)
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
	return nil
}

// all fetches blobs, some at once.
func (l *Loop) all(ctx context.Context, lacks []registry.Lack) error {
	var all sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	turns := make(chan struct{}, atOnce)
	for _, x := range lacks {
		turns <- struct{}{}
		all.Go(func() {
			defer func() { <-turns }()
			if err := l.Fetch(ctx, x.Digest); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// fetch is a blob on its way. Whoever wants it too waits for it.
type fetch struct {
	done chan struct{}
	err  error
}

// Fetch fetches one blob, unless it is here.
func (l *Loop) Fetch(ctx context.Context, d blob.Digest) error {
	l.mu.Lock()
	f, under := l.fetches[d]
	if !under {
		f = &fetch{done: make(chan struct{})}
		if l.fetches == nil {
			l.fetches = map[blob.Digest]*fetch{}
		}
		l.fetches[d] = f
	}
	l.mu.Unlock()
	if under {
		select {
		case <-f.done:
			if f.err != nil && ctx.Err() == nil && errors.Is(f.err, context.Canceled) {
				return l.Fetch(ctx, d) // it was the other one's context
			}
			return f.err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if !l.Blobs.Has(d) {
		f.err = l.fetch(ctx, d)
	}
	l.mu.Lock()
	delete(l.fetches, d)
	l.mu.Unlock()
	close(f.done)
	return f.err
}

// fetch asks one replica after another, and goes on where the one before, or an
// earlier fetch, ended.
func (l *Loop) fetch(ctx context.Context, d blob.Digest) error {
	u, err := l.part(ctx, d)
	if err != nil {
		return err
	}
	errs := []error{fmt.Errorf("blob %s: no other replica has it", d)}
	peers := l.Source.Peers()
	for len(peers) > 0 {
		peer, began := peers[0], u.Size()
		err := l.from(ctx, peer, d, u)
		if err == nil {
			_, err = u.Commit(d)
			if err == nil {
				return nil
			}
			// It has ended. One of those that sent has other bytes.
			if u, err = l.anew(ctx, err, d, peer); err != nil {
				return err
			}
			if began == 0 { // it was this one: else it may be asked for all
				peers = peers[1:]
			}
			continue
		}
		errs = append(errs, fmt.Errorf("replica %s: %w", peer, err))
		if ctx.Err() != nil {
			break
		}
		peers = peers[1:]
	}
	err = errors.Join(errs...)
	return errors.Join(err, l.keepPart(d, u, durable.Unwritable(err)))
}

// anew begins a blob again that was not what it should be.
func (l *Loop) anew(ctx context.Context, err error, d blob.Digest, peer string) (*blob.Upload, error) {
	if !errors.Is(err, blob.ErrMismatch) {
		return nil, err
	}
	l.Logger.Error("blobs: other bytes came than were asked for; a medium may be failing", "blob", d, "replica", peer, "error", err)
	return l.Blobs.Continue(ctx, d)
}

// from copies what one replica sends, from where the blob stands.
func (l *Loop) from(ctx context.Context, peer string, d blob.Digest, u *blob.Upload) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	r, err := l.Source.Blob(ctx, peer, d, u.Size())
	if err != nil {
		return err
	}
	stall := time.AfterFunc(stallLimit, func() { stop(fmt.Errorf("nothing came for %v", stallLimit)) })
	defer stall.Stop()
	_, err = io.Copy(u, watched{r, stall})
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	return errors.Join(err, r.Close())
}

// watched puts a timer off whenever something comes.
type watched struct {
	io.Reader
	stall *time.Timer
}

func (w watched) Read(b []byte) (int, error) {
	n, err := w.Reader.Read(b)
	if n > 0 {
		w.stall.Reset(stallLimit)
	}
	return n, err
}
