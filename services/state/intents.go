package state

import (
	"crypto/ed25519"
	"fmt"
	"strings"
	"time"

	"github.com/rackseed/rackseed/services/machine"
)

func (c *change) machineApprove(x MachineApprove) error {
	found := c.tables.machine(x.Machine)
	if found == nil {
		return refuse("there is no machine %.40s to approve", x.Machine)
	}
	if err := c.mayApprove(x, found); err != nil {
		return err
	}
	if err := c.calm(); err != nil {
		return err
	}
	node := ed25519.PublicKey(x.NodeKey)
	if other := c.machineByNodeKey(node); other != nil {
		return refuse("machine %s: its node key is machine %s's; make a new one", x.Machine, other.Machine.ID)
	}
	order := c.nextOrder()
	intent := &intentRow{Order: order, Hardware: fingerprint(*found.Machine.Inventory), Intent: machine.Intent{
		ID: x.Intent, Kind: machine.IntentInstall, Machine: x.Machine, Epoch: 1, Session: x.Session,
		Image: x.Image, Disk: x.Disk, Erase: x.Erase, Status: machine.IntentOpen, Created: c.at, Changed: c.at,
	}}
	// The machine did not restart since: what that install wrote is on this disk
	// still, and the disk is not whole.
	if half := c.halfWritten(found); half != nil {
		intent.Wrote, intent.WroteAs, intent.Intent.Written = half.Wrote, half.WroteAs, true
	}
	c.intents = append(c.intents, intent)
	c.dropEndedIntents(x.Machine)

	r := c.edit(found)
	r.Machine.Invited = time.Time{} // it was looked at
	profile := x.Profile
	r.Profile = &profile
	r.Machine.Name, r.Machine.Profile, r.Machine.Address = x.Name, profile.Name, x.Address
	r.Machine.NodeKey = node
	r.Machine.Phase, r.Machine.Reason = machine.PhaseApproved, "approved by "+asker(c.by)
	r.Boot, r.BootReport, r.BootGoesOn, r.PastBoots = "", 0, false, nil
	if err := c.putSecret(NodeSecret(x.Machine), x.NodeSeed); err != nil {
		return err
	}
	c.event(x.Machine, "machine.approved", machine.Info,
		fmt.Sprintf("Approved by %s as %s (%s)", asker(c.by), x.Name, profile.Name),
		"by", c.by, "intent", x.Intent, "name", x.Name, "profile", profile.Name, "address", x.Address.String(), "image", x.Image)

	if profile.Role == machine.RoleControlPlane && c.bootstrap() == nil {
		c.intents = append(c.intents, &intentRow{Order: order + 1, Intent: machine.Intent{
			ID: x.Bootstrap, Kind: machine.IntentBootstrap, Machine: x.Machine, Epoch: 1,
			Status: machine.IntentOpen, Created: c.at, Changed: c.at,
		}})
		c.event(x.Machine, "bootstrap.opened", machine.Info,
			fmt.Sprintf("%s will start the cluster, and no other machine", x.Name), "intent", x.Bootstrap)
	}
	c.machine, c.intent = r, intent
	return nil
}

// halfWritten is a machine's newest install, if it had begun to write before it was
// revoked, in the session that still waits; else nil.
func (t tables) halfWritten(r *machineRow) *intentRow {
	before, s := t.install(r.Machine.ID), r.Machine.Session
	if before == nil || s == nil || before.Intent.Status != machine.IntentRevoked || !before.Intent.Written || before.Intent.Session != s.ID {
		return nil
	}
	return before
}

