package state

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/wire"
)

// describe lists the machines: "m-00000001 1+2" has the addresses 1 and 2.
func describe(w *world) string {
	var out []string
	for _, m := range w.view().Machines() {
		var macs []string
		for _, a := range m.MACs {
			macs = append(macs, strings.TrimLeft(string(a[len(a)-2:]), "0"))
		}
		slices.Sort(macs)
		out = append(out, fmt.Sprintf("%s %s", m.ID, strings.Join(macs, "+")))
	}
	return strings.Join(out, ", ")
}

func see(id, m int, uuid string) MachineSee {
	return MachineSee{ID: machineID(id), MAC: mac(m), UUID: uuid, Via: "dhcp.discover", Text: fmt.Sprintf("packet %d", m)}
}

// nics is machine n's inventory with these addresses.
func nics(n int, macs ...int) machine.Inventory {
	i := inventory(n)
	i.BootMAC, i.NICs = "", nil
	for _, m := range macs {
		i.NICs = append(i.NICs, machine.NIC{Name: fmt.Sprintf("eth%d", m), MAC: mac(m)})
	}
	return i
}

func TestIdentity(t *testing.T) {
	noUUID := func(i machine.Inventory) machine.Inventory { i.UUID = ""; return i }
	for _, test := range []struct {
		name     string
		commands []Command
		want     string
	}{
		{"by address", []Command{see(1, 1, ""), see(2, 1, "")}, "m-00000001 1"},
		{"two machines", []Command{see(1, 1, ""), see(2, 2, "")}, "m-00000001 1, m-00000002 2"},
		{"by UUID, from a second interface", []Command{see(1, 1, uuid(1)), see(2, 2, uuid(1))}, "m-00000001 1+2"},
		{"in any case", []Command{see(1, 1, uuid(1)), see(2, 2, strings.ToUpper(uuid(1)))}, "m-00000001 1+2"},
		{"boards with no UUID of their own", []Command{see(1, 1, "03000200-0400-0500-0006-000700080009"), see(2, 2, "03000200-0400-0500-0006-000700080009")}, "m-00000001 1, m-00000002 2"},
		{"a packet joins what only packets told apart", []Command{see(1, 1, uuid(1)), see(2, 2, ""), see(3, 2, uuid(1))}, "m-00000001 1+2"},
		{"an inventory joins them", []Command{see(1, 1, ""), see(2, 2, ""), session("s", nics(1, 1, 2), "m-9")}, "m-00000001 1+2"},
		{"an inventory joins three", []Command{see(1, 1, ""), see(2, 2, ""), see(3, 3, ""), session("s", nics(1, 3, 2, 1), "m-9")}, "m-00000003 1+2+3"},
		{"without a UUID", []Command{see(1, 1, ""), session("s", noUUID(nics(1, 1, 2)), "m-9")}, "m-00000001 1+2"},
		{"an inventory of one never seen", []Command{session("s", nics(1, 1, 2), "m-9")}, "m-9 1+2"},
		{"an interface card that moved", []Command{session("s", nics(1, 1, 2), "m-1"), session("t", nics(2, 2, 3), "m-2")}, "m-1 1, m-2 2+3"},
		{"a packet moves nothing", []Command{session("s", nics(1, 1, 2), "m-1"), see(2, 3, uuid(2)), see(3, 2, uuid(2))}, "m-1 1+2, m-00000002 3"},
		{"a new board in the machine", []Command{session("s", nics(1, 1), "m-1"), session("t", nics(2, 1), "m-2")}, "m-1 , m-2 1"},
		{"a UUID in another byte order", []Command{see(1, 1, uuid(8)), session("s", nics(1, 1), "m-9"), see(2, 1, uuid(8))}, "m-00000001 1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			for _, c := range test.commands {
				w.must(c)
			}
			equal(t, "machines", describe(w), test.want)
			checkInvariants(t, w)
		})
	}
}

