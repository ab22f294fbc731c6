package state

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/keyring"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/wire"
)

func installReport(n int, number uint64, step string, status wire.ReportStatus, text string, done, total int64) InstallReport {
	return InstallReport{Machine: machineID(n), Session: fmt.Sprintf("s-%d", n), Report: wire.Report{
		Number: number, Intent: fmt.Sprintf("i-%d", n), Epoch: 1, Step: step, Status: status, Text: text, Done: done, Total: total}}
}

func nodeReport(n int, boot string, number uint64, event wire.NodeEvent) NodeReport {
	return NodeReport{Machine: machineID(n), Report: wire.NodeReport{BootID: boot, Number: number, Event: event}}
}

// story is a machine's way from its first packet to Ready.
func story(w *world) {
	w.must(ClusterCreate{ID: "c-1", Generation: 1, Key: "k-1", Secrets: map[string]keyring.Sealed{"pki/ca.key": sealed("k-1", "k"), "console.key": sealed("k-1", "c")}, SetupHash: bytes32("setup")})
	w.must(SiteApply{Site: machine.Site{Version: 1, Name: "lab", ServiceAddress: address(1), Links: []machine.SiteLink{{Interface: "eth0"}},
		Machines: []machine.ListedMachine{{MAC: mac(1)}}}})
	w.must(ImagePublish{Images: []machine.Image{{Ref: "node", Digest: digestOf("node")}}})
	w.must(UserPut{Name: "ann", PasswordHash: []byte("hash"), SetupHash: bytes32("setup")})
	w.must(LoginOpen{TokenHash: bytes32("token"), User: "ann", Expires: start.Add(time.Hour)})
	w.must(MachineSee{ID: machineID(1), MAC: mac(1), UUID: uuid(1), Via: "dhcp.discover", Text: "DHCP discover from 52:54:00:00:00:01"})
	bind := lease(100, mac(1), w.now, time.Hour)
	bind.Event = true
	w.must(bind)
	w.must(BootDecide{Machine: machineID(1), Decision: machine.BootDecision{Kind: machine.BootDiscovery, Reason: "not installed yet, and waiting for approval"}})
	w.must(session("s-0", inventory(1), "m-unused"))
	w.must(session("s-1", inventory(1), "m-unused"))
	a := approval(1)
	a.NodeSeed = sealed("k-1", "seed")
	w.must(a)
	w.must(installReport(1, 1, wire.StepDisk, wire.StepDone, "/dev/vda is the only one", 0, 0))
	w.must(claim(1))
	w.must(installReport(1, 2, wire.StepImage, wire.StepStarted, "", 0, 0))
	w.must(installReport(1, 3, wire.StepImage, wire.StepProgress, "", 214<<20, 420<<20))
	w.must(installReport(1, 4, wire.StepImage, wire.StepDone, "written and verified", 420<<20, 420<<20))
	w.must(installReport(1, 5, wire.StepReboot, wire.StepDone, "", 0, 0))
	w.must(nodeReport(1, "boot-1", 1, wire.NodeBooted))
	w.must(BootstrapClaim{Machine: machineID(1)})
	w.must(nodeReport(1, "boot-1", 2, wire.NodeJoining))
	w.must(nodeReport(1, "boot-1", 3, wire.NodeJoined))
	w.must(nodeReport(1, "boot-1", 4, wire.NodeReady))
	w.must(tell("r-1", "10.77.0.2:8300"))
	w.must(ReplicaInvite{TokenHash: bytes32("replica"), Name: "node-1", Machine: machineID(1), Expires: w.now.Add(time.Hour)})
	w.must(joinBy("replica", "r-2"))
	w.must(ReplicaProve{ID: "r-2"})
	w.must(HandoffStart{machine.Handoff{ID: "h-0", Targets: []machine.HandoffTarget{{Machine: machineID(1)}}, From: "r-1", By: "operator:ann"}})
	w.must(HandoffMove{ID: "h-0", From: machine.HandoffPreflight, To: machine.HandoffAborting, Reason: "not today"})
	w.must(HandoffMove{ID: "h-0", From: machine.HandoffAborting, To: machine.HandoffAborted})
	w.must(rollout("node"))
	w.must(RolloutTell{ID: "o-1", Replica: "r-2"})
	w.must(RolloutStop{ID: "o-1", Reason: "not today"})
	w.must(OutputStore{Chunk: machine.Chunk{Machine: machineID(1), Stream: "s-1", First: 1, Last: 3, Digest: digestOf("lines"), Size: 30}})
	w.must(Note{What: "note", Severity: machine.Info, Text: "Proved"})
}

