package state

import (
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/machine"
)

// shutWindow is a world whose discovery window is closed.
func shutWindow(t *testing.T) *world {
	w := newWorld(t)
	w.must(DiscoveryWindow{})
	return w
}

func TestDiscoveryWindow(t *testing.T) {
	w := shutWindow(t)
	if open, until := w.view().Discovery(w.now); open || !until.IsZero() {
		t.Fatalf("open %v until %v", open, until)
	}
	// What is unknown is not let in, however it asks.
	if text := w.refused(session("s-1", inventory(1), machineID(1))); !strings.Contains(text, "window is closed") {
		t.Errorf("an unknown machine's session: %s", text)
	}
	w.must(see(1, 1, uuid(1)))
	if text := w.refused(session("s-1", inventory(1), "m-9")); !strings.Contains(text, "window is closed") {
		t.Errorf("a seen machine's session: %s", text)
	}
	if text := w.refused(decide1(machine.BootDiscovery)); !strings.Contains(text, "boots local") {
		t.Errorf("its boot: %s", text)
	}
	w.must(decide1(machine.BootLocal))

	w.must(DiscoveryWindow{Until: w.now.Add(time.Hour)})
	if open, until := w.view().Discovery(w.now); !open || until.IsZero() {
		t.Fatalf("open %v until %v", open, until)
	}
	w.must(decide1(machine.BootDiscovery))
	// It boots meanwhile, and the window closes: it may still say what it found.
	w.must(DiscoveryWindow{Until: w.now})
	w.must(session("s-1", inventory(1), "m-9"))
	// But only so long.
	w.now = w.now.Add(bootGrace)
	w.refused(session("s-2", inventory(1), "m-9"))

	if text := w.refused(DiscoveryWindow{Until: w.now.Add(maxWindow + time.Hour)}); !strings.Contains(text, "is the most") {
		t.Error(text)
	}
	events := len(w.view().Events(0, "", 0))
	w.must(DiscoveryWindow{}) // closed is closed
	equal(t, "events", len(w.view().Events(0, "", 0)), events)
}

func TestSiteFileOpensTheWindow(t *testing.T) {
	for name, site := range map[string]machine.Site{
		"always": {Discovery: machine.SiteDiscovery{Always: true}},
		"listed": {Machines: []machine.ListedMachine{{MAC: mac(1)}}},
	} {
		t.Run(name, func(t *testing.T) {
			w := shutWindow(t)
			w.must(SiteApply{Site: site})
			w.must(session("s-1", inventory(1), machineID(1)))
			if name == "listed" {
				w.refused(session("s-2", inventory(2), machineID(2)))
			}
		})
	}
}

func decide1(kind machine.BootKind) BootDecide {
	return BootDecide{Machine: machineID(1), Decision: machine.BootDecision{Kind: kind, Reason: "because"}}
}

func TestInvite(t *testing.T) {
	w := shutWindow(t)
	w.must(see(1, 1, uuid(1)))
	w.must(MachineInvite{Machine: machineID(1), Until: w.now.Add(time.Hour)})
	w.must(decide1(machine.BootDiscovery))
	w.must(session("s-1", full(1), "m-9"))
	if m := w.machine(machineID(1)); !m.Invited.IsZero() {
		t.Error("it came, and is still invited")
	}
	// Its disk is full: it leaves for it, and needs another invitation.
	w.must(SessionLeave{Machine: machineID(1), Session: "s-1"})
	w.must(decide1(machine.BootLocal))
	m := w.machine(machineID(1))
	equal(t, "phase", m.Phase, machine.PhaseLocal)
	w.must(SessionLeave{Machine: machineID(1), Session: "s-1"}) // asked again: the same
	equal(t, "left", w.machine(machineID(1)).Session.Left, m.Session.Left)
	if text := w.refused(approval(1)); !strings.Contains(text, "went back to its own disk") {
		t.Error(text)
	}
	w.must(MachineInvite{Machine: machineID(1), Until: w.now.Add(time.Hour)})
	w.must(session("s-2", full(1), "m-9"))
	w.must(with(approval(1), func(x *MachineApprove) { x.Session = "s-2" }))
	if text := w.refused(MachineInvite{Machine: machineID(1), Until: w.now.Add(time.Hour)}); !strings.Contains(text, "is open") {
		t.Error(text)
	}
	if text := w.refused(SessionLeave{Machine: machineID(1), Session: "s-2"}); !strings.Contains(text, "does not leave") {
		t.Error(text)
	}
	w.refused(MachineInvite{Machine: "m-none", Until: w.now.Add(time.Hour)})
}