func TestMergedMachineKeepsItsPast(t *testing.T) {
	w := newWorld(t)
	w.must(see(1, 1, ""))
	bind := lease(100, mac(1), start, time.Hour)
	bind.Event = true
	w.must(bind)
	w.must(see(2, 2, uuid(1)))
	w.must(session("s", nics(1, 1, 2), "m-9"))
	m := w.machine(machineID(2))
	equal(t, "first seen", m.FirstSeen, start.Add(2*time.Second))
	l, _ := w.view().Lease(address(100))
	equal(t, "the lease's machine", l.Machine, m.ID)
	var kinds []string
	for _, e := range w.view().Events(0, m.ID, 0) {
		kinds = append(kinds, e.Kind)
	}
	equal(t, "its timeline", strings.Join(kinds, " "), "dhcp.discover dhcp.ack dhcp.discover machine.merged session.opened")
	if rest := w.view().Events(0, machineID(1), 0); len(rest) != 0 {
		t.Errorf("events left with the record that is gone: %v", rest)
	}
}

// TestFloodOfStrangers: however many machines are made up, those that nobody
// approved are bounded, with all that hangs on them, and approved ones stay.
func TestFloodOfStrangers(t *testing.T) {
	w := newWorld(t)
	w.approved(1)
	w.waiting(2)
	w.must(MachineSee{ID: machineID(8000), MAC: mac(8000), Via: "x"})
	w.must(lease(100, mac(8000), start, time.Hour))
	w.must(OutputStore{Chunk: machine.Chunk{Machine: machineID(8000), Stream: "s-2", First: 1, Last: 3, Digest: digestOf("lines"), Size: 30}})
	for n := range maxStrangers - 2 {
		w.must(MachineSee{ID: machineID(n + 3), MAC: mac(n + 3), Via: "x"})
	}
	equal(t, "machines", len(w.view().Machines()), maxStrangers+1)
	w.must(session("s-new", nics(9000, 9000), machineID(9000)))
	v := w.view()
	equal(t, "machines after one more", len(v.Machines()), maxStrangers+1)
	w.machine(machineID(1))
	w.machine(machineID(2)) // silent for longer, but its installer waits
	w.machine(machineID(3))
	w.machine(machineID(9000))
	l, _ := v.Lease(address(100))
	if _, kept := v.Machine(machineID(8000)); kept || l.Machine != "" || len(v.Chunks(machineID(8000), 0, 0)) != 0 {
		t.Errorf("the longest silent one is kept (%v), or its lease (of %q) or output", kept, l.Machine)
	}
	w.must(MachineSee{ID: machineID(9001), MAC: mac(3), Via: "x"}) // known: nobody makes room
	w.machine(machineID(4))
	w.must(see(9002, 9002, ""))
	w.machine(machineID(3)) // heard of again, so not the longest silent one
	if _, kept := w.view().Machine(machineID(4)); kept {
		t.Error("the next longest silent one is kept")
	}
	checkInvariants(t, w)
}

// TestEvictedOwner: a new machine whose second address is that of the one that
// makes room for it.
func TestEvictedOwner(t *testing.T) {
	w := newWorld(t)
	w.must(session("s-1", nics(1, 1), machineID(1)))
	for n := range maxStrangers - 1 {
		w.must(session(fmt.Sprintf("s-%d", n+3), nics(n+3, n+3), machineID(n+3)))
	}
	w.must(session("s-2", nics(2, 9000, 1), machineID(9000)))
	equal(t, "machines", len(w.view().Machines()), maxStrangers)
	m, _ := w.view().MachineByMAC(mac(1))
	equal(t, "owner", m.ID, machineID(9000))
	checkInvariants(t, w)
}

// TestUUIDAlone: no machine is taken over by whoever knows its UUID.
func TestUUIDAlone(t *testing.T) {
	w := newWorld(t)
	w.must(session("s-1", nics(1, 1), machineID(1)))
	w.must(see(2, 2, uuid(1)))
	equal(t, "after a packet", describe(w), "m-00000001 1, m-00000002 2")
	w.must(session("s-2", nics(1, 2, 3), machineID(3)))
	equal(t, "after a session", describe(w), "m-00000001 1, m-00000002 2+3")
	equal(t, "the UUID's", w.machine(machineID(1)).UUID, uuid(1))
	equal(t, "the other's UUID", w.machine(machineID(2)).UUID, "")
	equal(t, "the first's session", w.machine(machineID(1)).Session.ID, "s-1")
	w.must(session("s-3", nics(1, 2, 3), machineID(4)))
	equal(t, "the other's next session", w.machine(machineID(2)).Session.Number, 2)
	if text := w.refused(session("s-4", nics(1), machineID(5))); !strings.Contains(text, "none of that one's hardware addresses") {
		t.Error(text)
	}
	checkInvariants(t, w)
}

