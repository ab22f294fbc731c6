package api

import (
	"fmt"
	"strings"
	"time"

	"github.com/rackseed/rackseed/services/approve"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/silence"
	"github.com/rackseed/rackseed/services/state"
)

// How long a machine is silent before that is worth explaining. What a boot
// takes is silence.Patience.
const (
	silentRequest = time.Minute      // from a first packet to asking what to boot
	silentInstall = 2 * time.Minute  // between two signs of an installer that works
	silentNode    = 15 * time.Minute // from the end of the install to the node agent; servers boot slowly
)

// whyEvents is how many events an explanation has.
const whyEvents = 10

// facts are what a machine is explained from.
type facts struct {
	now           time.Time
	machine       machine.Machine
	orders        machine.Orders
	circumstances machine.Circumstances
	waitingFor    string
	told          state.Boot
	health        []Health
	bootWhy       string          // the event that told its last boot decision
	events        []machine.Event // its last, oldest first
}

func factsOf(view state.View, m machine.Machine, health []Health, now time.Time) facts {
	f := facts{
		now: now, machine: m, orders: ordersOf(view, view.Bootstrap(), m.ID), circumstances: view.Circumstances(m, now),
		waitingFor: waitingFor(view, m, now), told: view.Boot(m.ID), health: health,
	}
	for after := uint64(0); ; {
		list := view.Events(after, m.ID, page)
		for _, e := range list {
			if e.Kind == "boot.decided" {
				f.bootWhy = e.Text
			}
			after = e.Seq
		}
		f.events = append(f.events, list...)
		f.events = f.events[max(0, len(f.events)-whyEvents):]
		if len(list) < page {
			return f
		}
	}
}

// explain says what is the matter with a machine: what it does, or why it does
// nothing, and what to do about it.
func explain(f facts) Why {
	w := Why{
		Machine: MachineRef{ID: f.machine.ID, Name: f.machine.Name}, Phase: f.machine.Phase,
		Boot: shownBoot(f.told), NextBoot: nextBoot(f.machine, f.orders.Install, f.circumstances), WaitingFor: f.waitingFor,
		BootWhy: f.bootWhy, Causes: []string{}, Todo: []string{}, Events: append([]machine.Event{}, f.events...),
	}
	f.say(&w)
	return w
}

// say fills in what an explanation is for: the sentence, causes, and what to do.
func (f facts) say(w *Why) {
	m := f.machine
	switch m.Phase {
	case machine.PhaseLocal:
		f.sayLocal(w)
	case machine.PhaseWaiting:
		f.sayWaiting(w)
	case machine.PhaseApproved:
		f.sayApproved(w)
	case machine.PhaseInstalling:
		f.sayInstalling(w)
	case machine.PhaseInstalled:
		f.sayInstalled(w)
	case machine.PhaseBooted:
		w.Summary = "It runs its installed system and is not in the cluster yet."
		if f.waitingFor != "" {
			w.Summary = "It runs its installed system and waits: " + f.waitingFor + "."
		}
	case machine.PhaseJoining:
		w.Summary = "It is on its way into the cluster: " + sentence(m.Reason, "kubeadm runs") + "."
		w.Todo = append(w.Todo, "Read its log: kubeadm's output is there.")
	case machine.PhaseReady:
		w.Summary = "It is a node of the cluster, and Ready."
	case machine.PhaseFailed:
		f.sayFailed(w)
	case machine.PhaseRescue:
		w.Summary = "It serves a rescue shell to the site's SSH keys, as an operator asked."
		w.Todo = append(w.Todo, "Log in as root by SSH; restart it to end the shell.")
	default:
		f.saySeen(w)
	}
}

// faults are the parts that machines need to netboot and that have a fault, as a
// cause.
func (f facts) faults() (list []string) {
	for _, h := range f.health {
		if h.Grave {
			list = append(list, fmt.Sprintf("this boot service's %s has a fault: %s", h.Name, h.Text))
		}
	}
	return list
}