func TestRescue(t *testing.T) {
	w := newWorld(t)
	story(w)
	w.must(DiscoveryWindow{})
	if text := w.refused(RescueOpen{Machine: machineID(1), Intent: "r-1"}); !strings.Contains(text, "the site file has no sshKeys") {
		t.Error(text)
	}
	w.must(SiteApply{Site: machine.Site{SSHKeys: []string{"ssh-ed25519 AAAA ann"}}})
	w.must(RescueOpen{Machine: machineID(1), Intent: "r-1"})
	if text := w.refused(RescueOpen{Machine: machineID(1), Intent: "r-2"}); !strings.Contains(text, "asked for already") {
		t.Error(text)
	}
	w.must(decide1(machine.BootRescue))
	w.must(session("s-7", inventory(1), "m-9"))
	m := w.machine(machineID(1))
	equal(t, "phase", m.Phase, machine.PhaseRescue)
	equal(t, "session", w.view().RescueIntent(m.ID).Session, "s-7")
	equal(t, "its install", w.view().InstallIntent(m.ID).Status, machine.IntentDone)
	// One boot only.
	w.must(decide1(machine.BootLocal))
	w.refused(session("s-8", inventory(1), "m-9"))
	w.must(RescueOpen{Machine: machineID(1), Intent: "r-2"})
	w.must(IntentRevoke{Intent: "r-2"})
	w.must(decide1(machine.BootLocal))
	equal(t, "phase after the shell", w.machine(m.ID).Phase, machine.PhaseInstalled)
	checkInvariants(t, w)

	w = newWorld(t)
	w.claimed(1)
	if text := w.refused(RescueOpen{Machine: machineID(1), Intent: "r-1"}); !strings.Contains(text, "is being written") {
		t.Error(text)
	}
}

// A machine that went to its own disk is not taken for waiting; one whose
// installer is heard of all the same was only spoken for by somebody else.
func TestWentToItsDisk(t *testing.T) {
	w := newWorld(t)
	w.must(session("s-1", full(1), machineID(1)))
	is := func(what string, phase machine.Phase, reason string) {
		t.Helper()
		if m := w.machine(machineID(1)); m.Phase != phase || !strings.Contains(m.Reason, reason) {
			t.Errorf("%s: %s, %q; want %s, %q", what, m.Phase, m.Reason, phase, reason)
		}
	}
	w.must(SessionHere{Machine: machineID(1), Session: "s-1"})
	is("heard of", machine.PhaseWaiting, "waiting for approval")
	w.must(decide1(machine.BootLocal))
	is("told to boot its disk", machine.PhaseLocal, "its own disk: because")
	events := w.view().Events(0, machineID(1), 0)
	if e := events[len(events)-1]; e.Text != "Boots its own disk, and its installer waits no more: because" {
		t.Errorf("the timeline says %q", e.Text)
	}
	w.must(SessionHere{Machine: machineID(1), Session: "s-1"})
	is("heard of again", machine.PhaseWaiting, "waiting for approval")
	// Right after that it restarts indeed.
	w.must(decide1(machine.BootLocal))
	is("told the same again", machine.PhaseLocal, "its own disk: because")
	events = w.view().Events(0, machineID(1), 0)
	w.must(decide1(machine.BootLocal))
	equal(t, "events of a mere repetition", len(w.view().Events(0, machineID(1), 0)), len(events))
	w.must(SessionHere{Machine: machineID(1), Session: "s-1"})
	is("heard of once more", machine.PhaseWaiting, "waiting for approval")
	w.must(SessionLeave{Machine: machineID(1), Session: "s-1"})
	is("waited too long", machine.PhaseLocal, "not approved in time")
	w.must(SessionHere{Machine: machineID(1), Session: "s-1"})
	is("heard of on its way", machine.PhaseLocal, "not approved in time")
	w.refused(SessionHere{Machine: machineID(1), Session: "s-0"})
	w.refused(SessionHere{Machine: "m-none", Session: "s-1"})
}

