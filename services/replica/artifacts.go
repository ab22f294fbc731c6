package replica

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/rackseed/rackseed/services/blob"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
)

// Refs of the artifacts that a replica serves (docs/interfaces.md).
var refs = []string{"ipxe", "shim", "installer", "node", "service"}

// imageLook is how often the layouts are looked at for images that came later.
const imageLook = 30 * time.Second

// publish names in the state every image that is complete in the blob store.
func (r *replica) publish(ctx context.Context, tell report) error {
	tick := time.NewTicker(imageLook)
	defer tick.Stop()
	for {
		published, missing, err := r.publishNew(ctx)
		switch {
		case err != nil:
			return err
		case len(missing) > 0:
			tell(false, "not there: "+strings.Join(missing, "; "))
		default:
			tell(true, strings.Join(published, ", ")+" are published")
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// publishNew publishes what is complete and not published yet. missing says of
// the others why they cannot be.
func (r *replica) publishNew(ctx context.Context) (published, missing []string, err error) {
	store := r.store.Load()
	view := store.View()
	var fresh []machine.Image
	for _, ref := range refs {
		digest, err := complete(r.blobs, ref)
		if err != nil {
			missing = append(missing, err.Error())
			continue
		}
		published = append(published, ref)
		if known, ok := view.Image(ref); !ok || known.Digest != digest {
			fresh = append(fresh, machine.Image{Ref: ref, Digest: digest})
		}
	}
	if len(fresh) == 0 {
		return published, missing, nil
	}
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	_, err = store.Propose(ctx, by, state.ImagePublish{Images: fresh})
	return published, missing, err
}

// complete finds an artifact of which every file is here, and its digest.
func complete(store *blob.Store, ref string) (string, error) {
	digest, files, err := store.Artifact(ref)
	if err != nil {
		return "", err
	}
	for _, f := range files {
		if !store.Has(blob.Digest(f.Digest)) {
			return "", fmt.Errorf("artifact %s: its file %s (%s) is not here", ref, f.Name, f.Digest)
		}
	}
	return string(digest), nil
}
