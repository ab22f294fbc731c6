package replica

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/rackseed/rackseed/services/api"
	"github.com/rackseed/rackseed/services/keyring"
	"github.com/rackseed/rackseed/services/state"
)

// openKeys opens this replica's ring of data keys.
func (r *replica) openKeys() error {
	ring, err := keyring.Open(filepath.Join(r.Data, "keyring"), keyring.Protectors(r.Data)...)
	if err != nil {
		return err
	}
	if err := ring.Lost(); err != nil {
		r.Logger.Error("replica: the secrets cannot be opened", "error", err)
	}
	r.keys = ring
	return nil
}

// firstKey is the data key of a cluster that this replica begins.
func (r *replica) firstKey() (keyring.Key, error) {
	if k, ok := r.keys.Any(); ok {
		return k, nil
	}
	k := keyring.NewKey()
	return k, r.keys.Add(k)
}

// sealAll seals secrets under one data key.
func sealAll(k keyring.Key, secrets map[string][]byte) (map[string]keyring.Sealed, error) {
	all := map[string]keyring.Sealed{}
	for name, secret := range secrets {
		var err error
		if all[name], err = k.Seal(name, secret); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// keepKeys has the data keys that the state names on this replica's disk, and no
// others: it asks other replicas for those that it lacks. Where it fails it is begun
// again, and so the ring is opened, and protected as well as it can be.
func (r *replica) keepKeys(ctx context.Context, tell report) error {
	store := r.store.Load()
	if r.keys.Lost() != nil && r.keys.Reopen() == nil {
		r.Logger.Info("replica: the secrets can be opened now")
	}
	// An old state names old keys: what it does not name may be newer.
	tell(false, "catching up with the leader", api.HealthWaiting)
	if err := store.CatchUp(ctx); err != nil {
		return err
	}
	for ctx.Err() == nil && !r.sealed.Load() {
		view := store.View()
		changed := view.Changed("keyring")
		if need := view.Keyring().Keys(); !r.keys.Has(need...) {
			tell(false, "this replica lacks data keys, and asks the others for them", api.HealthWaiting)
			if err := r.fetchKeys(ctx, need); err != nil {
				return err
			}
		}
		if err := r.forgetKeys(); err != nil {
			return err
		}
		worse := r.keys.Improve()
		if worse != nil {
			r.Logger.Warn("replica: the secrets could be protected better", "error", worse)
		}
		text := protection(r.keys.Protector())
		if worse != nil {
			text += fmt.Sprintf("; it could be better: %v", worse)
		}
		if view.Keyring().Recipient == "" {
			text += "; there is no recovery key yet: make it with: rackseed recovery-key"
		}
		tell(true, text)
		select {
		case r.ringKept <- struct{}{}: // others are told what protects it
		default:
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
	<-ctx.Done() // one that is sealed has none any more
	return nil
}

// forgetKeys drops the data keys that nothing is sealed under any more. Not while a
// new one is being made, which the state does not name yet. The state that names no
// old key is on the disk first: started again, this replica reads one that its ring
// opens, also while no leader has it replay the log.
func (r *replica) forgetKeys() error {
	r.rekeying.Lock()
	defer r.rekeying.Unlock()
	store := r.store.Load()
	need := store.View().Keyring().Keys()
	if len(need) == 0 || !r.keys.Has(need...) || len(r.keys.IDs()) == len(need) {
		return nil
	}
	if err := store.Compact(); err != nil {
		return err
	}
	return r.keys.Keep(need...)
}

// fetchKeys asks the other replicas for data keys, the leader first.
func (r *replica) fetchKeys(ctx context.Context, need []string) error {
	others := (peers{r}).Peers()
	leader := r.store.Load().Membership().Leader
	slices.SortStableFunc(others, func(a, b string) int {
		switch {
		case a == leader:
			return -1
		case b == leader:
			return 1
		}
		return 0
	})
	failed := []error{r.keys.Lost()}
	for _, id := range others {
		one, cancel := context.WithTimeout(ctx, commitTimeout)
		keys, err := r.client().Keys(one, id)
		cancel()
		if err == nil {
			if err = r.keys.Add(keys...); err != nil {
				return err // of this replica's disk
			}
		}
		if r.keys.Has(need...) {
			return nil
		}
		if err != nil {
			failed = append(failed, err)
		}
	}
	if len(others) == 0 {
		failed = append(failed, errors.New("there is no other replica that could have them: bring this one's folder back whole, or begin from a backup with the recovery key: rackseed recover"))
	}
	return fmt.Errorf("data keys are missing, and with them the cluster's secrets: %w", errors.Join(failed...))
}

// giveKeys are the data keys, for another replica.
func (r *replica) giveKeys(to string) ([]keyring.Key, error) {
	store := r.store.Load()
	if store == nil {
		return nil, errStarting
	}
	view := store.View()
	if x, known := view.Replica(to); !known || !x.InService() {
		return nil, &state.Refusal{Text: "replica " + to + " is not in service, and gets no data keys"}
	}
	if h, ok := view.Handoff(); ok && h.Leaving(to) {
		return nil, &state.Refusal{Text: "replica " + to + " is being let go, and gets no data keys"}
	}
	return r.keys.Keys(view.Keyring().Keys()...), nil
}

// protection says how safe the secrets on this replica's disk are.
func protection(protector string) string {
	if protector == keyring.NamePlaintext {
		return "secrets on this replica's disk: NOT PROTECTED (plaintext): whoever takes the disk can read them"
	}
	return "secrets on this replica's disk: protected by " + protector
}
