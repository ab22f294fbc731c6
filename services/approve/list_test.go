package approve

import (
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
)

func TestByList(t *testing.T) {
	revoked := func(v *view, session string) {
		v.intents["m-1"] = &machine.Intent{ID: "i-0", Status: machine.IntentRevoked, Session: session, Reason: "wrong disk", Disk: machine.DiskHint{Serial: "A"}}
	}
	cut := func(v *view, c state.CutOff) {
		revoked(v, "s-0")
		v.cut = &c
	}
	on := func(m *machine.Machine, contents string) { m.Inventory.Disks[0].Contents = contents }
	a, b := machine.DiskHint{Serial: "A"}, machine.DiskHint{Serial: "B"}
	for name, c := range map[string]struct {
		change func(*view, *machine.Machine)
		want   string // "": it is approved
		person bool
	}{
		"waiting":                               {func(v *view, m *machine.Machine) {}, "", false},
		"no site":                               {func(v *view, m *machine.Machine) { v.site = nil }, "no valid site file", false},
		"not listed":                            {func(v *view, m *machine.Machine) { m.MACs = []machine.MAC{mac2} }, "not listed", false},
		"without asking":                        {func(v *view, m *machine.Machine) { v.site.Machines[0].Approve = false }, "without approve", false},
		"only seen":                             {func(v *view, m *machine.Machine) { m.Phase, m.Session = machine.PhaseSeen, nil }, "does not wait", false},
		"left":                                  {func(v *view, m *machine.Machine) { m.Phase, m.Session.Left = machine.PhaseSeen, time.Unix(1, 0) }, "does not wait", false},
		"rescue shell":                          {func(v *view, m *machine.Machine) { m.Phase = machine.PhaseRescue }, "does not wait", false},
		"open":                                  {func(v *view, m *machine.Machine) { v.intents["m-1"] = &machine.Intent{Status: machine.IntentOpen} }, "is open", false},
		"failed":                                {func(v *view, m *machine.Machine) { v.intents["m-1"] = &machine.Intent{Status: machine.IntentFailed} }, "is failed", false},
		"done":                                  {func(v *view, m *machine.Machine) { v.intents["m-1"] = &machine.Intent{Status: machine.IntentDone} }, "installed once", false},
		"stopped by an operator":                {func(v *view, m *machine.Machine) { revoked(v, "s-1") }, "wrong disk", false},
		"stopped by an operator, and restarted": {func(v *view, m *machine.Machine) { revoked(v, "s-0") }, "wrong disk", false},
		"no such profile":                       {func(v *view, m *machine.Machine) { v.site.Profiles = v.site.Profiles[:1] }, "no profile of role control-plane", true},
		"the UUID in the other byte order": {func(v *view, m *machine.Machine) {
			v.site.Machines[0] = machine.ListedMachine{UUID: "44454c4c-4200-1035-8052-b4c04f4d3132", Approve: true}
		}, "", false},
		"the MAC moved to another board": {func(v *view, m *machine.Machine) {
			v.site.Machines[0].UUID = "00000000-0000-0000-0000-000000000001"
		}, "is for the machine with UUID 00000000-0000-0000-0000-000000000001, and its own is " + board, true},
		"the MAC moved, and nobody would be asked anyway": {func(v *view, m *machine.Machine) {
			v.site.Machines[0].UUID, v.site.Machines[0].Approve = "00000000-0000-0000-0000-000000000001", false
		}, "not listed", false},

		"its disk is full": {func(v *view, m *machine.Machine) { on(m, ntfs) }, "/dev/sda is not empty (" + ntfs + "): a person must approve", true},
		"the disk cannot be told": {func(v *view, m *machine.Machine) {
			m.Inventory.Disks = append(m.Inventory.Disks, drive("/dev/sdb", "B", machine.Empty))
		}, "2 disks could be installed on", true},
		"another disk is full, which is too small for a node": {func(v *view, m *machine.Machine) {
			windows(m)
			m.Inventory.Disks[1].Bytes = 8 << 30
		}, "/dev/sdb is not empty (" + ntfs + "), and neither the list nor the profile says which disk is meant", true},
		"a stick is full": {func(v *view, m *machine.Machine) {
			windows(m)
			m.Inventory.Disks[1].Transport = "usb"
		}, "", false},
		"its disk is full, the hinted one is not": {func(v *view, m *machine.Machine) {
			windows(m)
			v.site.Machines[0].Disk = a
		}, "", false},
		"its disk is full, the one of its profile is not": {func(v *view, m *machine.Machine) {
			windows(m)
			v.site.Profiles[1].Disk = a
		}, "", false},
		"the hinted disk is full": {func(v *view, m *machine.Machine) {
			windows(m)
			v.site.Machines[0].Disk = b
		}, "/dev/sdb is not empty", true},
		"the hinted disk is not there": {func(v *view, m *machine.Machine) {
			v.site.Machines[0].Disk = b
		}, "no disk has serial number B", true},
		"the entry was used": {func(v *view, m *machine.Machine) {
			v.used = map[string]machine.ID{"mac:" + string(mac1): "m-0"}
		}, "used by machine m-0", true},

		"cut off while writing": {func(v *view, m *machine.Machine) {
			on(m, machine.BrokenOff)
			cut(v, state.CutOff{Writing: true, Same: true, Disk: a})
		}, "", false},
		"cut off while writing, beside a disk that is full": {func(v *view, m *machine.Machine) {
			on(m, machine.BrokenOff)
			windows(m)
			cut(v, state.CutOff{Writing: true, Same: true, Disk: a})
		}, "", false},
		"cut off while writing, and somebody wrote to the disk since": {func(v *view, m *machine.Machine) {
			on(m, ntfs)
			cut(v, state.CutOff{Writing: true, Same: true, Disk: a})
		}, "cut off while it wrote the disk with serial number A, and /dev/sda holds MBR, 1 partition: NTFS (Windows) now", true},
		"cut off while writing, the list names another disk that is full": {func(v *view, m *machine.Machine) {
			windows(m)
			v.site.Machines[0].Disk = b
			cut(v, state.CutOff{Writing: true, Same: true, Disk: a})
		}, "cut off while it wrote the disk with serial number A, and the one to install on is /dev/sdb now", true},
		"cut off while writing, the list names another disk that is empty": {func(v *view, m *machine.Machine) {
			windows(m)
			m.Inventory.Disks[1].Contents = machine.Empty
			v.site.Machines[0].Disk = b
			cut(v, state.CutOff{Writing: true, Same: true, Disk: a})
		}, "cut off while it wrote the disk with serial number A", true},
		"cut off while writing, and that disk is gone": {func(v *view, m *machine.Machine) {
			m.Inventory.Disks = nil
			windows(m)
			cut(v, state.CutOff{Writing: true, Same: true, Disk: a})
		}, "cut off while it wrote the disk with serial number A, and the one to install on is /dev/sdb now", true},
		"cut off while writing, and the entry was used": {func(v *view, m *machine.Machine) {
			cut(v, state.CutOff{Writing: true, Same: true, Disk: a})
			v.used = map[string]machine.ID{"mac:" + string(mac1): "m-0"}
		}, "used by machine m-0", true},
		"cut off, other hardware": {func(v *view, m *machine.Machine) {
			cut(v, state.CutOff{Writing: true, Disk: a})
		}, "reports another UUID", true},
		"cut off before it wrote": {func(v *view, m *machine.Machine) {
			cut(v, state.CutOff{Same: true})
		}, "", false},
		"cut off before it wrote, its disk is full": {func(v *view, m *machine.Machine) {
			on(m, ntfs)
			cut(v, state.CutOff{Same: true})
		}, "is not empty", true},
	} {
		t.Run(name, func(t *testing.T) {
			v, m := lab()
			v.site.Machines = []machine.ListedMachine{{MAC: mac1, Approve: true}}
			c.change(&v, &m)
			v.machines[0] = m
			got := ByList(v, m)
			if got.Approve != (c.want == "") || got.Person != c.person || !strings.Contains(got.Reason, c.want) {
				t.Errorf("%+v; want %q, by a person: %v", got, c.want, c.person)
			}
			if !got.Approve {
				return
			}
			// The list gives no word about what may be lost: the decision
			// must do without.
			command, err := Decide(v, m, Wish{}, fresh)
			if err != nil {
				t.Fatalf("the list approves it, and yet: %v", err)
			}
			if erased := v.cut != nil && v.cut.Writing; (command.Erase != "") != erased {
				t.Errorf("it erases %q", command.Erase)
			}
		})
	}
}
