package state

import (
	"fmt"
	"slices"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/wire"
)

func (c *change) installReport(x InstallReport) error {
	found, p := c.tables.machine(x.Machine), x.Report
	if found == nil || found.Machine.Session == nil || found.Machine.Session.ID != x.Session {
		return refuse("machine %.40s: session %.40q is not its newest", x.Machine, x.Session)
	}
	c.machine = found
	if p.Number == 0 {
		return refuse("machine %s: reports are numbered from 1", x.Machine)
	}
	if p.Number <= found.Report {
		return nil
	}
	i, err := c.installIntent(p.Intent)
	if err != nil {
		return err
	}
	if i.Intent.Machine != x.Machine {
		return refuse("install intent %s is not machine %s's", p.Intent, x.Machine)
	}
	if err := current(i, found, x.Session, p.Epoch); err != nil {
		return err
	}
	claimed := i.Intent.Status == machine.IntentClaimed
	// Choosing the disk happens before the claim, which names it.
	if !claimed && !(i.Intent.Status == machine.IntentOpen && p.Step == wire.StepDisk) {
		return refuse("install intent %s is %s: a report of step %.20s is not expected", p.Intent, i.Intent.Status, p.Step)
	}
	if _, known := stepWords[p.Step]; !known {
		return refuse("install intent %s: there is no step %.40q", p.Intent, p.Step)
	}
	r := c.edit(found)
	r.Report, r.Machine.LastSeen, r.Heard = p.Number, c.at, c.at
	data := []string{"step", p.Step, "status", string(p.Status), "intent", p.Intent, "epoch", fmt.Sprint(p.Epoch)}
	c.machine, c.intent = r, i
	switch p.Status {
	case wire.StepProgress: // no event: a disk makes hundreds
		r.Machine.Reason = stepReason(p)
	case wire.StepStarted:
		r.Machine.Reason = stepReason(p)
		c.event(x.Machine, "install.step", machine.Info, stepSentence(p), data...)
	case wire.StepDone:
		c.event(x.Machine, "install.step", machine.Info, stepSentence(p), data...)
		if p.Step == wire.StepReboot {
			c.installed(r, i, "the disk is complete, it reboots")
		}
	case wire.StepFailed:
		failed := c.editIntent(i)
		failed.Intent.Status, failed.Intent.Reason = machine.IntentFailed, stepSentence(p)
		r.Machine.Phase, r.Machine.Reason = machine.PhaseFailed, stepSentence(p)
		c.intent = failed
		c.event(x.Machine, "install.failed", machine.Error, stepSentence(p), data...)
	default:
		return refuse("install intent %s: there is no status %.40q", p.Intent, p.Status)
	}
	return nil
}

// installed ends an install intent well. Whoever approved it, the entry of the
// site file's list that the machine has is used up by it.
func (c *change) installed(r *machineRow, i *intentRow, reason string) {
	done := c.editIntent(i)
	done.Intent.Status = machine.IntentDone
	r.Machine.Phase, r.Machine.Reason = machine.PhaseInstalled, reason
	c.intent = done
	var entry string
	if site := c.site(); site != nil {
		if l, listed := site.Listed(r.Machine); listed {
			entry = l.Key()
			if first[listedRow](c.tables, tableListed, byID, key(entry)) == nil {
				c.put(tableListed, &listedRow{Entry: entry, Machine: r.Machine.ID, At: c.at})
			}
		}
	}
	c.event(r.Machine.ID, "install.done", machine.Info, "Installed: "+reason, "intent", i.Intent.ID, "listed", entry)
}

// nodeWords says what each of a node's events does: phase, severity, sentence.
var nodeWords = map[wire.NodeEvent]struct {
	phase    machine.Phase
	severity machine.Severity
	text     string
}{
	wire.NodeBooted:  {machine.PhaseBooted, machine.Info, "The installed system is up"},
	wire.NodeJoining: {machine.PhaseJoining, machine.Info, "kubeadm starts"},
	wire.NodeJoined:  {machine.PhaseJoining, machine.Info, "kubeadm ended well, waiting for Ready"},
	wire.NodeReady:   {machine.PhaseReady, machine.Info, "The node is Ready"},
	wire.NodeUnready: {machine.PhaseJoining, machine.Warning, "The node is not Ready"},
	wire.NodeFailed:  {machine.PhaseFailed, machine.Error, "The node failed"},
}

