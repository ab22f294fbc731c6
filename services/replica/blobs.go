package replica

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/rackseed/rackseed/services/blob"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/peerapi"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/wire"
)

// peers are the other replicas, as those who look for a blob ask them.
type peers struct{ *replica }

// Peers are the other members, in the order in which they are asked.
func (p peers) Peers() []string {
	return askOrder(p.store.Load().Membership(), p.own.ID)
}

// askOrder is the order in which a replica asks the others: the one that leads last.
// It has most to do, and where it is the appliance its stick is the slowest; what
// was just published the others say at once that they lack.
func askOrder(m state.Membership, own string) []string {
	var list []string
	for _, x := range m.Members {
		if x.ID != own && x.ID != m.Leader {
			list = append(list, x.ID)
		}
	}
	if m.Leader != own && m.Has(m.Leader) {
		list = append(list, m.Leader)
	}
	return list
}

// askLimit bounds the wait for another replica to say something short.
const askLimit = 5 * time.Second

func (p peers) Size(ctx context.Context, id string, digest blob.Digest) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	return p.client().Size(ctx, id, digest)
}

func (p peers) Blob(ctx context.Context, id string, digest blob.Digest, from int64) (io.ReadCloser, error) {
	return p.client().Blob(ctx, id, digest, from)
}

func (r *replica) client() peerapi.Client { return peerapi.Client{HTTP: r.network.Client()} }

func (r *replica) images() ([]machine.Image, <-chan struct{}) {
	view := r.store.Load().View()
	return view.Images(), view.Changed("images")
}

// manifestLimit bounds the wait for a manifest that another replica has.
const manifestLimit = 10 * time.Second

// artifacts are the blobs that netboot serves. One that is not here is served as
// another replica sends it.
type artifacts struct{ *replica }

func (a artifacts) Open(ctx context.Context, digest string) (io.ReadSeekCloser, error) {
	return a.copies.Open(ctx, blob.Digest(digest))
}

func (a artifacts) Files(manifest string) ([]wire.File, error) {
	ctx, cancel := context.WithTimeout(context.Background(), manifestLimit)
	defer cancel()
	content, err := a.copies.Document(ctx, blob.Digest(manifest))
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", manifest, err)
	}
	return blob.FilesOf(blob.Digest(manifest), content)
}
