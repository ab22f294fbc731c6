package blobsync

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"

	"github.com/rackseed/rackseed/services/blob"
	"github.com/rackseed/rackseed/services/durable"
)

// errUnwanted ends a fetch that nobody waits for any more.
var errUnwanted = errors.New("nobody wants it any more")

// fetch is a blob on its way. Whoever wants it waits for it, or reads it as it
// comes; it ends when nobody does.
type fetch struct {
	digest  blob.Digest
	waiting int // by Loop.mu
	beside  bool
	stop    context.CancelCauseFunc
	done    chan struct{}
	err     error // once done

	mu  sync.Mutex
	now progress
}

// progress is how far a fetch is.
type progress struct {
	part  *blob.Upload // to be read
	have  int64        // bytes of it
	began int          // how often it was begun, as other bytes came
	over  bool
	more  chan struct{} // closed when anything of it changes
}

func (f *fetch) look() progress {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now
}

func (f *fetch) tell(change func(*progress)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&f.now)
	close(f.now.more)
	f.now.more = make(chan struct{})
}

// begin shows the part that is written to from now on.
func (f *fetch) begin(u *blob.Upload) {
	f.tell(func(p *progress) { p.part, p.have, p.began = u, u.Size(), p.began+1 })
}

// Write appends to the part.
func (f *fetch) Write(b []byte) (int, error) {
	n, err := f.look().part.Write(b)
	f.tell(func(p *progress) { p.have += int64(n) })
	return n, err
}

// Fetch fetches one blob, unless it is here.
func (l *Loop) Fetch(ctx context.Context, d blob.Digest) error {
	for !l.Blobs.Has(d) {
		l.mu.Lock()
		f := l.join(d)
		l.mu.Unlock()
		select {
		case <-f.done:
		case <-ctx.Done():
			if last := l.leave(f); last {
				<-f.done
			}
			return ctx.Err()
		}
		l.leave(f)
		if !errors.Is(f.err, errUnwanted) { // else others left it in the same moment
			return f.err
		}
	}
	return nil
}

// beside begins a fetch for who reads through, or joins it; nil: there is no room,
// or there are many. One that everybody left is waited for, which is soon over: it
// would end under who joins it.
func (l *Loop) beside(ctx context.Context, d blob.Digest, size int64) *fetch {
	l.mu.Lock()
	defer l.mu.Unlock()
	for f := l.fetches[d]; f != nil && f.waiting == 0; f = l.fetches[d] {
		l.mu.Unlock()
		select {
		case <-f.done:
		case <-ctx.Done():
		}
		l.mu.Lock()
		if ctx.Err() != nil {
			return nil
		}
	}
	if l.fetches[d] == nil {
		have := int64(0)
		if p, kept := l.parts[d]; kept {
			have = p.Size()
		}
		if l.readThrough >= maxBeside || l.room(size-have) != nil {
			return nil
		}
		f := l.join(d)
		f.beside = true
		l.readThrough++
		return f
	}
	return l.join(d)
}

// join takes part in a fetch, which is begun if there is none. l.mu is held.
func (l *Loop) join(d blob.Digest) *fetch {
	f := l.fetches[d]
	if f == nil {
		// It is of all that wait for it: none of their contexts ends it.
		ctx, stop := context.WithCancelCause(context.Background())
		f = &fetch{digest: d, stop: stop, done: make(chan struct{}), now: progress{more: make(chan struct{})}}
		if l.fetches == nil {
			l.fetches = map[blob.Digest]*fetch{}
		}
		l.fetches[d] = f
		go l.run(ctx, f)
	}
	f.waiting++
	return f
}

// leave ends a part in a fetch, and says whether it was the last one's.
func (l *Loop) leave(f *fetch) (last bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f.waiting--; f.waiting == 0 {
		f.stop(errUnwanted)
	}
	return f.waiting == 0
}

func (l *Loop) run(ctx context.Context, f *fetch) {
	if !l.Blobs.Has(f.digest) {
		if f.err = l.fetch(ctx, f); f.err != nil && context.Cause(ctx) != nil {
			f.err = context.Cause(ctx)
		}
	}
	l.mu.Lock()
	delete(l.fetches, f.digest)
	if f.beside {
		l.readThrough--
	}
	l.mu.Unlock()
	f.tell(func(p *progress) { p.over = true })
	close(f.done)
}

// room says whether so many bytes more fit on the disk.
func (l *Loop) room(more int64) error {
	free, err := l.Blobs.Free()
	if err != nil {
		return err
	}
	if keep := cmp.Or(l.KeepFree, keepFree); free-more < keep {
		return fmt.Errorf("%w: the disk has %d MiB free, of which %d MiB are kept for the boot service itself: %d MiB more do not fit; use a larger disk",
			errNoRoom, free>>20, keep>>20, (more+1<<20-1)>>20)
	}
	return nil
}

var errNoRoom = errors.New("no room")

// fetch asks one replica after another, and goes on where the one before, or an
// earlier fetch, ended.
func (l *Loop) fetch(ctx context.Context, f *fetch) error {
	u, err := l.part(ctx, f.digest)
	if err != nil {
		return err
	}
	f.begin(u)
	var errs []error
	nowhere := true
	peers := l.Source.Peers()
	for len(peers) > 0 && ctx.Err() == nil {
		peer, began := peers[0], u.Size()
		err := l.from(ctx, peer, f, u)
		if err == nil {
			if _, err = u.Commit(f.digest); err == nil {
				return nil
			}
			// It has ended. One of those that sent has other bytes.
			if u, err = l.anew(ctx, err, f, peer); err != nil {
				return err
			}
			nowhere, errs = false, append(errs, fmt.Errorf("replica %s: other bytes came than were asked for", peer))
			if began == 0 { // it was this one: else it may be asked for all
				peers = peers[1:]
			}
			continue
		}
		if nowhere = nowhere && errors.Is(err, fs.ErrNotExist); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("replica %s: %w", peer, err))
		}
		peers = peers[1:]
	}
	if nowhere && ctx.Err() == nil {
		return errors.Join(fmt.Errorf("blob %s: %w", f.digest, ErrNowhere), l.keepPart(f.digest, u, false))
	}
	err = errors.Join(errs...)
	full := durable.Unwritable(err) || errors.Is(err, errNoRoom)
	return errors.Join(fmt.Errorf("blob %s: no other replica has it whole: %w", f.digest, err), l.keepPart(f.digest, u, full))
}

// anew begins a blob again that was not what it should be.
func (l *Loop) anew(ctx context.Context, err error, f *fetch, peer string) (*blob.Upload, error) {
	if !errors.Is(err, blob.ErrMismatch) {
		return nil, err
	}
	l.Logger.Error("blobs: other bytes came than were asked for; a medium may be failing", "blob", f.digest, "replica", peer, "error", err)
	u, err := l.Blobs.Continue(ctx, f.digest)
	if err == nil {
		f.begin(u)
	}
	return u, err
}

// from copies what one replica sends, from where the blob stands.
func (l *Loop) from(ctx context.Context, peer string, f *fetch, u *blob.Upload) error {
	size, err := l.Source.Size(ctx, peer, f.digest)
	if err == nil {
		err = l.room(size - u.Size())
	}
	if err != nil {
		return err
	}
	r, err := l.body(ctx, peer, f.digest, u.Size())
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, r.Close())
}
