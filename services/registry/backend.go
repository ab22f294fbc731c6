package registry

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/http"
	"slices"
	"time"

	"cuelabs.dev/go/oci/ociregistry"

	"github.com/rackseed/rackseed/services/blob"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
)

// backend is what ociserver serves: ociregistry.Interface over store and state.
type backend struct {
	*ociregistry.Funcs // nil: what is not here is answered with ErrUnsupported
	Config
	uploads *uploads
	reading chan struct{} // manifests being read at once, each up to blob.MaxDocument
}

const (
	maxReading     = 16
	publishTimeout = 10 * time.Second // how long a push waits for a commit
	// copyLimit is how long it waits before for what goes between replicas: what was
	// copied by then need not be copied for the next try.
	copyLimit = 5 * time.Minute
)

var _ ociregistry.Interface = (*backend)(nil)

// reader is an open blob, or a part of it.
type reader struct {
	io.Reader
	io.Closer
	is ociregistry.Descriptor
}

func (r reader) Descriptor() ociregistry.Descriptor { return r.is }

// open opens a blob that is here, or that another replica has.
func (b *backend) open(ctx context.Context, repo string, d ociregistry.Digest) (f blob.Content, digest blob.Digest, err error) {
	if digest, err = blob.Parse(string(d)); err != nil {
		return nil, "", blobUnknown(repo, d)
	}
	if b.Others != nil {
		f, err = b.Others.Open(ctx, digest)
	} else {
		f, err = b.Blobs.Open(digest)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", blobUnknown(repo, d)
	}
	return f, digest, err
}

func blobUnknown(repo string, d ociregistry.Digest) error {
	return refuse(http.StatusNotFound, ociregistry.ErrBlobUnknown, "%s: blob %s is not here", repo, d)
}

func (b *backend) GetBlob(ctx context.Context, repo string, d ociregistry.Digest) (ociregistry.BlobReader, error) {
	return b.GetBlobRange(ctx, repo, d, 0, -1)
}

func (b *backend) GetBlobRange(ctx context.Context, repo string, d ociregistry.Digest, from, to int64) (ociregistry.BlobReader, error) {
	f, digest, err := b.open(ctx, repo, d)
	if err != nil {
		return nil, err
	}
	size := f.Size()
	if to < 0 || to > size {
		to = size
	}
	if from > 0 && from >= size {
		return nil, errors.Join(refuse(http.StatusRequestedRangeNotSatisfiable, ociregistry.ErrRangeInvalid,
			"%s: blob %s has %d bytes, byte %d is asked for", repo, d, size, from), f.Close())
	}
	if _, err := f.Seek(from, io.SeekStart); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return reader{io.LimitReader(f, to-from), f, descriptor(octets, digest, size)}, nil
}

func (b *backend) ResolveBlob(ctx context.Context, repo string, d ociregistry.Digest) (ociregistry.Descriptor, error) {
	f, digest, err := b.open(ctx, repo, d)
	if err != nil {
		return ociregistry.Descriptor{}, err
	}
	return descriptor(octets, digest, f.Size()), f.Close()
}

// resolve describes a manifest. It is read for that: the store has blobs and
// manifests alike, and a manifest says what it is.
func (b *backend) resolve(ctx context.Context, repo string, d ociregistry.Digest) (ociregistry.Descriptor, error) {
	unknown := func(why string) (ociregistry.Descriptor, error) {
		return ociregistry.Descriptor{}, refuse(http.StatusNotFound, ociregistry.ErrManifestUnknown, "%s: manifest %s %s", repo, d, why)
	}
	f, digest, err := b.open(ctx, repo, d)
	if err != nil {
		if _, absent := errors.AsType[*refusal](err); absent {
			return unknown("is not here")
		}
		return ociregistry.Descriptor{}, err
	}
	defer f.Close() // it was only read
	if f.Size() > blob.MaxDocument {
		return unknown("is no manifest but a blob")
	}
	select {
	case b.reading <- struct{}{}:
		defer func() { <-b.reading }()
	case <-ctx.Done():
		return ociregistry.Descriptor{}, ctx.Err()
	}
	content, err := blob.ReadDocument(f, digest)
	if err != nil {
		return ociregistry.Descriptor{}, err
	}
	m, err := parseManifest(content, "")
	if err != nil {
		return unknown("is no manifest but a blob")
	}
	return descriptor(m.mediaType, digest, f.Size()), nil
}

