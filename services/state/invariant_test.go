package state

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/rackseed/rackseed/services/keyring"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/wire"
)

// checkInvariants holds the state to what must always be so.
func checkInvariants(t fataler, w *world) {
	t.Helper()
	v := w.view()
	taken := map[string]machine.ID{}
	take := func(what string, id machine.ID) {
		if other, ok := taken[what]; ok {
			t.Fatalf("machines %s and %s share %s", other, id, what)
		}
		taken[what] = id
	}
	for _, m := range v.Machines() {
		for _, a := range m.MACs {
			take("MAC "+string(a), m.ID)
			if owner, _ := v.MachineByMAC(a); owner.ID != m.ID {
				t.Fatalf("MAC %s of machine %s leads to %q", a, m.ID, owner.ID)
			}
		}
		for what, value := range map[string]string{"UUID ": m.UUID, "name ": m.Name, "node key ": string(m.NodeKey)} {
			if value != "" {
				take(what+value, m.ID)
			}
		}
		if m.Address.IsValid() {
			take("address "+m.Address.String(), m.ID)
		}
		if m.Session != nil {
			take("signing key "+string(m.Session.SignKey), m.ID)
		}
	}
	bootstraps, joining, live := 0, 0, map[machine.ID]int{}
	each(v.t, tableIntents, byID, nil, func(r *intentRow) bool {
		switch {
		case r.Intent.Kind == machine.IntentBootstrap:
			if r.Intent.Status != machine.IntentRevoked {
				bootstraps++
			}
		case r.Intent.Kind == machine.IntentJoin:
			// One control plane at a time, unless the one before fell silent.
			m := v.t.machine(r.Intent.Machine)
			if m == nil {
				t.Fatalf("join intent %s is of machine %s, which is not there", r.Intent.ID, r.Intent.Machine)
			}
			if r.Intent.Status == machine.IntentClaimed && m.Profile.Role == machine.RoleControlPlane && w.now.Sub(r.Intent.Changed) < joinPatience {
				joining++
			}
		case r.Intent.Kind == machine.IntentInstall && r.Intent.Live():
			live[r.Intent.Machine]++
			m, _ := v.Machine(r.Intent.Machine)
			if m.Session == nil || m.Session.ID != r.Intent.Session {
				t.Fatalf("live intent %s is bound to session %s, which is not the newest of %s", r.Intent.ID, r.Intent.Session, m.ID)
			}
		}
		return true
	})
	if joining > 1 {
		t.Fatalf("%d control planes join at once", joining)
	}
	if bootstraps > 1 {
		t.Fatalf("%d bootstrap intents", bootstraps)
	}
	for id, n := range live {
		if n > 1 {
			t.Fatalf("machine %s has %d live install intents", id, n)
		}
	}
	byClient := map[machine.MAC]bool{}
	for _, l := range v.Leases() {
		if !l.Declined && byClient[l.MAC] {
			t.Fatalf("client %s has two leases", l.MAC)
		}
		byClient[l.MAC] = byClient[l.MAC] || !l.Declined
		if _, ok := v.Machine(l.Machine); l.Machine != "" && !ok {
			t.Fatalf("the lease of %s is of machine %s, which is not there", l.Address, l.Machine)
		}
	}
	var before uint64
	for _, e := range v.Events(0, "", 0) {
		if before != 0 && e.Seq != before+1 {
			t.Fatalf("event %d follows %d", e.Seq, before)
		}
		before = e.Seq
	}
}

