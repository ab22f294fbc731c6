package blobsync

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/rackseed/rackseed/services/blob"
)

// part is what came of a blob so far; nothing of it is read again while the
// process lives. It is the caller's until keepPart or the upload's end.
func (l *Loop) part(ctx context.Context, d blob.Digest) (*blob.Upload, error) {
	l.mu.Lock()
	p, kept := l.parts[d]
	delete(l.parts, d)
	l.mu.Unlock()
	if kept {
		return p.Upload, nil
	}
	return l.Blobs.Continue(ctx, d)
}

// keepPart keeps what came for the next fetch, unless the disk is full: what
// cannot go on must not fill it.
func (l *Loop) keepPart(d blob.Digest, u *blob.Upload, full bool) error {
	if full || u.Size() == 0 {
		return u.Abort()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.parts == nil {
		l.parts = map[blob.Digest]part{}
	}
	l.parts[d] = part{u, time.Now()}
	if len(l.parts) <= maxParts {
		return nil
	}
	least := d
	for x, p := range l.parts {
		if p.Size() < l.parts[least].Size() {
			least = x
		}
	}
	u = l.parts[least].Upload
	delete(l.parts, least)
	return u.Abort()
}

// dropParts drops what is kept of blobs that are not wanted, and at the first time
// also what an earlier process left of such.
func (l *Loop) dropParts(wanted []lack, first bool) {
	want := func(d blob.Digest) bool {
		return slices.ContainsFunc(wanted, func(x lack) bool { return x.Digest == d })
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var err error
	for d, p := range l.parts {
		if !want(d) && time.Since(p.since) >= partLimit {
			delete(l.parts, d)
			err = errors.Join(err, p.Abort())
		}
	}
	if first {
		left, listErr := l.Blobs.Parts()
		err = errors.Join(err, listErr)
		for _, d := range left {
			_, kept := l.parts[d]
			_, comes := l.fetches[d]
			if !kept && !comes && !want(d) {
				err = errors.Join(err, l.Blobs.RemovePart(d))
			}
		}
	}
	if err != nil {
		l.Logger.Warn("blobs: a part that is not wanted stays on the disk", "error", err)
	}
}

// leaveParts lets go of what is kept: the next process goes on with it.
func (l *Loop) leaveParts() (err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for d, p := range l.parts {
		if e := p.Leave(); e != nil {
			err = errors.Join(err, fmt.Errorf("a part of blob %s: %w", d, e))
		}
	}
	clear(l.parts)
	return err
}