// mayApprove refuses what an approval must not do.
func (c *change) mayApprove(x MachineApprove, found *machineRow) error {
	id := x.Machine
	if s := found.Machine.Session; s == nil || s.ID != x.Session {
		return refuse("machine %s: session %.40q is not its newest; it restarted, look again and approve that", id, x.Session)
	}
	if why := machine.NoApprove(found.Machine, c.orders(id)); why != "" {
		return refuse("machine %s: %s", id, why)
	}
	if err := word("intent ID", x.Intent); err != nil {
		return err
	}
	if c.tables.intent(x.Intent) != nil {
		return refuse("machine %s: intent %s exists already", id, x.Intent)
	}
	if !machine.IsHostName(x.Name) {
		return refuse("machine %s: %.80q is no host name; lower-case letters, digits and hyphens, at most 63", id, x.Name)
	}
	if other := c.machineByName(x.Name); other != nil && other.Machine.ID != id {
		return refuse("machine %s: the name %s is machine %s's", id, x.Name, other.Machine.ID)
	}
	if err := c.mayHaveAddress(x); err != nil {
		return err
	}
	if x.Profile.Name == "" || (x.Profile.Role != machine.RoleControlPlane && x.Profile.Role != machine.RoleWorker) {
		return refuse("machine %s: profile %.40q has role %.40q; %s or %s is expected", id, x.Profile.Name, x.Profile.Role, machine.RoleControlPlane, machine.RoleWorker)
	}
	if !digest.MatchString(x.Image) {
		return refuse("machine %s: node image %.80q is no digest; publish one first", id, x.Image)
	}
	if len(x.NodeKey) != ed25519.PublicKeySize {
		return refuse("machine %s: the node's key has %d bytes, %d are expected", id, len(x.NodeKey), ed25519.PublicKeySize)
	}
	if x.Profile.Role == machine.RoleControlPlane && c.bootstrap() == nil {
		if err := word("bootstrap intent ID", x.Bootstrap); err != nil {
			return err
		}
		if x.Bootstrap == x.Intent || c.tables.intent(x.Bootstrap) != nil {
			return refuse("machine %s: intent %s exists already", id, x.Bootstrap)
		}
	}
	return nil
}

func (c *change) mayHaveAddress(x MachineApprove) error {
	if !x.Address.IsValid() || x.Address.IsUnspecified() {
		return refuse("machine %s: a node needs a static address", x.Machine)
	}
	if other := c.machineByAddress(x.Address); other != nil && other.Machine.ID != x.Machine {
		return refuse("machine %s: address %s is machine %s's", x.Machine, x.Address, other.Machine.ID)
	}
	if what := c.reserved(x.Address); what != "" {
		return refuse("machine %s: address %s is %s", x.Machine, x.Address, what)
	}
	if l := c.lease(x.Address); l != nil && l.Expires.After(c.at) {
		if owner := c.machineByMAC(l.MAC); l.Declined || owner == nil || owner.Machine.ID != x.Machine {
			return refuse("machine %s: address %s is leased to %s until %s; choose another", x.Machine, x.Address, l.MAC, l.Expires.Format(time.RFC3339))
		}
	}
	return nil
}

// dropEndedIntents keeps a machine that is approved again and again within
// bounds.
func (c *change) dropEndedIntents(id machine.ID) {
	var ended []*intentRow
	for _, i := range c.tables.intents(id) {
		if i.Intent.Kind == machine.IntentInstall && !i.Intent.Live() {
			ended = append(ended, i)
		}
	}
	for len(ended) >= maxInstallIntents {
		c.remove(tableIntents, ended[0])
		ended = ended[1:]
	}
}

// installIntent is an install intent that was asked for by its ID.
func (c *change) installIntent(id string) (*intentRow, error) {
	i := c.tables.intent(id)
	if i == nil || i.Intent.Kind != machine.IntentInstall {
		return nil, refuse("there is no install intent %.40q", id)
	}
	return i, nil
}

// current refuses a session or epoch that is not the intent's present one.
func current(i *intentRow, r *machineRow, session string, epoch uint64) error {
	switch {
	case i.Intent.Session != session || r.Machine.Session == nil || r.Machine.Session.ID != session:
		return refuse("install intent %s is bound to session %s and not to %.40q; a newer session revokes the older", i.Intent.ID, i.Intent.Session, session)
	case i.Intent.Epoch != epoch:
		return refuse("install intent %s is at epoch %d and not %d; ask for the order again", i.Intent.ID, i.Intent.Epoch, epoch)
	}
	return nil
}