// TestOneUUIDForTwoBoards: both are heard of before anybody looked into one of
// them, as when a room is powered on.
func TestOneUUIDForTwoBoards(t *testing.T) {
	w := newWorld(t)
	w.must(see(1, 1, uuid(1)))
	w.must(see(2, 2, uuid(1)))
	w.must(lease(101, mac(2), w.now, time.Hour))
	equal(t, "of packets", describe(w), "m-00000001 1+2")
	r := w.must(session("s-1", nics(1, 1), machineID(9)))
	equal(t, "looked at", describe(w), "m-00000001 1")
	equal(t, "event", r.Events[0].Text, "Hardware address 52:54:00:00:00:02 came with the same UUID, and is not in this machine: it is another one's, or of a card that the installer has no driver for")
	if l, _ := w.view().Lease(address(101)); l.Machine != "" {
		t.Errorf("the other's lease is of %s", l.Machine)
	}
	w.must(session("s-2", nics(1, 2), machineID(2)))
	equal(t, "both looked at", describe(w), "m-00000001 1, m-00000002 2")
	equal(t, "the first one's session", w.machine(machineID(1)).Session.ID, "s-1")
	w.must(approval(1))
	second := w.machine(machineID(2))
	if next := machine.NextBoot(&second, nil, machine.Circumstances{Now: w.now, Window: true}); next.Kind != machine.BootDiscovery {
		t.Errorf("the second boots %s: %s", next.Kind, next.Reason)
	}
	checkInvariants(t, w)
}

// full is machine n's inventory with something on its disk.
func full(n int) machine.Inventory {
	i := inventory(n)
	i.Disks[0].Contents = "GPT, 2 partitions: ext4, swap"
	return i
}

// TestSessionTakesNothingAway: anybody on the wire can ask for a session with
// another's identity.
func TestSessionTakesNothingAway(t *testing.T) {
	for _, test := range []struct {
		name    string
		prepare func(*world)
		open    SessionOpen
		want    string // "": it is opened
	}{
		{"waiting, disk empty", func(w *world) { w.waiting(1) }, session("s-2", inventory(1), "m-9"), ""},
		{"waiting, disk full", func(w *world) { w.must(session("s-1", full(1), machineID(1))) }, session("s-2", full(1), "m-9"), "known, not approved, and its disk is not empty"},
		{"approved", func(w *world) { w.approved(1) }, session("s-2", inventory(1), "m-9"), ""},
		{"installing", func(w *world) { w.claimed(1); w.now = w.now.Add(4 * time.Second) }, session("s-2", inventory(1), "m-9"), "heard from 5s ago in session s-1; it is taken over once that is silent for 20s"},
		{"installing, with progress", func(w *world) {
			w.claimed(1)
			w.now = w.now.Add(time.Minute)
			w.must(installReport(1, 1, wire.StepImage, wire.StepProgress, "", 1, 2))
		}, session("s-2", inventory(1), "m-9"), "heard from 1s ago"},
		{"installing, with output", func(w *world) {
			w.claimed(1)
			w.now = w.now.Add(time.Minute)
			w.must(OutputStore{Chunk: machine.Chunk{Machine: machineID(1), Stream: "s-1", First: 1, Last: 3, Digest: digestOf("lines"), Size: 30}})
		}, session("s-2", inventory(1), "m-9"), "heard from 1s ago"},
		{"installing, with mere packets", func(w *world) {
			w.claimed(1)
			w.now = w.now.Add(20 * time.Second)
			w.must(see(9, 1, uuid(1)))
		}, session("s-2", inventory(1), "m-9"), ""},
		{"installing, silent", func(w *world) { w.claimed(1); w.now = w.now.Add(19 * time.Second) }, session("s-2", inventory(1), "m-9"), ""},
		{"install failed", func(w *world) {
			w.claimed(1)
			w.must(installReport(1, 1, wire.StepImage, wire.StepFailed, "", 0, 0))
		}, session("s-2", inventory(1), "m-9"), ""},
		{"Ready", story, session("s-2", inventory(1), "m-9"), "installed by intent i-1; forget it to install it anew"},
		{"Ready, by address only", story, with(session("s-2", inventory(1), "m-9"), func(x *SessionOpen) { x.Inventory.UUID = "" }), "forget it to install it anew"},
		{"Ready, address under another UUID", story, with(session("s-2", inventory(1), "m-9"), func(x *SessionOpen) { x.Inventory.UUID = uuid(2) }), "belongs to machine m-00000001, which is approved: forget that one first"},
		{"Ready, UUID with another address", story, session("s-2", nics(1, 2), "m-9"), ""},
		{"approved, address under another UUID", func(w *world) { w.approved(1) }, session("s-2", nics(2, 1), "m-9"), "belongs to machine m-00000001"},
		{"another known one with the address", func(w *world) { w.approved(1); w.waiting(2) }, session("s-3", with(nics(2, 2), func(i *machine.Inventory) {
			i.BootMAC, i.NICs = mac(1), []machine.NIC{{Name: "eth1", MAC: mac(2)}}
		}), "m-9"), "belongs to machine m-00000001"},
		{"revoked", func(w *world) { w.claimed(1); w.must(IntentRevoke{Intent: "i-1"}) }, session("s-2", full(1), "m-9"), ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			test.prepare(w)
			if test.want == "" {
				w.must(test.open)
			} else if text := w.refused(test.open); !strings.Contains(text, test.want) {
				t.Errorf("refused with %q, want %q", text, test.want)
			}
			checkInvariants(t, w)
		})
	}
}