func (b *backend) ResolveManifest(ctx context.Context, repo string, d ociregistry.Digest) (ociregistry.Descriptor, error) {
	return b.resolve(ctx, repo, d)
}

func (b *backend) GetManifest(ctx context.Context, repo string, d ociregistry.Digest) (ociregistry.BlobReader, error) {
	is, err := b.resolve(ctx, repo, d)
	if err != nil {
		return nil, err
	}
	f, _, err := b.open(ctx, repo, d)
	if err != nil {
		return nil, err
	}
	return reader{f, f, is}, nil
}

// tagged is the digest that a tag names.
func (b *backend) tagged(repo, tag string) (ociregistry.Digest, error) {
	image, ok := b.Store.View().Image(join(repo, tag))
	if !ok {
		return "", refuse(http.StatusNotFound, ociregistry.ErrManifestUnknown, "%s:%s is not published", repo, tag)
	}
	return ociregistry.Digest(image.Digest), nil
}

func (b *backend) ResolveTag(ctx context.Context, repo, tag string) (ociregistry.Descriptor, error) {
	d, err := b.tagged(repo, tag)
	if err != nil {
		return ociregistry.Descriptor{}, err
	}
	return b.resolve(ctx, repo, d)
}

func (b *backend) GetTag(ctx context.Context, repo, tag string) (ociregistry.BlobReader, error) {
	d, err := b.tagged(repo, tag)
	if err != nil {
		return nil, err
	}
	return b.GetManifest(ctx, repo, d)
}

// sorted answers with the names after one of them, in their order.
func sorted(names []string, after string) iter.Seq2[string, error] {
	slices.Sort(names)
	return func(yield func(string, error) bool) {
		for _, n := range slices.Compact(names) {
			if n > after && !yield(n, nil) {
				return
			}
		}
	}
}

func (b *backend) Repositories(_ context.Context, after string) iter.Seq2[string, error] {
	var names []string
	for _, i := range b.Store.View().Images() {
		repo, _ := split(i.Ref)
		names = append(names, repo)
	}
	return sorted(names, after)
}

func (b *backend) Tags(_ context.Context, repo, after string) iter.Seq2[string, error] {
	var names []string
	for _, i := range b.Store.View().Images() {
		if r, tag := split(i.Ref); r == repo {
			names = append(names, tag)
		}
	}
	if names == nil {
		return ociregistry.ErrorSeq[string](refuse(http.StatusNotFound, ociregistry.ErrNameUnknown, "nothing is published in repository %s", repo))
	}
	return sorted(names, after)
}

func (b *backend) PushBlob(_ context.Context, repo string, is ociregistry.Descriptor, from io.Reader) (ociregistry.Descriptor, error) {
	if err := b.checkRepository(repo); err != nil {
		return ociregistry.Descriptor{}, err
	}
	if err := b.uploads.fits(repo, is.Size); err != nil {
		return ociregistry.Descriptor{}, err
	}
	w, err := b.uploads.begin(repo)
	if err != nil {
		return ociregistry.Descriptor{}, err
	}
	// Nobody was told its name, so that nobody could resume it.
	defer w.Cancel()
	if _, err := w.ReadFrom(from); err != nil {
		return ociregistry.Descriptor{}, err
	}
	return w.Commit(is.Digest)
}

func (b *backend) PushBlobChunked(_ context.Context, repo string, _ int) (ociregistry.BlobWriter, error) {
	if err := b.checkRepository(repo); err != nil {
		return nil, err
	}
	return b.uploads.begin(repo)
}

func (b *backend) PushBlobChunkedResume(ctx context.Context, repo, id string, offset int64, length int) (ociregistry.BlobWriter, error) {
	return b.uploads.resume(ctx, repo, id, offset, int64(length))
}

func (b *backend) MountBlob(ctx context.Context, _, to string, d ociregistry.Digest) (ociregistry.Descriptor, error) {
	if err := b.checkRepository(to); err != nil {
		return ociregistry.Descriptor{}, err
	}
	return b.ResolveBlob(ctx, to, d)
}