func (c *change) intentClaim(x IntentClaim) error {
	i, err := c.installIntent(x.Intent)
	if err != nil {
		return err
	}
	r := c.tables.machine(i.Intent.Machine)
	if r == nil {
		return refuse("install intent %s: its machine is forgotten", x.Intent)
	}
	if err := current(i, r, x.Session, x.Epoch); err != nil {
		return err
	}
	c.machine, c.intent = r, i
	disk := clipDisk(x.Disk, maxField)
	again := i.Intent.Status == machine.IntentClaimed
	switch {
	case again && (i.Claimed == nil || !sameDisk(*i.Claimed, disk)):
		return refuse("install intent %s is claimed for another disk than %s", x.Intent, x.Disk.Path)
	case !again && i.Intent.Status != machine.IntentOpen:
		return refuse("install intent %s is %s: nothing may be written", x.Intent, i.Intent.Status)
	}
	// Also when it asks again: somebody may have written to the disk meanwhile.
	if why := c.unfitFor(x.Disk, i); why != "" {
		return refuse("install intent %s: disk %.80s %s: nothing may be written", x.Intent, x.Disk.Path, why)
	}
	if again {
		return nil // the answer was lost: the same one again
	}
	claimed, m := c.editIntent(i), c.edit(r)
	m.Heard = c.at
	claimed.Intent.Status, claimed.Intent.Written, claimed.Claimed = machine.IntentClaimed, true, &disk
	claimed.Wrote, claimed.WroteAs = disk.Exact(), m.Machine.Name
	m.Machine.Phase, m.Machine.Reason = machine.PhaseInstalling, "writing "+clip(x.Disk.Path)
	c.event(m.Machine.ID, "intent.claimed", machine.Info,
		clip(fmt.Sprintf("Permitted to write disk %s (%s)", x.Disk.Path, diskWords(x.Disk))),
		"intent", x.Intent, "epoch", fmt.Sprint(x.Epoch), "disk", clip(x.Disk.Path), "serial", clip(x.Disk.Serial))
	c.machine, c.intent = m, claimed
	return nil
}

// sameDisk compares what names a disk.
func sameDisk(a, b machine.Disk) bool {
	return a.Path == b.Path && a.Serial == b.Serial && a.WWN == b.WWN && a.Bytes == b.Bytes
}

// unfit says why a disk must not be written under a hint; "": it may.
func unfit(d machine.Disk, hint machine.DiskHint) string {
	switch {
	case d.Path == "":
		return "has no path"
	case d.ReadOnly:
		return "is read-only"
	case !hint.Matches(d):
		return fmt.Sprintf("(%s) is not the one that was approved (%s)", diskWords(d), hint)
	}
	return ""
}

// unfitFor says why a disk must not be written under an intent; "": it may. What
// was approved had its texts clipped, to one of two lengths.
func (c *change) unfitFor(d machine.Disk, i *intentRow) (why string) {
	for n, limit := range []int{maxField, maxFieldLarge} {
		short := clipDisk(d, limit)
		now := unfit(short, i.Intent.Disk)
		if now == "" {
			now = c.occupied(short, i)
		}
		if now == "" {
			return ""
		}
		if n == 0 {
			why = now
		}
	}
	return why
}

// occupied says why a disk must not be written because of what is on it; "": it
// may. Whoever approved named what may be lost. What an install that began before
// left on the same disk may be, too: that, and not whatever is there now. That it
// was permitted does not say that it wrote, nor that nobody did since.
func (c *change) occupied(d machine.Disk, i *intentRow) string {
	switch {
	case d.Contents == machine.Empty || i.Intent.Erase != "" && d.Contents == i.Intent.Erase:
		return ""
	case i.Wrote != (machine.DiskHint{}) && i.Wrote == d.Exact() && machine.Left(d.Contents, i.WroteAs):
		return ""
	case i.Intent.Erase == "":
		return fmt.Sprintf("is not empty (%s), and the approval names nothing that may be lost; revoke it, look, and approve again", clip(d.Contents))
	}
	return fmt.Sprintf("holds %s, and the approval names %s; revoke it, look, and approve again", clip(d.Contents), i.Intent.Erase)
}

