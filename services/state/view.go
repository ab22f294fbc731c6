package state

import (
	"cmp"
	"crypto/subtle"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/rackseed/rackseed/services/keyring"
	"github.com/rackseed/rackseed/services/machine"
)

// View is the state at one moment. It never changes and reading it never
// blocks. What it returns is shared with all readers: slices, maps and what
// pointers lead to are read, never written.
type View struct {
	t    tables
	v    *version
	hub  *hub
	keys *keyring.Ring
}

func (f *fsm) view() View {
	v := f.current.Load()
	return View{t: tables{txn: v.txn}, v: v, hub: f.hub, keys: f.keys}
}

// Index is the last log entry that the view holds.
func (v View) Index() uint64 { return v.v.index }

// Hash is the SHA-256 of the whole state, in hex: replicas at the same Index
// have the same.
func (v View) Hash() (string, error) { return hash(v.v.txn) }

// Site is the site file in force.
func (v View) Site() (machine.Site, bool) {
	if s := v.t.site(); s != nil {
		return *s, true
	}
	return machine.Site{}, false
}

// Cluster is the cluster's identity; false before ClusterCreate, when only
// Epoch and FeatureLevel mean something.
func (v View) Cluster() (Cluster, bool) {
	r := v.t.cluster()
	return r.Cluster, r.Created
}

func theMachine(r *machineRow) (machine.Machine, bool) {
	if r == nil {
		return machine.Machine{}, false
	}
	return r.Machine, true
}

// Machine is the machine with that ID.
func (v View) Machine(id machine.ID) (machine.Machine, bool) { return theMachine(v.t.machine(id)) }

// MachineByMAC is the machine that was seen with that address.
func (v View) MachineByMAC(m machine.MAC) (machine.Machine, bool) {
	return theMachine(v.t.machineByMAC(m))
}

// MachineByUUID is the machine with that SMBIOS UUID.
func (v View) MachineByUUID(u string) (machine.Machine, bool) {
	return theMachine(v.t.machineByUUID(machine.ParseUUID(u)))
}

// MachineBySignKey is the machine whose newest installer session has that key.
func (v View) MachineBySignKey(k []byte) (machine.Machine, bool) {
	return theMachine(v.t.machineBySignKey(k))
}

// MachineByNodeKey is the machine whose installed system signs by that key.
func (v View) MachineByNodeKey(k []byte) (machine.Machine, bool) {
	return theMachine(v.t.machineByNodeKey(k))
}