// saySeen explains a machine that netbooted and has no installer at work.
func (f facts) saySeen(w *Why) {
	m := f.machine
	switch {
	case f.told.Kind == "" && f.now.Sub(m.LastSeen) < silentRequest:
		w.Summary = "It asked for an address a moment ago, and did not ask yet what to boot."
	case f.told.Kind == "":
		w.Summary = fmt.Sprintf("It asked for an address, and then never asked what to boot; last seen %s ago.", span(f.now.Sub(m.LastSeen)))
		w.Causes = append(f.faults(),
			"the answer did not reach it: its switch port is in another VLAN, or still blocks (spanning tree without portfast)",
			"its first file did not reach it: TFTP (UDP from port 69 on) is blocked between here and there",
			"its firmware refused the file: Secure Boot is on and the site file says netboot.uefi: ipxe",
			"the network was away for over half a minute just as GRUB asked for its configuration: then it stands at its prompt (grub>) until it is restarted",
			"another DHCP server answered it first")
		w.Todo = append(w.Todo, "Look at the machine's screen while it netboots: firmware says there what failed.", "Restart it.")
	case f.told.Kind != machine.BootLocal && m.RefusedSince(f.told.Decided):
		w.Summary = fmt.Sprintf("Its installer came, and was refused %s ago: %s.", span(f.now.Sub(m.Refused.At)), sentence(m.Refused.Why, "no reason is kept"))
		w.Todo = append(w.Todo, "Mend that; then ask to have it looked at, or open the discovery window anew, and restart it.")
	case f.silent():
		f.saySilent(w)
	default:
		w.Summary = fmt.Sprintf("It was told %s ago to boot %s, and is on its way.", span(f.now.Sub(f.told.Decided)), f.told.Kind.Words())
	}
}

// sayLocal explains a machine that was sent to its own disk.
func (f facts) sayLocal(w *Why) {
	switch s := f.machine.Session; {
	case s != nil && s.Left.After(f.told.Decided):
		w.Summary = "Nobody approved it in time, and it went back to its own disk."
	case f.gone():
		w.Summary = fmt.Sprintf("It restarted, and was told %s ago to boot its own disk: %s.", span(f.now.Sub(f.told.Decided)), reasonOf(w.BootWhy))
	default:
		w.Summary = "It boots its own disk, as it was told: " + reasonOf(w.BootWhy) + "."
	}
	if w.NextBoot.Kind != machine.BootLocal {
		w.Summary += fmt.Sprintf(" The next time it netboots, it boots %s.", w.NextBoot.Kind.Words())
		w.Todo = append(w.Todo, "Restart it.")
		return
	}
	if f.machine.Inventory == nil && !f.circumstances.Window && !f.circumstances.Listed {
		w.Todo = append(w.Todo, "Open the discovery window, or list it in the site file; then restart it.")
	}
	w.Todo = append(w.Todo, "Ask to have it looked at; then restart it.")
}

// reasonOf is what follows "Boots its own disk: " in an event.
func reasonOf(text string) string {
	if _, reason, ok := strings.Cut(text, ": "); ok {
		return reason
	}
	return sentence(text, "no reason is kept any more")
}

// gone says whether it was told to boot its own disk since its installer
// reported: the installer is not there any more.
func (f facts) gone() bool {
	s := f.machine.Session
	return f.told.Kind == machine.BootLocal && s != nil && f.told.Decided.After(s.Opened)
}

// silent says whether it was told to boot the installer, and no installer
// reported since.
func (f facts) silent() bool {
	b := f.told
	if b.Kind == "" || b.Kind == machine.BootLocal || f.machine.RefusedSince(b.Decided) || f.machine.Session != nil && f.machine.Session.Opened.After(b.Decided) {
		return false
	}
	since := b.Decided
	if b.Fetched.After(since) {
		since = b.Fetched
	}
	return b.Silent || f.now.Sub(since) >= silence.Patience
}

// saySilent explains a machine that boots the installer and is not heard of.
func (f facts) saySilent(w *Why) {
	b := f.told
	if b.Fetched.IsZero() {
		w.Summary = fmt.Sprintf("It was told %s ago to boot %s, and never fetched its kernel.", span(f.now.Sub(b.Decided)), b.Kind.Words())
	} else {
		w.Summary = fmt.Sprintf("It fetched the installer's kernel %s ago, and was not heard of since.", span(f.now.Sub(b.Fetched)))
	}
	w.Causes = append(f.faults(), silence.Causes(f.told)...)
	w.Todo = append(w.Todo, "Look at its screen or serial console.", "Restart it: nothing was written to its disks.")
	if f.orders.Install != nil && f.orders.Install.Written {
		w.Todo[1] = "Restart it: its install begins again where it has to."
	}
}

func (f facts) sayWaiting(w *Why) {
	if f.silent() {
		f.saySilent(w)
		return
	}
	w.Summary = "Its installer has looked and waits for approval."
	if i := f.orders.Install; i != nil && i.Status == machine.IntentRevoked {
		w.Summary = "Its installer waits for approval again: " + sentence(f.machine.Reason, "its install was revoked") + "."
	}
	w.Todo = append(w.Todo, f.sayDisk()...)
}

// shownDisks bounds how many disks an explanation proposes.
const shownDisks = 6