// TestSharedSecondAddress: interfaces inside a management controller have the
// same address in a whole series of machines.
func TestSharedSecondAddress(t *testing.T) {
	w := newWorld(t)
	w.must(session("s-1", nics(1, 1, 9), machineID(1)))
	w.must(approval(1))
	r := w.must(session("s-2", nics(2, 2, 9), machineID(2)))
	equal(t, "machines", describe(w), "m-00000001 1+9, m-00000002 2")
	equal(t, "event", r.Events[0].Text, "Hardware address 52:54:00:00:00:09 is in this machine too; it stays machine m-00000001's, which is approved")
}

// TestApprovedOnItsOwnDisk: a machine that left the installer and is approved
// comes back with a new key, and says so.
func TestApprovedOnItsOwnDisk(t *testing.T) {
	w := newWorld(t)
	w.must(session("s-1", full(1), machineID(1)))
	w.must(approval(1))
	w.must(BootDecide{Machine: machineID(1), Decision: machine.BootDecision{Kind: machine.BootInstall}})
	r := w.must(session("s-2", full(1), "m-9"))
	equal(t, "event", r.Events[1].Text, "The machine restarted before its install began, and its installer has a new key; it is here now and must be approved again")
	again := approval(1)
	again.Session, again.Intent, again.NodeKey = "s-2", "i-2", bytes32("again")
	w.must(again)
}

func TestCutOff(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(*world)
		next    machine.Inventory
		want    CutOff
		is      bool
	}{
		"never approved":    {func(w *world) { w.waiting(1) }, inventory(1), CutOff{}, false},
		"not begun":         {func(w *world) { w.approved(1) }, inventory(1), CutOff{Same: true}, true},
		"writing":           {func(w *world) { w.claimed(1) }, full(1), CutOff{Same: true, Writing: true, Disk: disk(1).Exact(), Name: "node-1"}, true},
		"another interface": {func(w *world) { w.claimed(1) }, nics(1, 1, 2), CutOff{Writing: true, Disk: disk(1).Exact(), Name: "node-1"}, true},
		"another serial": {func(w *world) { w.claimed(1) }, with(inventory(1), func(i *machine.Inventory) { i.Serial = "X" }),
			CutOff{Writing: true, Disk: disk(1).Exact(), Name: "node-1"}, true},
		"no UUID":     {func(w *world) { w.claimed(1) }, with(inventory(1), func(i *machine.Inventory) { i.UUID = "" }), CutOff{Writing: true, Disk: disk(1).Exact(), Name: "node-1"}, true},
		"by a person": {func(w *world) { w.claimed(1); w.must(IntentRevoke{Intent: "i-1"}) }, inventory(1), CutOff{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			c.prepare(w)
			w.now = w.now.Add(takeoverSilence)
			w.must(session("s-2", c.next, "m-9"))
			got, is := w.view().CutOff(machineID(1))
			if got != c.want || is != c.is {
				t.Errorf("%+v %v, want %+v %v", got, is, c.want, c.is)
			}
		})
	}
}

