package state

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/rackseed/rackseed/services/keyring"
	"github.com/rackseed/rackseed/services/machine"
)

// start is when every test's story begins.
var start = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// world is a state machine without Raft around it: entries go in, answers come
// out, and what went in is kept for a replay.
type world struct {
	t    fataler
	fsm  *fsm
	now  time.Time
	term uint64
	log  []*raft.Log
	halt error
}

type fataler interface {
	Helper()
	Fatalf(string, ...any)
}

func newWorld(t fataler) *world { return newWorldOf(t, maxEvents) }

func newWorldOf(t fataler, events uint64) *world {
	t.Helper()
	w := &world{t: t, now: start, term: 2}
	var err error
	w.fsm, err = newFSM(events, func(err error) { w.halt = err }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatalf("%v", err)
	}
	w.must(EpochBegin{Leader: "r-1"})
	w.must(DiscoveryWindow{Until: start.Add(29 * 24 * time.Hour)})
	w.now = start.Add(time.Second) // stories are timed from here
	return w
}

// enter puts raw bytes into the log.
func (w *world) enter(data []byte) any {
	l := &raft.Log{Index: uint64(len(w.log)) + 2, Term: w.term, Type: raft.LogCommand, Data: data}
	w.log = append(w.log, l)
	return w.fsm.Apply(l)
}

// try proposes as by, a second after the last command.
func (w *world) try(by string, c Command) (Result, error) {
	w.t.Helper()
	w.now = w.now.Add(time.Second)
	data, err := encode(w.now, by, c)
	if err != nil {
		w.t.Fatalf("encoding: %v", err)
	}
	switch a := w.enter(data).(type) {
	case Result:
		return a, nil
	case error:
		return Result{}, a
	default:
		w.t.Fatalf("answer %T", a)
		return Result{}, nil
	}
}

func (w *world) must(c Command) Result {
	w.t.Helper()
	r, err := w.try("operator:ann", c)
	if err != nil {
		w.t.Fatalf("%s: %v", c.Kind(), err)
	}
	return r
}

// refused proposes what the rules forbid, and returns their words.
func (w *world) refused(c Command) string {
	w.t.Helper()
	before := w.hash()
	_, err := w.try("operator:ann", c)
	var refusal *Refusal
	if !errors.As(err, &refusal) {
		w.t.Fatalf("%s: error %v, a refusal was expected", c.Kind(), err)
	}
	if w.hash() != before {
		w.t.Fatalf("%s: refused, and yet it changed the state", c.Kind())
	}
	return refusal.Text
}

func (w *world) view() View { return w.fsm.view() }

func (w *world) hash() string {
	w.t.Helper()
	h, err := w.view().Hash()
	if err != nil {
		w.t.Fatalf("%v", err)
	}
	return h
}

func (w *world) machine(id machine.ID) machine.Machine {
	w.t.Helper()
	m, ok := w.view().Machine(id)
	if !ok {
		w.t.Fatalf("there is no machine %s", id)
	}
	return m
}

// Things to put into commands; a number makes each its own.

func mac(n int) machine.MAC { return machine.MAC(fmt.Sprintf("52:54:00:00:%02x:%02x", n>>8, n&255)) }

func address(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 77, byte(n >> 8), byte(n)}) }

func bytes32(s string) []byte { h := sha256.Sum256([]byte(s)); return h[:] }

// sealed stands for what was sealed under a data key: the state never opens it.
func sealed(key, value string) keyring.Sealed { return keyring.Sealed{Key: key, Value: []byte(value)} }

func digestOf(s string) string { return "sha256:" + hex.EncodeToString(bytes32(s)) }

func uuid(n int) string { return fmt.Sprintf("aaaaaaaa-0000-4000-8000-%012x", n) }

func inventory(n int) machine.Inventory {
	return machine.Inventory{
		UUID: uuid(n), Manufacturer: "QEMU", Product: "Standard PC", Serial: fmt.Sprintf("SER-%d", n), Firmware: "uefi",
		CPU: machine.CPU{Threads: 2}, MemoryBytes: 4 << 30, BootMAC: mac(n),
		Disks: []machine.Disk{disk(n)}, NICs: []machine.NIC{{Name: "eth0", MAC: mac(n), Carrier: true}},
	}
}

func disk(n int) machine.Disk {
	return machine.Disk{Path: "/dev/vda", Transport: "virtio", Serial: fmt.Sprintf("D%d", n), Bytes: 20 << 30, SectorSize: 512, Contents: "empty"}
}

func session(id string, inv machine.Inventory, newID machine.ID) SessionOpen {
	return SessionOpen{NewID: newID, Inventory: inv, Session: machine.Session{
		ID: id, SignKey: bytes32("sign " + id), SealKey: bytes32("seal " + id), Opened: start,
	}}
}

func lease(n int, m machine.MAC, from time.Time, d time.Duration) LeaseBind {
	return LeaseBind{Lease: machine.Lease{Address: address(n), MAC: m, Bound: from, Expires: from.Add(d)}}
}

// approval of machine n in the session "s-n".
func approval(n int) MachineApprove {
	return MachineApprove{
		Machine: machineID(n), Session: fmt.Sprintf("s-%d", n), Intent: fmt.Sprintf("i-%d", n), Name: fmt.Sprintf("node-%d", n),
		Profile: machine.Profile{Name: "control-plane", Role: machine.RoleControlPlane}, Address: address(1000 + n),
		Image: digestOf("node"), NodeKey: bytes32(fmt.Sprintf("key %d", n)), NodeSeed: sealed("", "seed"), Bootstrap: fmt.Sprintf("b-%d", n),
	}
}

func machineID(n int) machine.ID { return machine.ID(fmt.Sprintf("m-%08x", n)) }

// waiting brings machine n to where it waits for approval; then approved and
// claimed go on.
func (w *world) waiting(n int) {
	w.t.Helper()
	w.must(MachineSee{ID: machineID(n), MAC: mac(n), UUID: uuid(n), Via: "dhcp.discover", Text: "DHCP discover from " + string(mac(n))})
	w.must(session(fmt.Sprintf("s-%d", n), inventory(n), "m-unused"))
}

func (w *world) approved(n int) {
	w.t.Helper()
	w.waiting(n)
	a := approval(n)
	a.NodeSeed.Key = w.view().Keyring().Current
	w.must(a)
}

func (w *world) claimed(n int) {
	w.t.Helper()
	w.approved(n)
	w.must(claim(n))
}

func claim(n int) IntentClaim {
	return IntentClaim{Intent: fmt.Sprintf("i-%d", n), Epoch: 1, Session: fmt.Sprintf("s-%d", n), Disk: disk(n)}
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}