func (c *change) intentRetry(x IntentRetry) error {
	i, err := c.installIntent(x.Intent)
	if err != nil {
		return err
	}
	r := c.tables.machine(i.Intent.Machine)
	if i.Intent.Status != machine.IntentFailed || r == nil {
		return refuse("install intent %s is %s: only a failed one is retried", x.Intent, i.Intent.Status)
	}
	if err := c.calm(); err != nil {
		return err
	}
	open, m := c.editIntent(i), c.edit(r)
	open.Intent.Status, open.Intent.Reason, open.Claimed = machine.IntentOpen, "", nil
	open.Intent.Epoch++
	if x.Disk != nil {
		open.Intent.Disk, open.Intent.Erase = *x.Disk, x.Erase
	}
	m.Machine.Phase, m.Machine.Reason = machine.PhaseApproved, "retried by "+asker(c.by)
	c.event(m.Machine.ID, "intent.retried", machine.Info,
		fmt.Sprintf("Retried by %s, attempt %d", asker(c.by), open.Intent.Epoch), "by", c.by, "intent", x.Intent, "epoch", fmt.Sprint(open.Intent.Epoch))
	c.machine, c.intent = m, open
	return nil
}

func (c *change) intentRevoke(x IntentRevoke) error {
	i := c.tables.intent(x.Intent)
	switch {
	case i == nil:
		return refuse("there is no intent %.40q", x.Intent)
	case !i.Intent.Live():
		return refuse("%s intent %s is %s already", i.Intent.Kind, x.Intent, i.Intent.Status)
	case i.Intent.Kind == machine.IntentBootstrap && i.Intent.Status != machine.IntentOpen:
		return refuse("bootstrap intent %s is %s: %s; it cannot be given to another machine, or there might be two clusters", x.Intent, i.Intent.Status, i.Intent.Starting())
	}
	ended := c.editIntent(i)
	ended.Intent.Status, ended.Intent.Reason = machine.IntentRevoked, clip(x.Reason)
	c.intent = ended
	what := i.Intent.Kind.Words()
	text := fmt.Sprintf("%s revoked by %s", strings.ToUpper(what[:1])+what[1:], asker(c.by))
	if i.Intent.Kind == machine.IntentBootstrap {
		text += ", the next control plane that is approved starts the cluster"
	}
	if x.Reason != "" {
		text += ": " + clip(x.Reason)
	}
	if i.Intent.Kind == machine.IntentBootstrap {
		c.machine = c.tables.machine(i.Intent.Machine)
		c.event(i.Intent.Machine, "bootstrap.revoked", machine.Warning, text, "by", c.by, "intent", x.Intent)
		return nil
	}
	c.event(i.Intent.Machine, "intent.revoked", machine.Warning, text, "by", c.by, "intent", x.Intent)
	if i.Intent.Kind != machine.IntentInstall {
		c.machine = c.tables.machine(i.Intent.Machine)
		return nil
	}
	if r := c.tables.machine(i.Intent.Machine); r != nil {
		m := c.edit(r)
		m.Machine.Phase, m.Machine.Reason = machine.PhaseWaiting, "install revoked, waiting for approval"
		c.machine = m
	}
	return nil
}

func (c *change) bootstrapClaim(x BootstrapClaim) error {
	i := c.bootstrap()
	switch {
	case i == nil:
		return refuse("machine %.40s: %s", x.Machine, machine.NoStart(theIntent(c.endedBootstrap()), c.called))
	case i.Intent.Machine != x.Machine:
		return refuse("machine %.40s: only machine %s may start the cluster; join it", x.Machine, i.Intent.Machine)
	case i.Intent.Status == machine.IntentDone:
		return refuse("machine %s: the cluster was started already; join it", x.Machine)
	}
	r := c.tables.machine(x.Machine)
	if r == nil {
		return refuse("machine %s is forgotten", x.Machine)
	}
	c.machine, c.intent = r, i
	if i.Intent.Status == machine.IntentClaimed {
		return nil
	}
	claimed := c.editIntent(i)
	claimed.Intent.Status = machine.IntentClaimed
	c.event(x.Machine, "bootstrap.claimed", machine.Info, "Starts the cluster: kubeadm init is permitted", "intent", i.Intent.ID)
	c.intent = claimed
	return nil
}