// A wait that begins anew, as the install was revoked, ends with a true text.
func TestLeavesAfterRevoke(t *testing.T) {
	w := newWorld(t)
	w.approved(1)
	w.must(IntentRevoke{Intent: "i-1"})
	w.now = w.now.Add(time.Hour)
	w.must(SessionLeave{Machine: machineID(1), Session: "s-1"})
	events := w.view().Events(0, machineID(1), 0)
	if e := events[len(events)-1]; !strings.HasPrefix(e.Text, "Its install was revoked 1h0m1s ago, and not approved anew: it goes back") {
		t.Errorf("the timeline says %q", e.Text)
	}
	if m := w.machine(machineID(1)); !strings.Contains(m.Reason, "was revoked") {
		t.Errorf("reason %q", m.Reason)
	}
}

func TestSilence(t *testing.T) {
	w := newWorld(t)
	w.must(see(1, 1, uuid(1)))
	w.must(decide1(machine.BootDiscovery))
	told := w.view().Boot(machineID(1))
	if told.Kind != machine.BootDiscovery || !told.Fetched.IsZero() {
		t.Fatalf("%+v", told)
	}
	w.must(MachineSee{MAC: mac(1), Via: ViaKernel, Text: "fetched the kernel"})
	if w.view().Boot(machineID(1)).Fetched.IsZero() {
		t.Error("that it fetched the kernel is lost")
	}
	silent := MachineSilent{Machine: machineID(1), Decided: told.Decided, Text: "Kernel fetched, then silence"}
	w.must(silent)
	equal(t, "reason", w.machine(machineID(1)).Reason, "Kernel fetched, then silence")
	if text := w.refused(silent); !strings.Contains(text, "told already") {
		t.Error(text)
	}
	w.now = w.now.Add(time.Minute)
	w.must(decide1(machine.BootDiscovery))
	again := w.view().Boot(machineID(1))
	if again.Silent || !again.Fetched.IsZero() {
		t.Errorf("what was of the last boot is of this one: %+v", again)
	}
	if text := w.refused(silent); !strings.Contains(text, "something else since") {
		t.Error(text)
	}
	w.must(session("s-1", with(inventory(1), func(*machine.Inventory) {}), "m-9"))
	silent.Decided = again.Decided
	s := w.machine(machineID(1)).Session
	if s.Opened.After(again.Decided) {
		if text := w.refused(silent); !strings.Contains(text, "heard of") {
			t.Error(text)
		}
	}
}

// TestWhatMayBeErased: nothing is written where something is that the approval
// does not name.
func TestWhatMayBeErased(t *testing.T) {
	ntfs := func(x *IntentClaim) { x.Disk.Contents = "MBR, 1 partition: NTFS" }
	for name, test := range map[string]struct {
		erase string
		claim func(*IntentClaim)
		want  string
	}{
		"empty":              {"", func(*IntentClaim) {}, ""},
		"full, unnamed":      {"", ntfs, "is not empty (MBR, 1 partition: NTFS), and the approval names nothing"},
		"full, named":        {"MBR, 1 partition: NTFS", ntfs, ""},
		"full, other named":  {"ext4", ntfs, "holds MBR, 1 partition: NTFS, and the approval names ext4"},
		"long, named":        {clipTo(strings.Repeat("GPT ", 200), maxField), func(x *IntentClaim) { x.Disk.Contents = strings.Repeat("GPT ", 200) }, ""},
		"long, clipped more": {clipTo(strings.Repeat("GPT ", 200), maxFieldLarge), func(x *IntentClaim) { x.Disk.Contents = strings.Repeat("GPT ", 200) }, ""},
		"named, and empty":   {"ext4", func(*IntentClaim) {}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.waiting(1)
			w.must(with(approval(1), func(x *MachineApprove) { x.Erase = test.erase }))
			c := with(claim(1), test.claim)
			if test.want == "" {
				w.must(c)
				return
			}
			if text := w.refused(c); !strings.Contains(text, test.want) || !strings.Contains(text, "approve again") {
				t.Errorf("refused with %q", text)
			}
		})
	}
}

