package killed

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/rackseed/rackseed/services/approve"
	"github.com/rackseed/rackseed/services/keyring"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/statetest"
)

// operator is a person at the console. What they do goes through the same
// decisions as the API's, with a view that may be old by the time it is committed.
type operator struct {
	r *run
}

var errOff = errors.New("the console does not answer")

func (o *operator) propose(ctx context.Context, c state.Command) error {
	i := o.r.service.enter()
	if i == nil {
		return errOff
	}
	defer i.work.Done()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	defer context.AfterFunc(i.ctx, cancel)()
	_, err := audited{i.store, o.r.ledger}.Propose(ctx, "operator:ann", c)
	return err
}

// look is what the console shows.
func (o *operator) look() (state.View, bool) {
	i := o.r.service.current()
	if i == nil {
		return state.View{}, false
	}
	return i.store.View(), true
}

// find is the record of a machine, by any of its addresses.
func find(v state.View, b *box) (machine.Machine, bool) {
	for _, n := range b.m.Inventory.NICs {
		if m, ok := v.MachineByMAC(n.MAC); ok {
			return m, true
		}
	}
	return machine.Machine{}, false
}

func (o *operator) tell(what string, m machine.Machine, err error) error {
	if err != nil {
		o.r.tell("operator: %s %s: %v", what, m.ID, err)
	} else {
		o.r.tell("operator: %s %s", what, m.ID)
	}
	return err
}

// approve approves a machine onto the disk that was empty when it came, and
// names what is on it now.
func (o *operator) approve(ctx context.Context, v state.View, b *box, m machine.Machine) error {
	wish := approve.Wish{}
	for _, d := range b.first {
		if d.Contents != machine.Empty {
			continue
		}
		hint := d.Exact()
		wish.Disk = &hint
		for _, now := range m.Inventory.Disks {
			if hint.Matches(now) && now.Contents != machine.Empty {
				wish.Erase = now.Contents
			}
		}
	}
	c, err := approve.Decide(v, m, wish, approve.NewFresh())
	if err == nil {
		err = o.propose(ctx, c)
	}
	return o.tell("approves "+b.String(), m, err)
}

func (o *operator) retry(ctx context.Context, v state.View, m machine.Machine) error {
	c, err := approve.Retry(v, m, approve.Wish{})
	if err == nil {
		err = o.propose(ctx, c)
	}
	return o.tell("retries", m, err)
}

// revoke takes back what is ordered, as the API does.
func (o *operator) revoke(ctx context.Context, v state.View, m machine.Machine) error {
	err := errors.New("nothing is ordered")
	for _, i := range []*machine.Intent{v.InstallIntent(m.ID), v.Bootstrap()} {
		if i.Live() && i.Machine == m.ID && (i.Kind == machine.IntentInstall || i.Status == machine.IntentOpen) {
			if err = o.propose(ctx, state.IntentRevoke{Intent: i.ID, Reason: "simulated"}); err != nil {
				break
			}
		}
	}
	return o.tell("revokes", m, err)
}

func (o *operator) forget(ctx context.Context, m machine.Machine) error {
	return o.tell("forgets", m, o.propose(ctx, state.MachineForget{Machine: m.ID}))
}

func (o *operator) invite(ctx context.Context, m machine.Machine) error {
	return o.tell("invites", m, o.propose(ctx, state.MachineInvite{Machine: m.ID, Until: time.Now().Add(time.Hour)}))
}

func (o *operator) window(ctx context.Context, open time.Duration) error {
	return o.tell(fmt.Sprintf("discovery window for %v", open), machine.Machine{}, o.propose(ctx, state.DiscoveryWindow{Until: time.Now().Add(open)}))
}

func (o *operator) abandon(ctx context.Context, v state.View) error {
	b := v.Bootstrap()
	if b == nil {
		return errOff
	}
	return o.tell("abandons what began", machine.Machine{ID: b.Machine}, o.propose(ctx, state.BootstrapAbandon{
		Intent: b.ID, Reason: "simulated", Secrets: map[string]keyring.Sealed{"pki/ca.key": statetest.Seal("pki/ca.key", []byte(o.r.ledger.secret("key of another cluster")))},
	}))
}

