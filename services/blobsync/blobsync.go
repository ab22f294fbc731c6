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
	// keepFree are the bytes of the disk that fetches leave free, unless it is said.
	keepFree = 256 << 20
	// partLimit is how long what came of a blob is kept that no image names (yet).
	partLimit = time.Hour
)

// Source is how other replicas are asked.
type Source interface {
	// Peers are the replicas to ask, in order.
	Peers() []string
	// Size is how many bytes a replica's blob has; fs.ErrNotExist: it has none.
	Size(ctx context.Context, peer string, digest blob.Digest) (int64, error)
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
	// KeepFree are the bytes of the disk that fetches leave free; 0: 256 MiB.
	KeepFree int64
	Logger   *slog.Logger

	mu      sync.Mutex
	status  Status
	counted []registry.Lack
	fetches map[blob.Digest]*fetch
	parts   map[blob.Digest]part
	// readThrough are the fetches that readers began.
	readThrough int
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

// Status is how complete the blobs were when they were counted last, without the
// bytes that came since.
func (l *Loop) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.status
	for _, x := range l.counted {
		left := max(x.Size, 0)
		if f := l.fetches[x.Digest]; f != nil {
			left -= f.look().have
		} else if p, kept := l.parts[x.Digest]; kept {
			left -= p.Size()
		} else if l.Blobs.Has(x.Digest) {
			continue
		}
		s.Bytes += max(left, 0)
	}
	return s
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
		l.mu.Lock()
		l.status, l.counted = s, lacks
		l.mu.Unlock()
		s = l.Status()
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