// PushManifest stores a manifest of which all is here, and then publishes it
// under the tag.
func (b *backend) PushManifest(ctx context.Context, repo, tag string, content []byte, mediaType string) (ociregistry.Descriptor, error) {
	none := ociregistry.Descriptor{}
	if err := cmp.Or(b.checkRepository(repo), checkTag(repo, tag), b.uploads.room(int64(len(content)))); err != nil {
		return none, err
	}
	m, err := parseManifest(content, mediaType)
	if err != nil {
		return none, err
	}
	if err := b.complete(ctx, repo, m); err != nil {
		return none, err
	}
	digest, size, err := b.Blobs.Put(ctx, bytes.NewReader(content), "")
	if err != nil {
		return none, fmt.Errorf("%s: %w", repo, err)
	}
	if tag != "" {
		if err := b.keep(ctx, join(repo, tag), digest); err != nil {
			return none, err
		}
		if err := b.publish(ctx, machine.Image{Ref: join(repo, tag), Digest: string(digest)}); err != nil {
			return none, err
		}
	}
	return descriptor(m.mediaType, digest, size), nil
}

// complete says what of a manifest is not here. A client that was told that another
// replica has a blob did not push it: it comes from there.
func (b *backend) complete(ctx context.Context, repo string, m manifest) error {
	ctx, cancel := context.WithTimeout(ctx, copyLimit)
	defer cancel()
	for _, n := range m.names {
		f, err := b.Blobs.Open(n.digest)
		if errors.Is(err, fs.ErrNotExist) && b.Others != nil {
			if err = b.Others.Fetch(ctx, n.digest); err == nil {
				f, err = b.Blobs.Open(n.digest)
			} else if !errors.Is(err, fs.ErrNotExist) {
				return unavailable("%s: %s of the manifest is at another replica, and did not come from there (%v): push it again", repo, n.what, err)
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			return refuse(http.StatusNotFound, ociregistry.ErrManifestBlobUnknown, "%s: %s of the manifest, %s, is not here: push it first", repo, n.what, n.digest)
		}
		if err != nil {
			return err
		}
		if size := f.Size(); size != n.size {
			err = refuse(http.StatusBadRequest, ociregistry.ErrManifestInvalid, "%s: %s of the manifest, %s, has %d bytes, not %d", repo, n.what, n.digest, size, n.size)
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// keep has another replica keep what is to be published: its only disk may be lost
// after the answer.
func (b *backend) keep(ctx context.Context, ref string, manifest blob.Digest) error {
	if b.Others == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, copyLimit)
	defer cancel()
	if err := b.Others.KeepImage(ctx, manifest); err != nil {
		return unavailable("%s: it is here, no other replica has all of it yet (%v), and its tag is not committed: push it again", ref, err)
	}
	return nil
}

// publish commits a tag, in the name of who pushes.
func (b *backend) publish(ctx context.Context, image machine.Image) error {
	view := b.Store.View()
	if _, known := view.Image(image.Ref); !known && len(view.Images()) >= b.Limits.Tags {
		return refuse(http.StatusForbidden, ociregistry.ErrDenied, "%s: %d tags are published, which is the most: push to one of them", image.Ref, b.Limits.Tags)
	}
	who, _ := ctx.Value(whoKey{}).(person)
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	_, err := b.Store.Propose(ctx, who.by(), state.ImagePublish{Images: []machine.Image{image}})
	if refused, ok := errors.AsType[*state.Refusal](err); ok {
		return refuse(http.StatusBadRequest, ociregistry.ErrDenied, "%s: %v", image.Ref, refused)
	}
	if err != nil {
		return unavailable("%s: the manifest is here, whether its tag was committed is not known (%v): push it again", image.Ref, err)
	}
	return nil
}

// Deleting would need to know that no machine, install or other replica uses
// what goes; for now nothing is deleted.

func (b *backend) DeleteTag(_ context.Context, repo, tag string) error {
	return noDelete("tag %s:%s", repo, tag)
}

func (b *backend) DeleteManifest(_ context.Context, repo string, d ociregistry.Digest) error {
	return noDelete("%s: manifest %s", repo, d)
}

func (b *backend) DeleteBlob(_ context.Context, repo string, d ociregistry.Digest) error {
	return noDelete("%s: blob %s", repo, d)
}

func noDelete(format string, args ...any) error {
	return refuse(http.StatusMethodNotAllowed, ociregistry.ErrUnsupported, "%s: nothing is deleted from this registry; push something else under the tag instead", fmt.Sprintf(format, args...))
}