func TestStory(t *testing.T) {
	w := newWorld(t)
	story(w)
	var got []string
	for n, e := range w.view().Events(0, "", 0) {
		equal(t, "sequence number", e.Seq, uint64(n+1))
		got = append(got, strings.TrimSpace(fmt.Sprintf("%s %s: %s", e.Machine, e.Kind, e.Text)))
	}
	want := []string{
		"epoch.begun: Replica r-1 leads: epoch 1",
		"discovery.window: Discovery window opened by operator ann for 695h59m58s: any machine that netboots is looked at",
		"cluster.created: Cluster c-1 created, generation 1",
		`site.applied: Site file of "lab" applied: 1 link, 1 machine listed`,
		"image.published: Image node is " + digestOf("node")[:19] + "…",
		"user.put: User ann created with the setup code",
		"login.opened: User ann logged in",
		"m-00000001 dhcp.discover: DHCP discover from 52:54:00:00:00:01",
		"m-00000001 dhcp.ack: Address 10.77.0.100 leased for 1h",
		"m-00000001 boot.decided: Boots the installer, which only looks: not installed yet, and waiting for approval",
		"m-00000001 session.opened: Installer session 1 opened: QEMU Standard PC, 2 CPUs, 4 GiB, 1 disk",
		"m-00000001 session.opened: Installer session 2 opened: QEMU Standard PC, 2 CPUs, 4 GiB, 1 disk",
		"m-00000001 machine.approved: Approved by operator ann as node-1 (control-plane)",
		"m-00000001 bootstrap.opened: node-1 will start the cluster, and no other machine",
		"m-00000001 install.step: Disk: /dev/vda is the only one",
		"m-00000001 intent.claimed: Permitted to write disk /dev/vda (serial D1, 20 GiB)",
		"m-00000001 install.step: Image: writing image",
		"m-00000001 install.step: Image: written and verified (420 of 420 MiB)",
		"m-00000001 install.step: Reboot: done",
		"m-00000001 install.done: Installed: the disk is complete, it reboots",
		"m-00000001 node.booted: The installed system is up",
		"m-00000001 bootstrap.claimed: Starts the cluster: kubeadm init is permitted",
		"m-00000001 node.joining: kubeadm starts",
		"m-00000001 node.joined: kubeadm ended well, waiting for Ready",
		"m-00000001 bootstrap.done: The cluster is started",
		"m-00000001 node.ready: The node is Ready",
		"m-00000001 replica.invited: A replica node-1 of the boot service may join until 13:00:24",
		"m-00000001 replica.joined: Replica node-1 of the boot service joins from 10.77.0.11:8300, as r-2",
		"handoff.started: The boot service moves to node-1, as operator ann asked",
		"handoff.step: Handoff: it is given up, and the appliance leads alone again: not today",
		"handoff.step: Handoff: it was given up, and all is as it was",
		"rollout.started: The replicas on nodes shall run image " + digestOf("node")[:19] + "…, one after another, as operator ann asked",
		"m-00000001 rollout.told: The node of replica node-1 is told to run image " + digestOf("node")[:19] + "…",
		"rollout.stopped: The rollout is stopped: not today; replica node-1 is told its earlier image",
		"note: Proved",
	}
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			t.Fatalf("event %d differs\n got %s\nwant %s", i+1, strings.Join(got, "\n     "), strings.Join(want, "\n     "))
		}
	}
	v := w.view()
	m := w.machine(machineID(1))
	equal(t, "phase", m.Phase, machine.PhaseReady)
	equal(t, "bootstrap", v.Bootstrap().Status, machine.IntentDone)
	equal(t, "install", v.InstallIntent(m.ID).Status, machine.IntentDone)
	equal(t, "epoch of the first attempt", v.InstallIntent(m.ID).Epoch, 1)
	equal(t, "next line", v.NextLine(m.ID, "s-1"), 4)
	if !bytes.Equal(m.NodeKey, approval(1).NodeKey) {
		t.Error("the node key is another one")
	}
	for word, how := range map[string]string{string(m.ID): "ID", "node-1": "name", "52-54-00-00-00-01": "MAC", strings.ToUpper(uuid(1)): "UUID", "ser-1": "serial number"} {
		if found, err := v.FindMachine(word); err != nil || found.ID != m.ID {
			t.Errorf("by %s %q: %v, %v", how, word, found.ID, err)
		}
	}
	if _, err := v.FindMachine("nobody"); err == nil {
		t.Error("a machine that does not exist was found")
	}
	if e := v.Events(8, m.ID, 2); len(e) != 2 || e[0].Seq != 9 || e[1].Seq != 10 {
		t.Errorf("two events of the machine after 7: %v", e)
	}
}

