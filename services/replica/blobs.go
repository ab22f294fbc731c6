package replica

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"slices"
	"time"

	"github.com/rackseed/rackseed/services/blob"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/peerapi"
	"github.com/rackseed/rackseed/services/wire"
)

// peers are the other replicas, as those who look for a blob ask them.
type peers struct{ *replica }

// Peers are the members, the leader first: it has what was just published.
func (p peers) Peers() []string {
	m := p.store.Load().Membership()
	var list []string
	for _, x := range m.Members {
		if x.ID != p.own.ID {
			list = append(list, x.ID)
		}
	}
	if i := slices.Index(list, m.Leader); i > 0 {
		list[0], list[i] = list[i], list[0]
	}
	return list
}

func (p peers) Blob(ctx context.Context, id string, digest blob.Digest, from int64) (io.ReadCloser, error) {
	return p.client().Blob(ctx, id, digest, from)
}

func (r *replica) client() peerapi.Client { return peerapi.Client{HTTP: r.network.Client()} }

func (r *replica) images() ([]machine.Image, <-chan struct{}) {
	view := r.store.Load().View()
	return view.Images(), view.Changed("images")
}

// fetchLimit bounds the wait of who asked for a blob that has to be fetched first.
const fetchLimit = 5 * time.Minute

// artifacts are the blobs that netboot serves. One that is not here is fetched
// from another replica first.
type artifacts struct{ *replica }

func (a artifacts) Open(digest string) (io.ReadSeekCloser, error) {
	f, err := a.blobs.Open(blob.Digest(digest))
	if !errors.Is(err, fs.ErrNotExist) || len((peers{a.replica}).Peers()) == 0 {
		return f, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), fetchLimit)
	defer cancel()
	if err := a.copies.Fetch(ctx, blob.Digest(digest)); err != nil {
		return nil, err
	}
	return a.blobs.Open(blob.Digest(digest))
}

func (a artifacts) Files(manifest string) ([]wire.File, error) {
	return a.blobs.Files(blob.Digest(manifest))
}