// meddle does things at bad moments, until ctx ends.
func (o *operator) meddle(ctx context.Context) {
	rng := o.r.rng
	_ = o.window(ctx, 2*time.Hour)
	for ctx.Err() == nil {
		wait(ctx, time.Duration(rng.IntN(30_000))*time.Millisecond)
		b := o.r.rack[rng.IntN(len(o.r.rack))]
		act, pause := rng.IntN(100), time.Duration(1+rng.IntN(600))*time.Second
		v, ok := o.look()
		if !ok || ctx.Err() != nil {
			continue
		}
		m, known := find(v, b)
		switch {
		case act < 40: // all that wait, in the same second
			var all sync.WaitGroup
			for _, b := range o.r.rack {
				if m, ok := find(v, b); ok && b.wanted && m.Phase == machine.PhaseWaiting {
					all.Go(func() { _ = o.approve(ctx, v, b, m) })
				}
			}
			all.Wait()
		case act < 55:
			for _, m := range v.Machines() {
				if m.Phase == machine.PhaseFailed {
					_ = o.retry(ctx, v, m)
				}
			}
		case act < 62:
			b.button()
		case act < 70:
			o.r.tell("%s: its cable is out for %v", b, pause)
			b.unplug(pause)
		case act < 73:
			o.r.service.cut("at any time")
		case act < 76:
			_ = o.window(ctx, 0)
		case act < 82:
			_ = o.window(ctx, 2*time.Hour)
		case !known:
		case act < 88:
			_ = o.revoke(ctx, v, m)
		case act < 91:
			_ = o.forget(ctx, m)
		case act < 95 && b.wanted:
			_ = o.invite(ctx, m)
		case act < 97:
			_ = o.abandon(ctx, v)
		}
	}
}

const (
	lookAgain = 20 * time.Second
	// patient is how long a person waits until they do something about a machine
	// that does not get on. Longer than a member of etcd may take.
	patient = 4 * time.Minute
	calmest = 6 * time.Hour // until all must be well
)

// mend does, once nothing goes wrong any more, what the console says, until all
// is well. It returns why that is not so.
func (o *operator) mend(ctx context.Context) error {
	since, seen, tries, retried := map[*box]time.Time{}, map[*box]string{}, map[*box]int{}, map[string]bool{}
	end, opened := time.Now().Add(calmest), time.Time{}
	for {
		wait(ctx, lookAgain)
		if ctx.Err() != nil {
			return nil
		}
		v, ok := o.look()
		if !ok {
			continue
		}
		if time.Since(opened) > time.Hour && o.window(ctx, 2*time.Hour) == nil {
			opened = time.Now()
		}
		var waiting error
		for _, b := range o.r.rack {
			m, known := find(v, b)
			ready, idle := b.state()
			if b.well(m, ready, idle) {
				continue
			}
			now := fmt.Sprintf("%s, phase %s (%s), idle: %v", b, m.Phase, m.Reason, idle)
			waiting = errors.Join(waiting, errors.New(now))
			if seen[b] != now {
				seen[b], since[b] = now, time.Now()
			}
			install := v.InstallIntent(m.ID)
			switch {
			case !b.wanted:
				if idle != nil && time.Since(since[b]) > patient {
					b.button()
				}
			case known && m.Phase == machine.PhaseWaiting && !install.Live():
				_ = o.approve(ctx, v, b, m)
			case known && m.Phase == machine.PhaseFailed && install != nil && install.Status == machine.IntentFailed:
				// Once: what fails again is looked at anew.
				if retried[install.ID] {
					_ = o.revoke(ctx, v, m)
					_ = o.invite(ctx, m)
					b.button()
				} else {
					retried[install.ID] = o.retry(ctx, v, m) == nil
				}
			case time.Since(since[b]) > patient:
				tries[b]++
				since[b] = time.Now()
				o.remedy(ctx, v, b, m, known, tries[b])
			}
		}
		if waiting == nil {
			return nil
		}
		if time.Now().After(end) {
			return waiting
		}
	}
}

// well says that a machine is where it shall be.
func (b *box) well(m machine.Machine, ready bool, idle error) bool {
	if !b.wanted {
		return ownSystem(idle)
	}
	return ready && m.Phase == machine.PhaseReady
}

// remedy is what a person does about a machine that does not get on: restart
// it, have it looked at, install it anew, and at last give up what it began.
func (o *operator) remedy(ctx context.Context, v state.View, b *box, m machine.Machine, known bool, try int) {
	if known && try > 2 {
		if o.revoke(ctx, v, m) == nil || o.forget(ctx, m) != nil && try > 5 {
			if s := v.Bootstrap(); s != nil && s.Machine == m.ID {
				_ = o.abandon(ctx, v)
			}
		}
	}
	if known {
		_ = o.invite(ctx, m)
	}
	b.button()
}