func TestPhases(t *testing.T) {
	w := newWorld(t)
	phase := func(want machine.Phase, reason string) {
		t.Helper()
		m := w.machine(machineID(1))
		if m.Phase != want || !strings.Contains(m.Reason, reason) {
			t.Errorf("phase %s (%s), want %s (%s)", m.Phase, m.Reason, want, reason)
		}
	}
	w.must(MachineSee{ID: machineID(1), MAC: mac(1), Via: "dhcp.discover"})
	phase(machine.PhaseSeen, "")
	w.must(session("s-1", inventory(1), "m-unused"))
	phase(machine.PhaseWaiting, "approval")
	w.must(approval(1))
	phase(machine.PhaseApproved, "operator ann")
	w.must(claim(1))
	phase(machine.PhaseInstalling, "/dev/vda")
	events := w.view().LastEvent()
	w.must(installReport(1, 1, wire.StepImage, wire.StepProgress, "", 43, 100))
	phase(machine.PhaseInstalling, "writing image 43 %")
	w.must(installReport(1, 2, wire.StepPartition, wire.StepProgress, "dividing the disk, for 2m10s", 0, 0))
	phase(machine.PhaseInstalling, "dividing the disk, for 2m10s")
	equal(t, "events of progress", w.view().LastEvent(), events)
	w.must(installReport(1, 3, wire.StepImage, wire.StepFailed, "digest mismatch", 0, 0))
	phase(machine.PhaseFailed, "digest mismatch")
	equal(t, "intent", w.view().InstallIntent(machineID(1)).Status, machine.IntentFailed)
	w.must(IntentRetry{Intent: "i-1", Disk: &machine.DiskHint{Serial: "D1"}})
	phase(machine.PhaseApproved, "retried")
	again := claim(1)
	again.Epoch = 2
	w.must(again)
	phase(machine.PhaseInstalling, "/dev/vda")
	w.now = w.now.Add(takeoverSilence)
	w.must(session("s-2", inventory(1), "m-unused"))
	phase(machine.PhaseWaiting, "restarted in the middle")
	equal(t, "intent", w.view().InstallIntent(machineID(1)).Status, machine.IntentRevoked)
	second := approval(1)
	second.Session, second.Intent, second.NodeKey = "s-2", "i-2", bytes32("second")
	w.must(second)
	w.must(IntentRevoke{Intent: "i-2", Reason: "wrong rack"})
	phase(machine.PhaseWaiting, "revoked")

	// An installer that could not say that it ended: the node's report does.
	third := approval(1)
	third.Session, third.Intent, third.NodeKey = "s-2", "i-3", bytes32("third")
	w.must(third)
	w.must(IntentClaim{Intent: "i-3", Epoch: 1, Session: "s-2", Disk: disk(1)})
	w.must(nodeReport(1, "boot-1", 1, wire.NodeBooted))
	phase(machine.PhaseBooted, "up")
	equal(t, "intent", w.view().InstallIntent(machineID(1)).Status, machine.IntentDone)
	w.must(nodeReport(1, "boot-1", 2, wire.NodeFailed))
	phase(machine.PhaseFailed, "failed")
	w.must(nodeReport(1, "boot-1", 3, wire.NodeUnready))
	phase(machine.PhaseJoining, "not Ready")
	w.must(nodeReport(1, "boot-2", 1, wire.NodeBooted))
	before := w.hash()
	w.must(nodeReport(1, "boot-1", 3, wire.NodeReady))
	w.must(nodeReport(1, "boot-2", 1, wire.NodeReady))
	equal(t, "state after repeated reports", w.hash(), before)
}

