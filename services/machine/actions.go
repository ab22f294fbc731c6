package machine

import (
	"fmt"
	"time"
)

// Orders are a machine's orders that are not over, or ended last; any may be
// nil. Bootstrap is the one bootstrap intent, whosever it is.
type Orders struct {
	Install, Join, Rescue, Bootstrap *Intent
}

// What people may do to a machine now, and why not: each function returns the
// reason, and "" where it may be done. The state refuses by them, and the API
// offers by them, so that nothing is offered that is refused.

// NoApprove says why a machine cannot be approved.
func NoApprove(m Machine, o Orders) string {
	const again = "ask to have it looked at again (rackseed look, or the console), restart it, and approve it then"
	switch {
	case o.Install.Live():
		out := "revoke that first"
		if o.Install.Status == IntentFailed {
			out += ", or retry it"
		}
		return fmt.Sprintf("it is approved already: install intent %s is %s; %s", o.Install.ID, o.Install.Status, out)
	case o.Install != nil && o.Install.Status == IntentDone:
		// A node in the cluster would lose its key at once, and its disk at its
		// next restart: that takes more than the word for a new machine.
		return fmt.Sprintf("it is installed (intent %s), and approving it again would write over its disk: to install it anew, forget it first, then netboot it", o.Install.ID)
	case m.Phase == PhaseRescue:
		return "it serves a rescue shell: restart it, and approve it when its installer waits"
	case m.Session == nil || m.Inventory == nil: // a session brings one; held to it, since it is what is approved
		return "its installer has not reported yet: netboot it"
	case !m.Session.Left.IsZero():
		return fmt.Sprintf("nobody approved it in time, and it went back to its own disk at %s: %s", m.Session.Left.UTC().Format(time.RFC3339), again)
	case m.Phase == PhaseLocal:
		return "it restarted, and went to its own disk: " + again
	case m.Phase != PhaseWaiting:
		return "its installer does not wait for approval: netboot it"
	}
	return ""
}

// NoRetry says why an install cannot begin again.
func NoRetry(o Orders) string {
	switch {
	case o.Install == nil:
		return "no install was ever ordered: approve it"
	case o.Install.Status != IntentFailed:
		return fmt.Sprintf("install intent %s is %s: only a failed one is retried", o.Install.ID, o.Install.Status)
	}
	return ""
}

// Revocable are the intents that taking back a machine's orders ends: its
// install while it is not over; its start of the cluster while that was not
// permitted yet, which would keep the cluster waiting for a machine that is not
// installed; its join while it is not over; and a rescue shell that it did not
// boot yet. The most urgent comes first.
func Revocable(m Machine, o Orders) []Intent {
	list := []Intent{}
	if o.Install.Live() {
		list = append(list, *o.Install)
	}
	if b := o.Bootstrap; b != nil && b.Machine == m.ID && b.Status == IntentOpen {
		list = append(list, *b)
	}
	if o.Join.Live() {
		list = append(list, *o.Join)
	}
	if o.Rescue.Live() {
		list = append(list, *o.Rescue)
	}
	return list
}

// NoRevoke says why nothing can be taken back.
func NoRevoke(m Machine, o Orders) string {
	if len(Revocable(m, o)) > 0 {
		return ""
	}
	return "nothing is open that could be taken back: no install, no start of the cluster, no join and no rescue shell is ordered that is not over; what is done cannot be revoked"
}

// NoForget says why a machine cannot be forgotten. Joining and rescue end with it.
func NoForget(m Machine, o Orders) string {
	b := o.Bootstrap
	switch {
	case o.Install.Live():
		return fmt.Sprintf("install intent %s is %s; revoke it first", o.Install.ID, o.Install.Status)
	case b == nil || b.Machine != m.ID || !b.Live():
		return ""
	case b.Status == IntentOpen:
		return fmt.Sprintf("it is to start the cluster (bootstrap intent %s is %s); revoke it first", b.ID, b.Status)
	}
	return fmt.Sprintf("bootstrap intent %s is %s: %s", b.ID, b.Status, b.Starting())
}

// Starting says how it stands with a cluster whose start was permitted, and what
// the ways out are.
func (i *Intent) Starting() string {
	return fmt.Sprintf("machine %s was permitted to start the cluster and may have done so: let it finish (it goes on by itself when it boots); if it is lost for good, abandon what it began (rackseed cluster abandon), and approve another", i.Machine)
}

// NoLook says why a machine is not looked at again.
func NoLook(o Orders) string {
	switch {
	case o.Install.Live():
		return fmt.Sprintf("install intent %s is %s: it boots the installer anyway", o.Install.ID, o.Install.Status)
	case o.Install != nil && o.Install.Status == IntentDone:
		return fmt.Sprintf("it is installed (intent %s): forget it first", o.Install.ID)
	}
	return ""
}

// NoRescue says why a machine gets no rescue shell. keys are those that may log in.
func NoRescue(o Orders, keys []string) string {
	switch {
	case o.Install != nil && o.Install.Status == IntentClaimed:
		return fmt.Sprintf("its disk is being written (install intent %s); revoke that first", o.Install.ID)
	case o.Rescue != nil && o.Rescue.Status == IntentOpen:
		return "a rescue shell was asked for already: restart the machine"
	case len(keys) == 0:
		return "nobody could log in to its rescue shell: the site file has no sshKeys"
	}
	return ""
}

// NoStart says why there is no order to start the cluster, and what makes one.
// ended is the newest that was taken back, or whose cluster was abandoned; nil:
// there was none. called names a machine for people.
func NoStart(ended *Intent, called func(ID) string) string {
	if ended == nil {
		return "no control plane was approved yet: approve one, and it starts the cluster (rackseed approve NAME)"
	}
	why := ""
	if ended.Reason != "" {
		why = " (" + ended.Reason + ")"
	}
	return fmt.Sprintf("the start of the cluster was taken back from %s%s: the next control plane that is approved starts it (rackseed approve NAME); "+
		"one that is installed already must be forgotten and installed anew for that (rackseed forget NAME)", called(ended.Machine), why)
}
