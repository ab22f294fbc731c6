package replica

import (
	"net/http"

	"github.com/rackseed/rackseed/services/api"
	"github.com/rackseed/rackseed/services/blobsync"
	"github.com/rackseed/rackseed/services/registry"
	"github.com/rackseed/rackseed/services/wire"
)

// withRegistry serves images beside the console: nodes and people pull them,
// people push them.
func (r *replica) withRegistry(people *api.Server) http.Handler {
	mux := http.NewServeMux()
	mux.Handle(registry.Path, registry.New(registry.Config{
		Store: r.store.Load(), Blobs: r.blobs, Others: others{r.copies, peers{r}}, Limits: r.Registry, Logger: r.Logger, Now: r.now,
		PushService: r.onNode(), TokenOwner: people.TokenOwner, CheckPassword: people.CheckPassword,
	}))
	mux.Handle("/", people.Handler())
	return mux
}

// others are the other replicas, as the registry asks them.
type others struct {
	*blobsync.Loop
	peers
}

// imageFiles lists what a published image consists of.
func (r *replica) imageFiles(manifest string) ([]wire.File, error) {
	return registry.Files(r.blobs, manifest)
}