// anyCommand draws from small sets, so that commands meet.
func anyCommand(t *rapid.T, w *world, serial int) Command {
	now := w.now
	n := rapid.IntRange(1, 4).Draw(t, "machine")
	other := rapid.IntRange(1, 4).Draw(t, "other")
	id := machineID(n)
	s := fmt.Sprintf("s-%d", rapid.IntRange(1, 20).Draw(t, "session"))
	i := fmt.Sprintf("i-%d", rapid.IntRange(0, 6).Draw(t, "intent"))
	fresh := s
	if rapid.IntRange(0, 3).Draw(t, "right") > 0 { // mostly the ones that the rules want
		if m, _ := w.view().Machine(id); m.Session != nil {
			s = m.Session.ID
		}
		if newest := w.view().InstallIntent(id); newest != nil {
			i = newest.ID
		}
	}
	u := rapid.SampledFrom([]string{"", uuid(n), uuid(other)}).Draw(t, "uuid")
	epoch := rapid.Uint64Range(1, 2).Draw(t, "epoch")
	number := rapid.Uint64Range(1, 5).Draw(t, "number")
	switch rapid.IntRange(0, 23).Draw(t, "kind") {
	case 0, 1:
		return MachineSee{ID: machine.ID(fmt.Sprintf("m-%d", serial)), MAC: mac(other), UUID: u, Via: "x", Text: "packet"}
	case 2:
		return lease(other, mac(n), now, rapid.SampledFrom([]time.Duration{time.Second, time.Hour}).Draw(t, "time"))
	case 3:
		return LeaseRelease{Address: address(other), MAC: mac(n)}
	case 4:
		return LeaseDecline{Address: address(other), MAC: mac(n), Until: now.Add(time.Minute)}
	case 5, 6:
		inv := nics(n, rapid.SliceOfN(rapid.IntRange(1, 4), 0, 3).Draw(t, "nics")...)
		inv.UUID = u
		return session(fresh, inv, machine.ID(fmt.Sprintf("m-%d", serial)))
	case 7, 8:
		a := approval(n)
		a.Session, a.Intent, a.Name, a.Address = s, fmt.Sprintf("i-%d", serial), fmt.Sprintf("node-%d", other), address(other)
		a.NodeKey = bytes32(fmt.Sprint(serial % 20))
		return a
	case 9:
		return IntentClaim{Intent: i, Epoch: epoch, Session: s, Disk: disk(1)}
	case 10:
		return IntentRetry{Intent: i}
	case 11:
		if b := w.view().Bootstrap(); b != nil && rapid.IntRange(0, 3).Draw(t, "bootstrap") == 0 {
			i = b.ID
		}
		return IntentRevoke{Intent: i}
	case 12:
		return InstallReport{Machine: id, Session: s, Report: wire.Report{Number: number, Intent: i, Epoch: epoch,
			Step:   rapid.SampledFrom([]string{wire.StepDisk, wire.StepImage, wire.StepReboot}).Draw(t, "step"),
			Status: rapid.SampledFrom([]wire.ReportStatus{wire.StepProgress, wire.StepDone, wire.StepFailed}).Draw(t, "status")}}
	case 13:
		return NodeReport{Machine: id, Report: wire.NodeReport{BootID: s, Number: number,
			Event: rapid.SampledFrom([]wire.NodeEvent{wire.NodeBooted, wire.NodeJoined, wire.NodeReady}).Draw(t, "event")}}
	case 14:
		return BootstrapClaim{Machine: id}
	case 15:
		return JoinClaim{Machine: id, Intent: fmt.Sprintf("j-%d", serial)}
	case 16:
		if b := w.view().Bootstrap(); b != nil {
			i = b.ID
		}
		return BootstrapAbandon{Intent: i, Secrets: map[string]keyring.Sealed{"pki/ca.key": sealed("", fmt.Sprint(serial))}}
	case 17:
		return MachineInvite{Machine: id, Until: now.Add(time.Minute)}
	case 18:
		return RescueOpen{Machine: id, Intent: fmt.Sprintf("r-%d", serial)}
	case 19:
		return SessionLeave{Machine: id, Session: s}
	case 20:
		return MachineSilent{Machine: id, Decided: w.view().Boot(id).Decided, Text: "silent"}
	case 21:
		return SessionHere{Machine: id, Session: s}
	case 22:
		return SessionRefuse{MACs: []machine.MAC{mac(other)}, UUID: u, Why: s}
	default:
		return MachineForget{Machine: id}
	}
}

func TestInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorldOf(t, 40)
		w.must(SiteApply{Site: machine.Site{SSHKeys: []string{"ssh-ed25519 AAAA ann"}}})
		// Real IDs are made by MachineSee; let the small set of IDs be real.
		for n := range 4 {
			w.must(session(fmt.Sprintf("s-%d", n+1), nics(n+1, n+1), machineID(n+1)))
		}
		held := map[string]machine.Lease{}
		for n := range rapid.IntRange(1, 60).Draw(t, "commands") {
			c := anyCommand(t, w, n)
			r, err := w.try("test", c)
			var refusal *Refusal
			if err != nil && !errors.As(err, &refusal) {
				t.Fatalf("%s: %v", c.Kind(), err)
			}
			if err == nil && r.Index != uint64(len(w.log))+1 {
				t.Fatalf("%s: index %d", c.Kind(), r.Index)
			}
			checkInvariants(t, w)
			// No address goes from one client to another before its lease ends.
			now := map[string]machine.Lease{}
			for _, l := range w.view().Leases() {
				a := l.Address.String()
				now[a] = l
				if was, ok := held[a]; ok && was.MAC != l.MAC && was.Expires.After(w.now) {
					t.Fatalf("address %s went from %s to %s before %s", a, was.MAC, l.MAC, was.Expires)
				}
			}
			held = now
		}
		if w.halt != nil {
			t.Fatalf("halted: %v", w.halt)
		}
		replayed := newWorldOf(t, 40)
		replayed.fsm.ApplyBatch(w.log[2:])
		if replayed.hash() != w.hash() {
			t.Fatalf("replayed in one batch, the state differs")
		}
		var first, second bytes.Buffer
		if err := writeSnapshot(&first, w.view().v.txn, 0); err != nil {
			t.Fatalf("%v", err)
		}
		db, _, err := readSnapshot(bytes.NewReader(first.Bytes()), FeatureLevel)
		if err != nil {
			t.Fatalf("%v", err)
		}
		if err := writeSnapshot(&second, db.Txn(false), 0); err != nil {
			t.Fatalf("%v", err)
		}
		if !bytes.Equal(first.Bytes(), second.Bytes()) {
			t.Fatalf("restored from a snapshot, the state differs")
		}
	})
}
