package machine

import "time"

// BootKind is what a machine boots next.
type BootKind string

const (
	BootLocal     BootKind = "local"     // its own disk
	BootDiscovery BootKind = "discovery" // the installer, which only looks
	BootInstall   BootKind = "install"   // the installer, with an intent open for it
	BootRescue    BootKind = "rescue"    // the installer, with a shell for operators
)

// Words say for people what a machine boots.
func (k BootKind) Words() string {
	switch k {
	case BootLocal:
		return "its own disk"
	case BootDiscovery:
		return "the installer, which only looks"
	case BootRescue:
		return "the rescue shell"
	}
	return "the installer"
}

// BootDecision is what a machine boots next, and why.
type BootDecision struct {
	Kind   BootKind `json:"kind"`
	Reason string   `json:"reason"`
}

// Circumstances are what a boot decision depends on besides the machine and
// its install.
type Circumstances struct {
	Now time.Time
	// Window says that the discovery window is open.
	Window bool
	// Opened is when operators opened that window last; zero: they did not.
	Opened time.Time
	// Listed says that the site file's list has the machine.
	Listed bool
	// Rescue is its newest rescue intent, or nil.
	Rescue *Intent
}

// NextBoot decides what a machine boots next. It is the only place where that
// is decided: scripts, menus and DHCP replies follow from it.
//
// m is nil for a machine never seen; intent is its newest install intent, or
// nil. A machine boots its own disk unless there is a reason not to, so that a
// production server that reboots on this wire comes back as it was. The
// reasons: an intent that is open for it; an install that was broken off in the
// middle of writing; and discovery, which only looks. That is for machines
// that were never looked at, and for those that have nothing to boot, while the
// discovery window is open or the site file lists them; and for any machine
// that an operator invited. One that was sent back to its disk, because nobody
// approved it in time, is only looked at again if it surely has nothing there:
// its system may be on a stick, or behind a controller that the installer has no
// driver for. And one whose installer was refused is not sent to it again and
// again.
func NextBoot(m *Machine, intent *Intent, c Circumstances) BootDecision {
	switch {
	case m != nil && c.Rescue != nil && c.Rescue.Status == IntentOpen:
		return BootDecision{BootRescue, "an operator asked for the rescue shell"}
	case m != nil && intent.Live():
		return BootDecision{BootInstall, "install intent " + intent.ID + " is " + string(intent.Status)}
	case m != nil && intent != nil && intent.Status == IntentDone:
		return BootDecision{BootLocal, "installed by intent " + intent.ID}
	case m != nil && intent != nil && intent.Written && !m.sentBack():
		return BootDecision{BootDiscovery, "its install was broken off in the middle, so that its disk is not whole"}
	case m != nil && m.Invited.After(c.Now):
		return BootDecision{BootDiscovery, "an operator asked to have it looked at"}
	case m != nil && m.Refused != nil && !m.Refused.At.Before(c.Opened):
		return BootDecision{BootLocal, "its installer was refused: " + m.Refused.Why + "; mend that, and have it looked at again (rackseed look, or the console; or open the discovery window anew)"}
	}
	known := m != nil && m.Inventory != nil
	switch {
	case known && m.Inventory.Occupied(DiskHint{}) != nil:
		return BootDecision{BootLocal, "known, not approved, and its disk is not empty: approve it while its installer waits, or have it looked at again (rackseed look, or the console)"}
	case known && m.sentBack():
		return BootDecision{BootLocal, "it was looked at, nobody approved it in time, and its system may be where the installer does not look: have it looked at again (rackseed look, or the console)"}
	case !c.Window && !c.Listed:
		return BootDecision{BootLocal, "the discovery window is closed, and the site file does not list it: open the window (rackseed discovery open, or the console) to have it looked at"}
	case known:
		return BootDecision{BootDiscovery, "not installed yet, and nothing is on its disks"}
	case m == nil:
		return BootDecision{BootDiscovery, "never seen before"}
	}
	return BootDecision{BootDiscovery, "seen, and not looked at yet"}
}

// sentBack says whether the machine went back to its own disk, on which
// something may be.
func (m *Machine) sentBack() bool {
	return m.Session != nil && !m.Session.Left.IsZero() && (m.Inventory == nil || !m.Inventory.Bare())
}

// RefusedSince says whether the machine's installer was refused after a time.
func (m *Machine) RefusedSince(t time.Time) bool {
	return m.Refused != nil && m.Refused.At.After(t)
}

// Reasons of phases that a machine comes to in more than one way.
const (
	ReasonWaiting = "waiting for approval"
	ReasonRescue  = "serves a rescue shell to the site's SSH keys; the next restart ends it"
)

// PhaseTold is the phase of a machine, and its reason, once it was told what to
// boot. A machine that asks for that has restarted: no installer of it waits,
// and no rescue shell is served, any more. An order for it, and what its node
// reports, say more than what it boots.
func (m *Machine) PhaseTold(install *Intent, d BootDecision) (Phase, string) {
	switch m.Phase {
	case PhaseSeen, PhaseLocal, PhaseWaiting, PhaseRescue:
	default:
		return m.Phase, m.Reason
	}
	installed := install != nil && install.Status == IntentDone
	switch {
	case d.Kind == BootLocal && installed:
		return PhaseInstalled, "it boots its own disk again"
	case d.Kind == BootLocal:
		return PhaseLocal, "it boots its own disk: " + d.Reason
	case m.Phase == PhaseWaiting: // its next session is under way, and it waits again then
		return m.Phase, m.Reason
	}
	return PhaseSeen, ""
}

// PhaseHeard is the phase of a machine whose newest session was just heard of,
// and false if that changes nothing. Anybody on the wire can ask what a machine
// boots, in its name: only what the session signs proves that it is still there.
func (m *Machine) PhaseHeard(install, rescue *Intent) (Phase, string, bool) {
	switch {
	case m.Session == nil || !m.Session.Left.IsZero():
	case rescue != nil && rescue.Session == m.Session.ID:
		if m.Phase == PhaseSeen || m.Phase == PhaseLocal || m.Phase == PhaseInstalled {
			return PhaseRescue, ReasonRescue, true
		}
	case m.Phase != PhaseSeen && m.Phase != PhaseLocal || install.Live():
	default:
		return PhaseWaiting, ReasonWaiting, true
	}
	return m.Phase, m.Reason, false
}

// WaitEnds is when a machine that waits for approval goes back to its own disk;
// zero: it does not wait, or has something to go on with. wait is the site's
// SiteDiscovery.WaitTime.
func (m *Machine) WaitEnds(install *Intent, wait time.Duration) time.Time {
	if m.Phase != PhaseWaiting || m.Session == nil || !m.Session.Left.IsZero() || install.Live() {
		return time.Time{}
	}
	// A disk that is half written is nothing to go back to.
	if install != nil && install.Written && install.Session == m.Session.ID {
		return time.Time{}
	}
	if m.TakenBack(install) && install.Changed.After(m.Session.Opened) {
		return install.Changed.Add(wait)
	}
	return m.Session.Opened.Add(wait)
}

// TakenBack says whether the machine's newest session was approved, and that was
// taken back: it waits once more from then on.
func (m *Machine) TakenBack(install *Intent) bool {
	return install != nil && install.Status == IntentRevoked && m.Session != nil && install.Session == m.Session.ID
}
