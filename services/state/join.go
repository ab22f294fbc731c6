package state

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/wire"
)

// pkiPrefix is what the names of the Kubernetes PKI's secrets begin with.
const pkiPrefix = "pki/"

// joining is the control plane whose join keeps others from it, or "".
func (t tables) joining(at time.Time) (id machine.ID) {
	each(t, tableIntents, byOrder, nil, func(r *intentRow) bool {
		m := t.machine(r.Intent.Machine)
		if r.Intent.Kind == machine.IntentJoin && r.Intent.Status == machine.IntentClaimed &&
			m != nil && m.Profile != nil && m.Profile.Role == machine.RoleControlPlane && at.Sub(r.Intent.Changed) < joinPatience {
			id = m.Machine.ID
		}
		return id == ""
	})
	return id
}

func (c *change) joinClaim(x JoinClaim) error {
	r := c.tables.machine(x.Machine)
	if r == nil || !r.approved() || r.Profile == nil {
		return refuse("machine %.40s is no node: it was never approved", x.Machine)
	}
	b := c.bootstrap()
	switch {
	case b == nil || b.Intent.Status != machine.IntentDone:
		return refuse("machine %s: the cluster is not started yet, so that there is nothing to join", x.Machine)
	case b.Intent.Machine == x.Machine:
		return refuse("machine %s started the cluster itself: there is nothing to join", x.Machine)
	}
	if other := c.joining(c.at); other != "" && other != x.Machine && r.Profile.Role == machine.RoleControlPlane {
		return refuse("machine %s: control planes join one at a time, and %s is joining", x.Machine, c.called(other))
	}
	c.machine = r
	if old := c.newest(x.Machine, machine.IntentJoin); old != nil {
		if old.Intent.Status == machine.IntentRevoked {
			return refuse("machine %s: its join was revoked (%s): forget it, and install it anew", x.Machine, old.Intent.Reason)
		}
		i := c.editIntent(old)
		i.Intent.Status, i.Intent.Reason = machine.IntentClaimed, ""
		i.Intent.Epoch++
		c.event(x.Machine, "join.claimed", machine.Info, fmt.Sprintf("Joins the cluster, attempt %d: a new token is made", i.Intent.Epoch), "intent", i.Intent.ID, "epoch", fmt.Sprint(i.Intent.Epoch))
		c.intent = i
		return nil
	}
	if err := word("intent ID", x.Intent); err != nil {
		return err
	}
	if c.tables.intent(x.Intent) != nil {
		return refuse("machine %s: intent %s exists already", x.Machine, x.Intent)
	}
	i := &intentRow{Order: c.nextOrder(), Intent: machine.Intent{
		ID: x.Intent, Kind: machine.IntentJoin, Machine: x.Machine, Epoch: 1,
		Status: machine.IntentClaimed, Created: c.at, Changed: c.at,
	}}
	c.intents = append(c.intents, i)
	c.event(x.Machine, "join.claimed", machine.Info, "Joins the cluster: a token is made for it", "intent", x.Intent, "epoch", "1")
	c.intent = i
	return nil
}

// joined ends the join intent by what the node reports.
func (c *change) joined(id machine.ID, p wire.NodeReport) {
	i := c.newest(id, machine.IntentJoin)
	if i == nil || i.Intent.Status != machine.IntentClaimed {
		return
	}
	switch p.Event {
	case wire.NodeJoined, wire.NodeReady:
		c.editIntent(i).Intent.Status = machine.IntentDone
	case wire.NodeFailed:
		failed := c.editIntent(i)
		failed.Intent.Status, failed.Intent.Reason = machine.IntentFailed, clip(p.Text)
	}
}

// called is the machine's name for people.
func (t tables) called(id machine.ID) string {
	if r := t.machine(id); r != nil && r.Machine.Name != "" {
		return r.Machine.Name
	}
	return "machine " + string(id)
}

// noAbandon says why what was begun of a cluster cannot be given up; "": it can.
func (t tables) noAbandon() string {
	b := t.bootstrap()
	switch {
	case b == nil:
		return "nothing was begun: " + machine.NoStart(theIntent(t.endedBootstrap()), t.called)
	case b.Intent.Status == machine.IntentOpen:
		return fmt.Sprintf("nothing was begun: %s may not start the cluster yet; revoke that instead", t.called(b.Intent.Machine))
	}
	var others []string
	each(t, tableIntents, byOrder, nil, func(r *intentRow) bool {
		if r.Intent.Kind == machine.IntentJoin && (r.Intent.Status == machine.IntentDone || r.Intent.Status == machine.IntentClaimed) && r.Intent.Machine != b.Intent.Machine {
			others = append(others, t.called(r.Intent.Machine))
		}
		return true
	})
	each(t, tableMachines, byID, nil, func(r *machineRow) bool {
		// Its keys are the old ones, written with its Ignition.
		if r.Machine.ID != b.Intent.Machine && t.bound(r.Machine.ID) && r.Profile != nil && r.Profile.Role == machine.RoleControlPlane {
			others = append(others, t.called(r.Machine.ID))
		}
		return true
	})
	slices.Sort(others)
	if others = slices.Compact(others); len(others) > 0 {
		return fmt.Sprintf("%s joined the cluster that %s began, or has its keys: forget them first, and install them anew", strings.Join(others, ", "), t.called(b.Intent.Machine))
	}
	return ""
}

func (c *change) bootstrapAbandon(x BootstrapAbandon) error {
	i := c.tables.intent(x.Intent)
	if i == nil || i.Intent.Kind != machine.IntentBootstrap {
		return refuse("there is no bootstrap intent %.40q", x.Intent)
	}
	if b := c.bootstrap(); b == nil || b.Intent.ID != x.Intent {
		return refuse("bootstrap intent %s is %s: it is abandoned already, or was taken back", x.Intent, i.Intent.Status)
	}
	if why := c.noAbandon(); why != "" {
		return refuse("bootstrap intent %s: %s", x.Intent, why)
	}
	names := slices.Sorted(maps.Keys(x.Secrets))
	if !slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, pkiPrefix) }) {
		return refuse("bootstrap intent %s: a new cluster needs new keys, and none came with the command", x.Intent)
	}
	for _, n := range names {
		if !strings.HasPrefix(n, pkiPrefix) {
			return refuse("bootstrap intent %s: %.40q is no secret of the Kubernetes PKI", x.Intent, n)
		}
		if err := c.putSecret(n, x.Secrets[n]); err != nil {
			return err
		}
	}
	lost := c.called(i.Intent.Machine)
	if r := c.tables.machine(i.Intent.Machine); r != nil {
		c.drop(r)
	}
	ended := c.editIntent(i)
	ended.Intent.Status, ended.Intent.Reason = machine.IntentRevoked, "abandoned: "+clip(x.Reason)
	c.intent = ended
	c.event("", "bootstrap.abandoned", machine.Warning,
		clip(fmt.Sprintf("What %s began is abandoned by %s, and the cluster's keys are new: the next control plane that is approved starts the cluster: %s", lost, asker(c.by), x.Reason)),
		"by", c.by, "intent", x.Intent, "machine", string(i.Intent.Machine))
	return nil
}
