package state

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/machine"
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

func TestFloodOfPackets(t *testing.T) {
	w := newWorld(t)
	w.waiting(1)
	w.must(see(2, 2, ""))
	w.fsm.machines = maxMachines // as if
	w.must(see(3, 3, ""))
	equal(t, "machines", describe(w), "m-00000001 1, m-00000003 3")
	w.must(session("s-3", nics(3, 3), "m-unused"))
	if text := w.refused(see(4, 4, "")); !strings.Contains(text, "forget some") {
		t.Errorf("refused with %q", text)
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
	_, secretKept := v.Secret("node/" + string(machineID(1)))
	_, intentKept := v.Intent("i-1")
	l, _ := v.Lease(address(100))
	if machineKept || secretKept || intentKept || l.Machine != "" || len(v.Chunks(machineID(1), 0, 0)) != 0 {
		t.Errorf("left of a forgotten machine: record %v, secret %v, intent %v, lease of %q", machineKept, secretKept, intentKept, l.Machine)
	}
	w.must(see(2, 1, uuid(1)))
	equal(t, "seen again", describe(w), "m-00000002 1")
}
