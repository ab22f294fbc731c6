package replica

import (
	"context"
	"fmt"
	"time"

	"github.com/rackseed/rackseed/services/keyring"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
)

// resealed is how many secrets are sealed anew in one command.
const resealed = 200

// rekeyStep is what comes next on the way to a new data key.
type rekeyStep string

const (
	rekeyMake   rekeyStep = "make"   // a new key
	rekeySpread rekeyStep = "spread" // until a majority has it on its disks
	rekeyTurn   rekeyStep = "turn"   // make it the current one
	rekeyReseal rekeyStep = "reseal" // the secrets under it
	rekeyDone   rekeyStep = "done"
)

// nextRekey decides it. has says that this replica has the next key: where it was
// made by a leader that died, nobody may have it, and another one is made, since
// nothing is sealed under it yet. spread says that a majority has it.
func nextRekey(k state.Keyring, handoff string, has, spread bool) rekeyStep {
	switch {
	case k.Old != "":
		return rekeyReseal
	case k.For != handoff || k.Next != "" && !has:
		return rekeyMake
	case k.Next != "" && !spread:
		return rekeySpread
	case k.Next != "":
		return rekeyTurn
	}
	return rekeyDone
}

// Rekey makes a new data key and has all secrets sealed under it, so that what the
// replica that left had of the old one opens nothing that comes.
func (h hands) Rekey(ctx context.Context, plan machine.Handoff) error {
	store := h.store.Load()
	for {
		view := store.View()
		k := view.Keyring()
		spread, lacks := false, ""
		if k.Next != "" && h.keys.Has(k.Next) {
			spread, lacks = h.spread(ctx, k.Next)
		}
		step := nextRekey(k, plan.ID, h.keys.Has(k.Next), spread)
		var err error
		switch step {
		case rekeyMake:
			err = h.makeKey(ctx, k, plan.ID)
		case rekeySpread:
			if !pause(ctx, time.Second) {
				return fmt.Errorf("no majority has the new data key on its disks yet: %s", lacks)
			}
		case rekeyTurn:
			_, err = store.Propose(ctx, by, state.KeyTurn{Key: k.Next})
		case rekeyReseal:
			var c state.SecretReseal
			if c, err = view.Reseal(resealed); err == nil {
				_, err = store.Propose(ctx, by, c)
			}
		case rekeyDone:
			return nil
		}
		if err != nil {
			return fmt.Errorf("a new data key, %s: %w", step, err)
		}
	}
}

// makeKey makes a data key: it is on this replica's disk before anybody hears of it.
func (h hands) makeKey(ctx context.Context, k state.Keyring, plan string) error {
	h.rekeying.Lock()
	defer h.rekeying.Unlock()
	c := state.KeyNext{For: plan, Recipient: k.Recipient}
	key := keyring.NewKey()
	c.Key = key.ID
	if err := h.keys.Add(key); err != nil {
		return err
	}
	if k.Recipient != "" {
		var err error
		if c.Copy, err = keyring.Copy(k.Recipient, h.keys.Keys(k.Current, key.ID)...); err != nil {
			return err
		}
	}
	_, err := h.store.Load().Propose(ctx, by, c)
	return err
}

// spread says whether a majority of the voters has a data key, and who lacks it.
func (h hands) spread(ctx context.Context, key string) (bool, string) {
	voters := h.store.Load().Membership().Voters()
	n, lacks := 0, ""
	for _, id := range voters {
		has := id == h.own.ID && h.keys.Has(key)
		if id != h.own.ID {
			one, cancel := context.WithTimeout(ctx, restLook)
			r, err := h.Look(one, id)
			cancel()
			has = err == nil && r.HasKeys(key)
		}
		if has {
			n++
		} else {
			lacks += " " + id
		}
	}
	return n > len(voters)/2, "missing at" + lacks
}