// TestReportOnItsWay: a report may be on its way while its node restarts, and come
// after the next boot's. The boot that runs is heard all the same.
func TestReportOnItsWay(t *testing.T) {
	phase := func(w *world, want machine.Phase) {
		t.Helper()
		equal(t, "phase", w.machine(machineID(1)).Phase, want)
	}
	t.Run("of a boot that was not heard of", func(t *testing.T) {
		w := newWorld(t)
		w.approved(1)
		w.must(nodeReport(1, "boot-2", 1, wire.NodeBooted))
		w.must(BootstrapClaim{Machine: machineID(1)})
		w.must(nodeReport(1, "boot-1", 1, wire.NodeBooted)) // nothing says that it is the older
		w.must(nodeReport(1, "boot-2", 2, wire.NodeJoined))
		phase(w, machine.PhaseJoining)
		equal(t, "the cluster's start", w.view().Bootstrap().Status, machine.IntentDone)
		w.must(nodeReport(1, "boot-2", 3, wire.NodeReady))
		phase(w, machine.PhaseReady)
		before := w.hash()
		w.must(nodeReport(1, "boot-1", 1, wire.NodeBooted))
		equal(t, "state after a repeated report", w.hash(), before)
	})
	t.Run("of a boot that was", func(t *testing.T) {
		w := newWorld(t)
		w.approved(1)
		w.must(nodeReport(1, "boot-1", 1, wire.NodeBooted))
		w.must(nodeReport(1, "boot-2", 1, wire.NodeBooted))
		w.must(nodeReport(1, "boot-1", 2, wire.NodeFailed))
		phase(w, machine.PhaseFailed)
		w.must(nodeReport(1, "boot-2", 2, wire.NodeJoining))
		phase(w, machine.PhaseJoining)
		w.must(nodeReport(1, "boot-2", 3, wire.NodeReady))
		before := w.hash()
		w.must(nodeReport(1, "boot-1", 3, wire.NodeFailed)) // boot-2 goes on: it is the one that runs
		equal(t, "state after a late report", w.hash(), before)
	})
	t.Run("and the join goes on", func(t *testing.T) {
		w := started(t)
		w.installed(2, machine.RoleWorker)
		w.must(nodeReport(2, "boot-3", 1, wire.NodeBooted))
		w.must(join(2))
		w.must(nodeReport(2, "boot-2", 2, wire.NodeFailed))
		w.must(nodeReport(2, "boot-3", 2, wire.NodeJoined))
		equal(t, "join", w.view().JoinIntent(machineID(2)).Status, machine.IntentDone)
	})
}

// TestBootstrapIsRevoked: while nobody used it, the start of the cluster can be
// given to another machine.
func TestBootstrapIsRevoked(t *testing.T) {
	w := newWorld(t)
	w.approved(1)
	w.must(IntentRevoke{Intent: "i-1"})
	if text := w.refused(MachineForget{Machine: machineID(1)}); !strings.Contains(text, "(bootstrap intent b-1 is open); revoke it first") {
		t.Error(text)
	}
	r := w.must(IntentRevoke{Intent: "b-1", Reason: "it burnt"})
	equal(t, "event", r.Events[0].Text, "Start of the cluster revoked by operator ann, the next control plane that is approved starts the cluster: it burnt")
	if b := w.view().Bootstrap(); b != nil {
		t.Errorf("there still is %+v", b)
	}
	if text := w.refused(BootstrapClaim{Machine: machineID(1)}); !strings.Contains(text, "taken back from node-1 (it burnt)") {
		t.Error(text)
	}
	w.approved(2)
	equal(t, "the new one", w.view().Bootstrap().ID, "b-2")
	w.must(BootstrapClaim{Machine: machineID(2)})
	w.must(MachineForget{Machine: machineID(1)})
	if _, kept := w.view().Intent("b-1"); kept {
		t.Error("the revoked one outlives its machine")
	}
	w.must(IntentRevoke{Intent: "i-2"})
	if text := w.refused(MachineForget{Machine: machineID(2)}); !strings.Contains(text, "let it finish") {
		t.Error(text)
	}
	checkInvariants(t, w)
}

// TestOldBootsAreRemembered: what a recorded report could still say.
func TestOldBootsAreRemembered(t *testing.T) {
	w := newWorld(t)
	w.approved(1)
	w.must(nodeReport(1, "boot-0", 1, wire.NodeFailed))
	for n := range maxPastBoots {
		w.must(nodeReport(1, fmt.Sprintf("boot-%d", n+1), 1, wire.NodeBooted))
	}
	before := w.hash()
	w.must(nodeReport(1, "boot-0", 1, wire.NodeFailed))
	equal(t, "state after a replay", w.hash(), before)
}
