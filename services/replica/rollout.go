package replica

import (
	"context"
	"fmt"

	"github.com/rackseed/rackseed/services/registry"
	"github.com/rackseed/rackseed/services/rollout"
)

// runRollout carries out the plan by which the replicas on nodes come to run another
// image, while this replica leads.
func (r *replica) runRollout(ctx context.Context, tell report) error {
	loop := &rollout.Loop{
		Store: r.store.Load(), Stored: r.client().Stored, Lacks: r.lacks, Self: r.own.ID, Now: r.now, Logger: r.Logger,
	}
	r.rollout.Store(loop)
	tell(true, "carried out while this replica leads")
	return loop.Run(ctx)
}

// rolloutStatus is how far the rollout is.
func (r *replica) rolloutStatus() rollout.Status {
	if loop := r.rollout.Load(); loop != nil {
		return loop.Status()
	}
	return rollout.Status{}
}

// lacks says what of an image is not here.
func (r *replica) lacks(digest string) string {
	missing, err := registry.Missing(r.blobs, digest)
	switch {
	case err != nil:
		return err.Error()
	case len(missing) > 0:
		return fmt.Sprintf("%d blobs of the image are on their way to the replica that leads", len(missing))
	}
	return ""
}