// TestListEntryIsUsedOnce: also when the machine is forgotten.
func TestListEntryIsUsedOnce(t *testing.T) {
	w := newWorld(t)
	entry := machine.ListedMachine{MAC: mac(1), Approve: true}
	w.must(SiteApply{Site: machine.Site{Version: 1, Machines: []machine.ListedMachine{entry}}})
	w.claimed(1)
	if _, used := w.view().ListUsed(entry); used {
		t.Error("used before the install ended")
	}
	w.must(installReport(1, 1, wire.StepReboot, wire.StepDone, "", 0, 0))
	w.must(nodeReport(1, "boot", 1, wire.NodeBooted))
	w.must(BootstrapClaim{Machine: machineID(1)})
	w.must(nodeReport(1, "boot", 2, wire.NodeJoined))
	w.must(MachineForget{Machine: machineID(1)})
	if by, used := w.view().ListUsed(entry); !used || by != machineID(1) {
		t.Errorf("used %v, by %s", used, by)
	}
	if _, used := w.view().ListUsed(machine.ListedMachine{MAC: mac(2)}); used {
		t.Error("another entry is used")
	}
}

func TestInventoryIsBounded(t *testing.T) {
	long := strings.Repeat("<", 3000)
	i := inventory(1)
	i.Product, i.CPU.Model, i.Disks[0].Model, i.NICs[0].Driver = long, long, long, long
	w := newWorld(t)
	w.must(session("s-1", i, machineID(1)))
	for what, got := range map[string]string{
		"product": w.machine(machineID(1)).Inventory.Product, "CPU": w.machine(machineID(1)).Inventory.CPU.Model,
		"disk": w.machine(machineID(1)).Inventory.Disks[0].Model, "driver": w.machine(machineID(1)).Inventory.NICs[0].Driver,
	} {
		equal(t, what, len(got), maxField+len("…"))
	}
	d := disk(2)
	d.Model = strings.Repeat("m", 200)
	for range 120 {
		i.Disks = append(i.Disks, d)
	}
	w.must(session("s-2", i, "m-9"))
	equal(t, "many disks", len(w.machine(machineID(1)).Inventory.Disks), 121)
	row, err := json.Marshal(w.view().t.machine(machineID(1)))
	if err != nil || len(row) > 64<<10 {
		t.Errorf("the row has %d bytes, %v", len(row), err)
	}
	for range 600 {
		i.Disks = append(i.Disks, d)
	}
	if text := w.refused(session("s-3", i, "m-9")); !strings.Contains(text, "721 disks takes more than 48 KiB") {
		t.Error(text)
	}
}

func TestForget(t *testing.T) {
	w := newWorld(t)
	w.waiting(1)
	a := approval(1)
	a.Profile = machine.Profile{Name: "worker", Role: machine.RoleWorker}
	w.must(a)
	w.must(lease(100, mac(1), start, time.Hour))
	w.must(OutputStore{Chunk: machine.Chunk{Machine: machineID(1), Stream: "s-1", First: 1, Last: 3, Digest: digestOf("lines"), Size: 30}})
	w.must(IntentRevoke{Intent: "i-1"})
	w.must(MachineForget{Machine: machineID(1)})
	v := w.view()
	_, machineKept := v.Machine(machineID(1))
	secretKept := first[secretRow](v.t, tableSecrets, byID, key(NodeSecret(machineID(1)))) != nil
	_, intentKept := v.Intent("i-1")
	l, _ := v.Lease(address(100))
	if machineKept || secretKept || intentKept || l.Machine != "" || len(v.Chunks(machineID(1), 0, 0)) != 0 {
		t.Errorf("left of a forgotten machine: record %v, secret %v, intent %v, lease of %q", machineKept, secretKept, intentKept, l.Machine)
	}
	w.must(see(2, 1, uuid(1)))
	equal(t, "seen again", describe(w), "m-00000002 1")
}
