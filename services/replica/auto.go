package replica

import (
	"context"
	"errors"
	"time"

	"github.com/rackseed/rackseed/services/api"
	"github.com/rackseed/rackseed/services/handoff"
	"github.com/rackseed/rackseed/services/peer"
	"github.com/rackseed/rackseed/services/state"
)

// autoPause is between two looks whether the site file's handoff can start: machines
// change all the time.
const autoPause = 5 * time.Second

// startHandoff starts the handoff that the site file asks for, while this replica
// leads.
func (r *replica) startHandoff(ctx context.Context, tell report) error {
	store := r.store.Load()
	for ctx.Err() == nil {
		view := store.View()
		changed := view.Changed("machines", "site", "handoff", "replicas")
		start, text, wanted := handoff.Auto(view, r.own.ID)
		switch {
		case start:
			plan, err := handoff.Plan(view, peer.NewID("h-"), r.own.ID, handoff.BySite, nil)
			if err == nil {
				one, cancel := context.WithTimeout(ctx, commitTimeout)
				_, err = store.Propose(one, handoff.BySite, state.HandoffStart{Handoff: plan})
				cancel()
			}
			if refusal := (*state.Refusal)(nil); errors.As(err, &refusal) {
				tell(false, refusal.Error(), api.HealthWaiting)
			} else if err != nil {
				return err
			}
		case wanted:
			tell(true, text)
		default:
			tell(true, "the site file asks for none that could start now")
		}
		if !pause(ctx, autoPause) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
	return nil
}
