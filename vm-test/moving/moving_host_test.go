//go:build host

package moving

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/machine"
)

// The appliance hands its part over to three nodes, and is pulled: everything that
// was is there, at the same address.
func TestHandoff(t *testing.T) {
	r := newRoom(t, 3)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go r.carry(ctx)
	if err := r.client.Call(ctx, http.MethodPost, "/api/handoff/start", nil, struct{}{}, nil); err != nil {
		t.Fatal(err)
	}
	h := r.reach(machine.HandoffDone, 6*time.Minute)
	if len(h.Replicas) != 3 {
		t.Errorf("replicas: %+v", h.Replicas)
	}
	r.until("the appliance says that it can be unplugged", time.Minute, func() error {
		s, err := r.stick.status()
		if err == nil && !s.LetGo {
			err = errors.New("it does not say so")
		}
		return err
	})
	r.stick.kill()
	if _, err := r.handoff(); err != nil {
		t.Error(err)
	}
}
