package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"sync"
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
	return askOrder(p.store.Load().Membership(), p.own.ID, p.slow.all())
}

// voters are those of Peers that vote.
func (p peers) voters() []string {
	m := p.store.Load().Membership()
	return slices.DeleteFunc(p.Peers(), func(id string) bool { return !m.Voter(id) })
}

// askOrder is the order in which a replica asks the others: the one that leads late.
// It has most to do, and where it is the appliance its stick is the slowest; what
// was just published the others say at once that they lack. Last are those that were
// slow, at the times of slow, the one before the others for which that is longest ago.
func askOrder(m state.Membership, own string, slow map[string]time.Time) []string {
	var list []string
	for _, x := range m.Members {
		if x.ID != own && x.ID != m.Leader {
			list = append(list, x.ID)
		}
	}
	if m.Leader != own && m.Has(m.Leader) {
		list = append(list, m.Leader)
	}
	slices.SortStableFunc(list, func(a, b string) int { return slow[a].Compare(slow[b]) })
	return list
}

// slowness remembers who was slow, and when, until it is not.
type slowness struct {
	mu   sync.Mutex
	when map[string]time.Time
}

func (s *slowness) all() map[string]time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.when)
}

// heard notes how one answered to what was asked at a time: with which error, and
// whether that took longer than patience.
func (s *slowness) heard(id string, asked time.Time, patience time.Duration, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch now := time.Now(); {
	case now.Sub(asked) >= patience:
		if s.when == nil {
			s.when = map[string]time.Time{}
		}
		s.when[id] = now
	case err == nil || errors.Is(err, fs.ErrNotExist):
		delete(s.when, id)
	}
}

// ask asks a replica something short, and remembers whether it was slow: that it did
// not answer within patience.
func ask[Out any](ctx context.Context, s *slowness, id string, patience time.Duration, do func(context.Context) (Out, error)) (Out, error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	asked := time.Now()
	out, err := do(ctx)
	s.heard(id, asked, patience, err)
	return out, err
}

// firstOf has something done by one of some replicas, in their order: the next one is
// asked, too, when one fails or takes longer than patience.
func firstOf(ctx context.Context, ids []string, patience time.Duration, do func(ctx context.Context, id string) error) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	answers := make(chan error, len(ids))
	next := time.NewTimer(0)
	defer next.Stop()
	var errs []error
	for asked := 0; len(errs) < len(ids); {
		select {
		case <-next.C:
			if asked < len(ids) {
				id := ids[asked]
				asked++
				go func() { answers <- do(ctx, id) }()
				next.Reset(patience)
			}
		case err := <-answers:
			if err == nil {
				return nil
			}
			errs = append(errs, err)
			next.Reset(0)
		}
	}
	return errors.Join(errs...)
}

// imagePatience is how long one voter is waited for to have all of an image before
// another one is to copy it as well.
const imagePatience = 30 * time.Second

// KeepImage has another voter keep all of an image. While this replica is the only
// voter its disk is the one that counts.
func (p peers) KeepImage(ctx context.Context, manifest blob.Digest) error {
	return firstOf(ctx, p.voters(), imagePatience, func(ctx context.Context, id string) error {
		return p.client().KeepImage(ctx, id, manifest)
	})
}

// fetchImage brings all of an image here, for another replica.
func (r *replica) fetchImage(ctx context.Context, manifest blob.Digest) error {
	if r.store.Load() == nil {
		return errStarting
	}
	return r.copies.FetchImage(ctx, manifest)
}

// askLimit bounds the wait for another replica to say something short.
const askLimit = 5 * time.Second

func (p peers) Size(ctx context.Context, id string, digest blob.Digest) (int64, error) {
	return ask(ctx, &p.slow, id, askLimit, func(ctx context.Context) (int64, error) { return p.client().Size(ctx, id, digest) })
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
