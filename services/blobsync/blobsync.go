// Package blobsync keeps a replica's blobs complete: what the images in the state
// name and is not here, it fetches from other replicas, by digest.
package blobsync

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
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
	counted []lack
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
	Counted bool  // they were
	Missing int   // of those that another replica may have
	Bytes   int64 // of those that are missing, as far as it is known
	// Lost names the images of which something is on no replica, and what to do;
	// "": there are none.
	Lost string
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

// lack is a blob that is not here, and the images that name it.
type lack struct {
	registry.Lack
	refs []string
}

// lacks are what is missing of all images, each blob once.
func (l *Loop) lacks(images []machine.Image) ([]lack, error) {
	var all []lack
	at := map[blob.Digest]int{}
	for _, i := range images {
		some, err := registry.Missing(l.Blobs, i.Digest)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", i.Ref, err)
		}
		for _, x := range some {
			n, seen := at[x.Digest]
			if !seen {
				n = len(all)
				at[x.Digest] = n
				all = append(all, lack{Lack: x})
			}
			all[n].refs = append(all[n].refs, i.Ref)
		}
	}
	return all, nil
}

// count notes what is missing, where lost are those that no replica has: nobody need
// wait for them.
func (l *Loop) count(lacks []lack, lost map[blob.Digest]bool) Status {
	s := Status{Counted: true}
	var refs []string
	var waited []lack
	for _, x := range lacks {
		if lost[x.Digest] {
			refs = append(refs, x.refs...)
			continue
		}
		waited = append(waited, x)
	}
	slices.Sort(refs)
	s.Missing, s.Lost = len(waited), lostWords(slices.Compact(refs))
	l.mu.Lock()
	l.status, l.counted = s, waited
	l.mu.Unlock()
	return l.Status()
}

// namedLost are the images that are named of those that are lost.
const namedLost = 5

func lostWords(refs []string) string {
	var list []string
	for _, ref := range refs[:min(len(refs), namedLost)] {
		out := "push it again"
		if !strings.Contains(ref, ":") { // it is of a release
			out = "it comes back with the appliance, or with a replica that has it"
		}
		list = append(list, fmt.Sprintf("image %s is on no replica: %s", ref, out))
	}
	if more := len(refs) - namedLost; more > 0 {
		list = append(list, fmt.Sprintf("and %d images more are on none", more))
	}
	return strings.Join(list, "; ")
}

// words are a status as it is told; why is what went wrong last, if anything did.
func (s Status) words(images int, why error) (ok bool, text string) {
	switch {
	case s.Missing > 0 && why != nil:
		text = fmt.Sprintf("%d blobs with %d MiB are missing: %v", s.Missing, s.Bytes>>20, why)
	case s.Missing > 0:
		text = fmt.Sprintf("%d blobs with %d MiB are on their way", s.Missing, s.Bytes>>20)
	case s.Lost == "":
		return true, fmt.Sprintf("every blob of %d images is here", images)
	}
	if s.Lost == "" {
		return false, text
	}
	return false, strings.TrimPrefix(text+"; "+s.Lost, "; ")
}

// Run fetches what is missing until ctx ends.
func (l *Loop) Run(ctx context.Context, tell func(ok bool, text string)) (err error) {
	defer func() { err = errors.Join(err, l.leaveParts()) }()
	wait := pauseFirst
	// Those that no replica had when it was asked last: asked again each time.
	lost := map[blob.Digest]bool{}
	for first := true; ctx.Err() == nil; first = false {
		images, changed := l.Images()
		lacks, err := l.lacks(images)
		if err != nil {
			return err
		}
		l.dropParts(lacks, first)
		maps.DeleteFunc(lost, func(d blob.Digest, _ bool) bool {
			return !slices.ContainsFunc(lacks, func(x lack) bool { return x.Digest == d })
		})
		now := l.count(lacks, lost)
		tell(now.words(len(images), nil))
		pause := recount
		if len(lacks) > 0 {
			failed := l.all(ctx, lacks)
			if len(failed) < len(lacks) { // what came may name more
				wait = pauseFirst
				continue
			}
			if ctx.Err() == nil {
				clear(lost)
				for d, err := range failed {
					if errors.Is(err, ErrNowhere) {
						lost[d] = true
						delete(failed, d)
					}
				}
				now = l.count(lacks, lost)
				tell(now.words(len(images), errors.Join(slices.Collect(maps.Values(failed))...)))
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

// FetchImage fetches all that an image consists of, unless it is here.
func (l *Loop) FetchImage(ctx context.Context, digest blob.Digest) error {
	for {
		lacks, err := l.lacks([]machine.Image{{Ref: string(digest), Digest: string(digest)}})
		if err != nil || len(lacks) == 0 {
			return err
		}
		if failed := l.all(ctx, lacks); len(failed) > 0 {
			return errors.Join(slices.Collect(maps.Values(failed))...)
		}
	}
}

// all fetches blobs, some at once, and says why some did not come.
func (l *Loop) all(ctx context.Context, lacks []lack) map[blob.Digest]error {
	var all sync.WaitGroup
	var mu sync.Mutex
	failed := map[blob.Digest]error{}
	turns := make(chan struct{}, atOnce)
	for _, x := range lacks {
		turns <- struct{}{}
		all.Go(func() {
			defer func() { <-turns }()
			if err := l.Fetch(ctx, x.Digest); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed[x.Digest] = err
			}
		})
	}
	all.Wait()
	return failed
}