func (c *change) nodeReport(x NodeReport) error {
	found, p := c.tables.machine(x.Machine), x.Report
	if found == nil || len(found.Machine.NodeKey) == 0 {
		return refuse("machine %.40s is no node: it was never approved", x.Machine)
	}
	if err := word("boot ID", p.BootID); err != nil {
		return err
	}
	words, known := nodeWords[p.Event]
	if !known || p.Number == 0 {
		return refuse("machine %s: node report %d of %.40q is none; reports are numbered from 1", x.Machine, p.Number, p.Event)
	}
	c.machine = found
	past := slices.IndexFunc(found.PastBoots, func(b pastBoot) bool { return b.ID == p.BootID })
	back := past >= 0
	if late(found, past, p) {
		return nil
	}
	r := c.edit(found)
	r.BootGoesOn = r.Boot == p.BootID
	if !r.BootGoesOn {
		r.PastBoots = slices.Clone(r.PastBoots)
		if back {
			r.PastBoots = slices.Delete(r.PastBoots, past, past+1)
		}
		if r.Boot != "" {
			r.PastBoots = append(r.PastBoots, pastBoot{r.Boot, r.BootReport})
			r.PastBoots = r.PastBoots[max(0, len(r.PastBoots)-maxPastBoots):]
		}
		r.Boot = p.BootID
	}
	r.BootReport, r.Machine.LastSeen = p.Number, c.at
	// Only the finished system has the node's key: if the installer's last
	// report was lost, this one says that the install is done.
	if i := c.install(x.Machine); i != nil && i.Intent.Status == machine.IntentClaimed {
		c.installed(r, i, "the installed system reported")
	}
	text := words.text
	if said := clip(p.Text); said != "" {
		text += ": " + said
	}
	r.Machine.Phase, r.Machine.Reason = words.phase, text
	if p.Event == wire.NodeReady {
		r.Machine.Reason = ""
	}
	c.event(x.Machine, "node."+string(p.Event), words.severity, text, "boot", p.BootID, "slot", clip(p.Slot), "image", clip(p.Image))
	// A report may be lost with the node's memory; who is Ready has joined.
	if p.Event == wire.NodeJoined || p.Event == wire.NodeReady {
		if b := c.bootstrap(); b != nil && b.Intent.Machine == x.Machine && b.Intent.Live() {
			done := c.editIntent(b)
			done.Intent.Status = machine.IntentDone
			c.intent = done
			c.event(x.Machine, "bootstrap.done", machine.Info, "The cluster is started", "intent", b.Intent.ID)
		}
	}
	// The boot that is here now may be joining: an older one's failure, if it was
	// on its way until now, ends nothing.
	if !back || p.Event != wire.NodeFailed {
		c.joined(x.Machine, p)
	}
	c.machine = r
	return nil
}

// late says that a node's report is repeated, or of a boot that has ended. past is
// where its boot is among the past ones, or less than 0.
//
// Which of two boots came first nothing says: a report that was on its way while
// its node restarted may come after the next boot's. But each is sent once the one
// before was answered. So a boot that has ended has one on its way at the most, and
// one that reports again is the one that runs: until the newest did, another one's
// report that is new takes its place back.
func late(r *machineRow, past int, p wire.NodeReport) bool {
	switch {
	case r.Boot == p.BootID:
		return p.Number <= r.BootReport
	case past >= 0:
		return r.BootGoesOn || p.Number <= r.PastBoots[past].Report
	}
	return false
}

func (c *change) outputStore(x OutputStore) error {
	k := x.Chunk
	r := c.tables.machine(k.Machine)
	if r == nil {
		return refuse("output of machine %.40s: there is no such machine", k.Machine)
	}
	if err := word("stream", k.Stream); err != nil {
		return err
	}
	if k.First == 0 || k.Last < k.First || !digest.MatchString(k.Digest) || k.Size < 0 {
		return refuse("output of machine %s: lines %d to %d with digest %.80q are no chunk", k.Machine, k.First, k.Last, k.Digest)
	}
	c.machine = r
	next := c.nextLine(k.Machine, k.Stream)
	if k.Last < next {
		return nil
	}
	if k.First > next {
		return refuse("output of machine %s, stream %s: line %d is expected next and not %d; send from there on", k.Machine, k.Stream, next, k.First)
	}
	k.Seq, k.Time = 1, c.at
	if newest := c.lastChunk(k.Machine); newest != nil {
		k.Seq = newest.Seq + 1
	}
	most := uint64(maxChunks)
	if !r.approved() {
		most = maxStrangerChunks
	}
	if k.Seq > most {
		// The numbers have no gaps: at most one is over the limit.
		under(c.tables, tableChunks, byID, key(k.Machine), func(oldest *machine.Chunk) bool {
			if oldest.Seq+most > k.Seq {
				return false
			}
			c.remove(tableChunks, oldest)
			return true
		})
	}
	c.put(tableChunks, &k)
	// A sign of life of the installer while it writes, noted now and then: who
	// watches machines is woken by each.
	if since := c.at.Sub(r.Heard); r.Machine.Phase == machine.PhaseInstalling && r.Machine.Session != nil &&
		r.Machine.Session.ID == k.Stream && (since < 0 || since >= takeoverSilence/4) {
		heard := c.edit(r)
		heard.Heard = c.at
		c.machine = heard
	}
	return nil
}