// FindMachine finds a machine by what a person would call it: ID, name, a
// hardware address, UUID, or serial number.
func (v View) FindMachine(word string) (machine.Machine, error) {
	word = strings.TrimSpace(word)
	if word == "" {
		return machine.Machine{}, fmt.Errorf("which machine? Name it by ID, name, hardware address, UUID or serial number")
	}
	if m, ok := v.Machine(machine.ID(word)); ok {
		return m, nil
	}
	if m, ok := theMachine(v.t.machineByName(strings.ToLower(word))); ok {
		return m, nil
	}
	if mac, err := machine.ParseMAC(word); err == nil {
		if m, ok := v.MachineByMAC(mac); ok {
			return m, nil
		}
	}
	if m, ok := v.MachineByUUID(word); ok {
		return m, nil
	}
	var found []machine.Machine
	for _, m := range v.Machines() {
		if m.Inventory != nil && strings.EqualFold(m.Inventory.Serial, word) {
			found = append(found, m)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return machine.Machine{}, fmt.Errorf("no machine is known by %q: not as ID, name, hardware address, UUID or serial number", word)
	}
	return machine.Machine{}, fmt.Errorf("%d machines have the serial number %q, among them %s and %s: name it by ID", len(found), word, found[0].ID, found[1].ID)
}

// Machines are all machines, first seen first.
func (v View) Machines() (out []machine.Machine) {
	each(v.t, tableMachines, byID, nil, func(r *machineRow) bool {
		out = append(out, r.Machine)
		return true
	})
	slices.SortFunc(out, func(a, b machine.Machine) int {
		return cmp.Or(a.FirstSeen.Compare(b.FirstSeen), cmp.Compare(a.ID, b.ID))
	})
	return out
}

// Intent is the intent with that ID.
func (v View) Intent(id string) (machine.Intent, bool) {
	if r := v.t.intent(id); r != nil {
		return r.Intent, true
	}
	return machine.Intent{}, false
}

// Circumstances are what the next boot of a machine depends on at a time.
func (v View) Circumstances(m machine.Machine, now time.Time) machine.Circumstances {
	return v.t.circumstances(m, now)
}

// Discovery says whether the discovery window is open at a time, and when it
// closes; zero: never, or it is closed.
func (v View) Discovery(now time.Time) (open bool, until time.Time) {
	if open, until = v.t.window(now); !open {
		until = time.Time{}
	}
	return open, until
}

// RescueIntent is the machine's newest rescue intent, or nil.
func (v View) RescueIntent(of machine.ID) *machine.Intent {
	return theIntent(v.t.newest(of, machine.IntentRescue))
}

// JoinIntent is the machine's join intent, or nil.
func (v View) JoinIntent(of machine.ID) *machine.Intent {
	return theIntent(v.t.newest(of, machine.IntentJoin))
}

// Joining is the control plane that joins at a time and keeps others from it,
// or "".
func (v View) Joining(now time.Time) machine.ID { return v.t.joining(now) }

// Boot is what a machine was told to boot last.
type Boot struct {
	Kind    machine.BootKind // "" if it was told nothing yet
	Decided time.Time
	Fetched time.Time // when it fetched the installer's kernel since; zero: it did not
	Silent  bool      // that it was silent since was told
}

// Boot is what the machine was told to boot last.
func (v View) Boot(of machine.ID) Boot {
	if r := v.t.machine(of); r != nil {
		return Boot{r.Told, r.ToldAt, r.Fetched, r.Silent}
	}
	return Boot{}
}

// InstallIntent is the machine's newest install intent, or nil.
func (v View) InstallIntent(of machine.ID) *machine.Intent { return theIntent(v.t.install(of)) }

// CutOff is how an install ended because its machine restarted.
type CutOff struct {
	Writing bool // it had begun to write
	Same    bool // what is there now reported the hardware that was approved
	// Disk is the one that it was permitted to write, as the node of that Name;
	// empty: none yet.
	Disk machine.DiskHint
	Name string
}

// CutOff says whether the machine's newest install was cut off by a restart,
// and how.
func (v View) CutOff(of machine.ID) (CutOff, bool) {
	r, m := v.t.install(of), v.t.machine(of)
	if r == nil || m == nil || !r.CutOff {
		return CutOff{}, false
	}
	return CutOff{
		Writing: r.Claimed != nil, Same: m.Machine.Inventory != nil && r.Hardware == fingerprint(*m.Machine.Inventory), Disk: r.Wrote, Name: r.WroteAs,
	}, true
}

// HalfWritten is the disk that the machine's newest install wrote in part before
// it was revoked, if the machine did not restart since: what its installer told
// of that disk is no longer so.
func (v View) HalfWritten(of machine.ID) (machine.DiskHint, bool) {
	r := v.t.machine(of)
	if r == nil {
		return machine.DiskHint{}, false
	}
	half := v.t.halfWritten(r)
	if half == nil {
		return machine.DiskHint{}, false
	}
	return half.Wrote, true
}

// ListUsed is the machine that was installed as that entry of the site file's
// list; it may be forgotten since.
func (v View) ListUsed(l machine.ListedMachine) (machine.ID, bool) {
	if r := first[listedRow](v.t, tableListed, byID, key(l.Key())); r != nil {
		return r.Machine, true
	}
	return "", false
}

// Bootstrap is the one bootstrap intent, or nil while none is there: not
// opened yet, or revoked before it was claimed.
func (v View) Bootstrap() *machine.Intent { return theIntent(v.t.bootstrap()) }

// EndedBootstrap is the newest order to start the cluster that was taken back, or
// whose cluster was abandoned; nil if there is none.
func (v View) EndedBootstrap() *machine.Intent { return theIntent(v.t.endedBootstrap()) }

// NoAbandon says why what was begun of a cluster cannot be given up; "": it can.
func (v View) NoAbandon() string { return v.t.noAbandon() }

func theIntent(r *intentRow) *machine.Intent {
	if r == nil {
		return nil
	}
	i := r.Intent
	return &i
}

// Profile is the machine's profile as it was at its approval.
func (v View) Profile(id machine.ID) (machine.Profile, bool) {
	if r := v.t.machine(id); r != nil && r.Profile != nil {
		return *r.Profile, true
	}
	return machine.Profile{}, false
}

func theLease(l *machine.Lease) (machine.Lease, bool) {
	if l == nil {
		return machine.Lease{}, false
	}
	return *l, true
}

// Lease is the lease of an address, also one that has run out or is declined.
func (v View) Lease(a netip.Addr) (machine.Lease, bool) { return theLease(v.t.lease(a)) }

// LeaseByMAC is the lease that a client has, or had last.
func (v View) LeaseByMAC(m machine.MAC) (machine.Lease, bool) { return theLease(v.t.leaseByMAC(m)) }

// Leases are all leases by address, also those that have run out.
func (v View) Leases() (out []machine.Lease) {
	each(v.t, tableLeases, byID, nil, func(l *machine.Lease) bool {
		out = append(out, *l)
		return true
	})
	return out
}

// Events are those with a number above after, of one machine or of all (""),
// at most limit of them (0 and below: all).
func (v View) Events(after uint64, of machine.ID, limit int) (out []machine.Event) {
	index, from := byID, number(after+1)
	if of != "" {
		index, from = byMachine, append(key(of), from...)
	}
	each(v.t, tableEvents, index, from, func(e *machine.Event) bool {
		if of != "" && e.Machine != of {
			return false
		}
		out = append(out, *e)
		return limit <= 0 || len(out) < limit
	})
	return out
}

// LastEvent is the number of the newest event; 0 while there is none.
func (v View) LastEvent() uint64 { return v.t.lastEvent() }

// Chunks are a machine's chunks of output with a Seq above afterSeq, at most
// limit of them (0 and below: all). A chunk may begin with lines that the one
// before it ended with: a reader goes on from the line that it wants.
func (v View) Chunks(of machine.ID, afterSeq uint64, limit int) (out []machine.Chunk) {
	each(v.t, tableChunks, byID, append(key(of), number(afterSeq+1)...), func(c *machine.Chunk) bool {
		if c.Machine != of {
			return false
		}
		out = append(out, *c)
		return limit <= 0 || len(out) < limit
	})
	return out
}

// NextLine is the number of the line that is expected next on a stream.
func (v View) NextLine(of machine.ID, stream string) uint64 { return v.t.nextLine(of, stream) }

// Image is the artifact published under a reference.
func (v View) Image(ref string) (machine.Image, bool) {
	if i := first[machine.Image](v.t, tableImages, byID, key(ref)); i != nil {
		return *i, true
	}
	return machine.Image{}, false
}

// Images are all published artifacts, by reference.
func (v View) Images() (out []machine.Image) {
	each(v.t, tableImages, byID, nil, func(i *machine.Image) bool {
		out = append(out, *i)
		return true
	})
	return out
}

// User is the person of that name.
func (v View) User(name string) (User, bool) {
	if u := first[User](v.t, tableUsers, byID, key(name)); u != nil {
		return *u, true
	}
	return User{}, false
}

// Leader is the server ID of the replica that the present epoch is of.
func (v View) Leader() string { return v.t.cluster().Leader }

// OpensSetup says whether the code with that hash is the setup code, and was not
// used.
func (v View) OpensSetup(hash []byte) bool {
	c := v.t.cluster()
	return !c.SetupUsed && len(c.SetupHash) > 0 && subtle.ConstantTimeCompare(c.SetupHash, hash) == 1
}

// Login is the session of a bearer token, by its SHA-256. The caller checks
// Expires.
func (v View) Login(tokenHash []byte) (Login, bool) {
	if l := first[Login](v.t, tableLogins, byID, tokenHash); l != nil {
		return *l, true
	}
	return Login{}, false
}

// Changed returns a channel that is closed when one of the named tables
// differs from this view; none named: any of them. A name that is no table's
// is a mistake of the caller, and panics.
func (v View) Changed(names ...string) <-chan struct{} {
	var set tableSet
	for _, n := range names {
		bit, ok := tableBit[n]
		if !ok {
			panic(fmt.Sprintf("state: there is no table %q to watch", n))
		}
		set |= bit
		if n == tableCluster {
			set |= tableBit[tableSecrets] | tableBit[tableKeyring]
		}
	}
	if len(names) == 0 {
		set = allTables
	}
	return v.hub.wait(set, v.v.count)
}
