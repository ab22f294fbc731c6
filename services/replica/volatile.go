package replica

import (
	"context"
	"fmt"
	"sync"

	"github.com/rackseed/rackseed/services/api"
)

// onceKept runs run as long as machines may be served: always where data is
// kept, else while the site file says memoryOnly. A replica that forgot its
// machines would have their disks taken for those of strangers, and would give
// their addresses away.
func (r *replica) onceKept(ctx context.Context, tell report, run func(context.Context, report) error) error {
	if r.Volatile == "" {
		return run(ctx, tell)
	}
	for ctx.Err() == nil {
		if !r.memoryOnly() {
			tell(false, fmt.Sprintf("no machine is served: nothing is kept (%s), and the site file does not say memoryOnly: true", r.Volatile), api.HealthVolatile)
		}
		if !r.waitMemoryOnly(ctx, true) {
			return nil
		}
		serving, stop := context.WithCancel(ctx)
		var watch sync.WaitGroup
		watch.Go(func() {
			defer stop()
			r.waitMemoryOnly(serving, false)
		})
		err := run(serving, tell)
		ended := serving.Err() == nil // by itself
		stop()
		watch.Wait()
		if ended {
			return err
		}
	}
	return nil
}

// memoryOnly says whether the applied site file lets machines be served from
// memory.
func (r *replica) memoryOnly() bool {
	store := r.store.Load()
	if store == nil {
		return false
	}
	site, ok := store.View().Site()
	return ok && site.MemoryOnly
}

// waitMemoryOnly waits until memoryOnly is want; false when ctx ended.
func (r *replica) waitMemoryOnly(ctx context.Context, want bool) bool {
	store := r.store.Load()
	for {
		view := store.View()
		changed := view.Changed("site")
		if site, ok := view.Site(); (ok && site.MemoryOnly) == want {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// volatileText says that nothing is kept, why, and what follows.
func volatileText(why string, memoryOnly bool) string {
	if memoryOnly {
		return fmt.Sprintf("Nothing is kept: %s. As the site file says (memoryOnly), machines are served from memory: when this machine is switched off, all machines are forgotten, and the cluster's keys are lost. Do not install machines that matter.", why)
	}
	return fmt.Sprintf("Nothing is kept: %s. So no machine is served: no DHCP, no netboot, no service address. To serve from memory all the same, for a test, set memoryOnly: true in the site file.", why)
}