// precious is what somebody else wrote to a disk meanwhile.
const precious = `GPT, 1 partition: ext4 "precious"`

// TestBrokenOffAttempt: what the attempt before left on the same disk may be
// written over by the next one of the same intent; what anybody else wrote there
// since, and another disk's contents, not.
func TestBrokenOffAttempt(t *testing.T) {
	for contents, want := range map[string]string{
		machine.Empty:          "", // it failed before it wrote
		machine.BrokenOff:      "",
		"Rackseed node node-1": "", // it failed at its very end
		"Rackseed node node-2": "is not empty (Rackseed node node-2), and the approval names nothing",
		precious:               "is not empty (" + precious + "), and the approval names nothing",
		"unreadable: EIO":      "is not empty",
	} {
		w := newWorld(t)
		w.claimed(1)
		w.must(installReport(1, 1, "image", "failed", "", 0, 0))
		w.must(IntentRetry{Intent: "i-1"})
		next := with(claim(1), func(x *IntentClaim) { x.Epoch, x.Disk.Contents = 2, contents })
		if want != "" {
			if text := w.refused(next); !strings.Contains(text, want) {
				t.Errorf("%s: refused with %q", contents, text)
			}
			continue
		}
		if contents != machine.Empty {
			w.refused(with(next, func(x *IntentClaim) { x.Disk.Serial = "D2" }))
		}
		w.must(next)
	}
}

// TestClaimedAgain: who asks again, because the answer was lost, is told no if
// somebody wrote to the disk meanwhile.
func TestClaimedAgain(t *testing.T) {
	w := newWorld(t)
	w.claimed(1)
	w.must(claim(1))
	if text := w.refused(with(claim(1), func(x *IntentClaim) { x.Disk.Contents = precious })); !strings.Contains(text, "nothing may be written") {
		t.Error(text)
	}
	w.must(claim(1))
}

// TestRevokedInTheMiddle: an install that is revoked while it writes leaves a
// disk that is not whole, whatever its installer told before; the next approval
// in the same session may write over what it left, and over nothing else.
func TestRevokedInTheMiddle(t *testing.T) {
	w := newWorld(t)
	w.claimed(1)
	if _, half := w.view().HalfWritten(machineID(1)); half {
		t.Error("half written, though it goes on")
	}
	w.must(IntentRevoke{Intent: "i-1"})
	if d, half := w.view().HalfWritten(machineID(1)); !half || d.Serial != "D1" {
		t.Errorf("half written: %v, %v", d, half)
	}
	again := approval(1)
	again.Intent, again.Bootstrap, again.NodeKey = "i-2", "b-2", bytes32("node 2")
	w.must(MachineInvite{Machine: machineID(1), Until: w.now.Add(time.Hour)})
	w.must(again)
	if m := w.machine(machineID(1)); !m.Invited.IsZero() {
		t.Error("it is still to be looked at")
	}
	next := func(c machine.BootKind) {
		t.Helper()
		m := w.machine(machineID(1))
		if d := machine.NextBoot(&m, w.view().InstallIntent(m.ID), w.view().Circumstances(m, w.now)); d.Kind != c {
			t.Errorf("boots %s (%s), want %s", d.Kind, d.Reason, c)
		}
	}
	half := func(x *IntentClaim) { x.Intent, x.Disk.Contents = "i-2", machine.BrokenOff }
	other := with(claim(1), half)
	other.Disk.Serial = "D2"
	w.refused(other)
	if text := w.refused(with(claim(1), func(x *IntentClaim) { half(x); x.Disk.Contents = precious })); !strings.Contains(text, "precious") {
		t.Error(text)
	}
	// Revoked once more, before it wrote: the disk is not whole still.
	w.must(IntentRevoke{Intent: "i-2"})
	next(machine.BootDiscovery)
	if _, half := w.view().HalfWritten(machineID(1)); !half {
		t.Error("what the first one left is forgotten")
	}
	again.Intent, again.Bootstrap, again.NodeKey = "i-3", "b-3", bytes32("node 3")
	w.must(again)
	w.must(with(claim(1), func(x *IntentClaim) { half(x); x.Intent = "i-3" }))
}