// sayDisk is what approving it takes.
func (f facts) sayDisk() []string {
	if f.machine.Inventory == nil {
		return []string{"Approve it."}
	}
	var usable []DiskChoice
	for _, c := range choices(f.machine.Inventory) {
		if c.Usable {
			usable = append(usable, c)
		}
	}
	switch {
	case len(usable) == 0:
		return []string{"It has no disk that can be installed on: " + machine.ListDisks(f.machine.Inventory.Disks) + "."}
	case len(usable) == 1 && usable[0].Erase != "":
		return []string{"Approve it, and name what is on its disk and may be lost."}
	case len(usable) == 1:
		return []string{"Approve it."}
	}
	list := []string{"Approve it, and name the disk: several could be installed on."}
	for n, c := range usable {
		if n == shownDisks {
			list = append(list, fmt.Sprintf("… or one of %d more: rackseed machine %s lists them.", len(usable)-n, called(f.machine)))
			break
		}
		list = append(list, fmt.Sprintf("rackseed approve %s %s installs it on %s", called(f.machine), approve.Flags(c.Hint), machine.ListDisks([]machine.Disk{c.Disk})))
	}
	return list
}

func (f facts) sayApproved(w *Why) {
	quiet := f.now.Sub(f.machine.LastSeen)
	w.Summary = "Its install is ordered, and its installer has not begun to write yet."
	if f.silent() {
		f.saySilent(w)
		return
	}
	if f.gone() {
		w.Summary = fmt.Sprintf("Its install is ordered; it restarted before, and was told %s ago to boot its own disk.", span(f.now.Sub(f.told.Decided)))
		w.Todo = append(w.Todo, "Restart it: its installer comes up; approve it again then.")
		return
	}
	if quiet >= silentInstall {
		w.Summary = fmt.Sprintf("Its install is ordered, and it was last heard of %s ago.", span(quiet))
		w.Causes = append(w.Causes, "it was switched off or restarted", "it lost its network")
		w.Todo = append(w.Todo, "Restart it; approve it again when its installer waits.", "Or revoke the install.")
	}
}

func (f facts) sayInstalling(w *Why) {
	quiet := f.now.Sub(f.machine.LastSeen)
	w.Summary = "Its disk is being written: " + sentence(f.machine.Reason, "no step was reported yet") + "."
	if f.silent() {
		f.saySilent(w)
		return
	}
	if quiet >= silentInstall {
		w.Summary = fmt.Sprintf("Its disk was being written (%s), and it was last heard of %s ago.", sentence(f.machine.Reason, "no step was reported"), span(quiet))
		w.Causes = append(w.Causes, "it was switched off or restarted", "its disk does not answer any more", "it lost its network: it goes on by itself when that is back")
		w.Todo = append(w.Todo, "Look at its screen or serial console.", "Restart it: it boots the installer, and must be approved again.")
	}
}

func (f facts) sayInstalled(w *Why) {
	since := f.now.Sub(f.machine.LastSeen)
	if i := f.orders.Install; i != nil {
		since = f.now.Sub(i.Changed)
	}
	w.Summary = "It is installed and boots its own disk; the installed system has not reported yet."
	silent := fmt.Sprintf("It was installed %s ago, and the installed system never reported.", span(since))
	if f.gone() { // from the installer's session to its disk: a rescue shell was between
		since = f.now.Sub(f.told.Decided)
		silent = fmt.Sprintf("It was told %s ago to boot its own disk, and the installed system did not report since.", span(since))
	}
	if since < silentNode {
		return
	}
	w.Summary = silent
	w.Causes = append(w.Causes,
		"its firmware does not boot the disk: the disk is not in the boot order, or the controller's boot option is off",
		"its firmware stops at a message that waits for a key",
		"the installed system has no network: its address is set on the link that it was installed over",
		"the installed system does not start: its screen or serial console says why")
	w.Todo = append(w.Todo, "Look at its screen or serial console.", "Restart it.", "Ask for the rescue shell, and restart it.")
}

func (f facts) sayFailed(w *Why) {
	w.Summary = "It failed: " + sentence(f.machine.Reason, "no reason was reported") + "."
	w.Todo = append(w.Todo, "Read its log.")
	if i := f.orders.Install; i != nil && i.Status == machine.IntentFailed {
		w.Todo = append(w.Todo, "Mend what it names, then retry the install; its installer waits for that.", "Or revoke the install.")
	} else {
		w.Todo = append(w.Todo, "Mend what it names; its node agent tries again by itself.")
	}
}

// sentence is text as a part of a sentence, or what stands for it.
func sentence(text, otherwise string) string {
	text = strings.TrimRight(strings.TrimSpace(text), ".")
	if text == "" {
		return otherwise
	}
	return text
}

// span writes how long something takes for people, in its two largest units.
func span(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", max(0, int(d/time.Second)))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d/time.Minute))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h %d min", int(d/time.Hour), int(d%time.Hour/time.Minute))
	}
	return fmt.Sprintf("%d days", int(d/(24*time.Hour)))
}