// A machine whose installer is not taken is not sent to it again and again.
func TestRefusedInstaller(t *testing.T) {
	w := newWorld(t)
	w.must(see(1, 1, uuid(1)))
	no := SessionRefuse{MACs: []machine.MAC{mac(1)}, UUID: uuid(1), Why: "its inventory is too large"}
	if text := w.refused(no); !strings.Contains(text, "was not told to boot the installer") {
		t.Error(text)
	}
	w.must(decide1(machine.BootDiscovery))
	w.must(no)
	events := len(w.view().Events(0, "", 0))
	w.must(no) // it tries again and again
	w.must(with(no, func(x *SessionRefuse) { x.Why = "its inventory is larger still" }))
	equal(t, "events", len(w.view().Events(0, "", 0)), events)
	w.refused(decide1(machine.BootDiscovery))
	w.must(decide1(machine.BootLocal))
	if m := w.machine(machineID(1)); m.Phase != machine.PhaseLocal {
		t.Errorf("phase %s", m.Phase)
	}
	// Somebody asks for it once more, and it is refused once more.
	w.must(MachineInvite{Machine: machineID(1), Until: w.now.Add(time.Hour)})
	w.must(decide1(machine.BootDiscovery))
	w.must(no)
	w.must(decide1(machine.BootLocal))
	// Another window is another try, and now it is taken.
	w.must(DiscoveryWindow{Until: w.now.Add(time.Hour)})
	w.must(decide1(machine.BootDiscovery))
	w.must(session("s-1", inventory(1), "m-9"))
	if m := w.machine(machineID(1)); m.Refused != nil || m.Phase != machine.PhaseWaiting {
		t.Errorf("taken: %s, %+v", m.Phase, m.Refused)
	}
	if text := w.refused(no); !strings.Contains(text, "was taken since") {
		t.Error(text)
	}
	w.must(approval(1))
	w.must(decide1(machine.BootInstall))
	if text := w.refused(no); !strings.Contains(text, "is approved") {
		t.Error(text)
	}
	w.refused(SessionRefuse{MACs: []machine.MAC{mac(9)}, Why: "x"})
}

// What a session signs disproves that its machine's installer was refused.
func TestRefusedInItsName(t *testing.T) {
	w := newWorld(t)
	w.waiting(1)
	w.must(decide1(machine.BootDiscovery))
	w.must(SessionRefuse{MACs: []machine.MAC{mac(1)}, Why: "its inventory is too large"})
	w.must(SessionHere{Machine: machineID(1), Session: "s-1"})
	if m := w.machine(machineID(1)); m.Refused != nil || m.Phase != machine.PhaseWaiting {
		t.Errorf("%s, %+v", m.Phase, m.Refused)
	}
}

// A rescue shell that was asked for is booted all the same, and the event says so.
func TestRefusedRescue(t *testing.T) {
	w := newWorld(t)
	w.must(SiteApply{Site: machine.Site{SSHKeys: []string{"ssh-ed25519 AAAA ann"}}})
	w.must(see(1, 1, uuid(1)))
	w.must(RescueOpen{Machine: machineID(1), Intent: "r-1"})
	w.must(decide1(machine.BootRescue))
	w.must(SessionRefuse{MACs: []machine.MAC{mac(1)}, Why: "its inventory is too large"})
	events := w.view().Events(0, machineID(1), 0)
	if e := events[len(events)-1]; !strings.Contains(e.Text, "too large. It boots the rescue shell all the same") {
		t.Errorf("the timeline says %q", e.Text)
	}
	w.must(decide1(machine.BootRescue))
}
