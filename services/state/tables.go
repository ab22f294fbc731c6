package state

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/hashicorp/go-memdb"

	"github.com/rackseed/rackseed/services/machine"
)

// tables reads one state of all tables. Rows that it returns are shared: they
// are copied before anything in them changes.
type tables struct {
	txn *memdb.Txn
}

// The errors of memdb's reads are misspelt tables or indexes: mistakes of this
// package that its tests meet, not of any input.
func must[T any](v T, err error) T {
	if err != nil {
		panic(fmt.Errorf("state: reading a table: %w", err))
	}
	return v
}

// first is the row with that key, or nil.
func first[T any](t tables, table, index string, key []byte) *T {
	if len(key) == 0 {
		return nil
	}
	row, _ := must(t.txn.First(table, index, key)).(*T)
	return row
}

// last is the last row whose key begins with prefix, or nil.
func last[T any](t tables, table, index string, prefix []byte) *T {
	row, _ := must(t.txn.Last(table, index+"_prefix", prefix)).(*T)
	return row
}

// each calls f with the rows from key on, in the index's order, until it
// returns false. A nil key begins at the first row.
func each[T any](t tables, table, index string, from []byte, f func(*T) bool) {
	var rows memdb.ResultIterator
	if from == nil {
		rows = must(t.txn.Get(table, index))
	} else {
		rows = must(t.txn.LowerBound(table, index, from))
	}
	for row := rows.Next(); row != nil; row = rows.Next() {
		if r, ok := row.(*T); !ok || !f(r) {
			return
		}
	}
}

// under calls f with the rows whose key begins with prefix, until it returns
// false.
func under[T any](t tables, table, index string, prefix []byte, f func(*T) bool) {
	rows := must(t.txn.Get(table, index+"_prefix", prefix))
	for row := rows.Next(); row != nil; row = rows.Next() {
		if r, ok := row.(*T); !ok || !f(r) {
			return
		}
	}
}

func (t tables) cluster() clusterRow {
	if r := first[clusterRow](t, tableCluster, byID, []byte{0}); r != nil {
		return *r
	}
	return clusterRow{Cluster: Cluster{FeatureLevel: firstFeatureLevel}}
}

func (t tables) site() *machine.Site {
	if r := first[siteRow](t, tableSite, byID, []byte{0}); r != nil {
		return &r.Site
	}
	return nil
}

func (t tables) machine(id machine.ID) *machineRow {
	return first[machineRow](t, tableMachines, byID, key(id))
}

func (t tables) machineByMAC(m machine.MAC) *machineRow {
	return first[machineRow](t, tableMachines, byMAC, optional(string(m)))
}

func (t tables) machineByUUID(u string) *machineRow {
	return first[machineRow](t, tableMachines, byUUID, optional(u))
}

func (t tables) machineByName(n string) *machineRow {
	return first[machineRow](t, tableMachines, byName, optional(n))
}

func (t tables) machineByAddress(a netip.Addr) *machineRow {
	return first[machineRow](t, tableMachines, byAddress, addressKey(a))
}

func (t tables) machineBySignKey(k []byte) *machineRow {
	return first[machineRow](t, tableMachines, bySignKey, optional(string(k)))
}

func (t tables) machineByNodeKey(k []byte) *machineRow {
	return first[machineRow](t, tableMachines, byNodeKey, optional(string(k)))
}

func (t tables) intent(id string) *intentRow {
	return first[intentRow](t, tableIntents, byID, key(id))
}

// intents are a machine's, in the order of opening.
func (t tables) intents(of machine.ID) (out []*intentRow) {
	under(t, tableIntents, byMachine, key(of), func(r *intentRow) bool {
		out = append(out, r)
		return true
	})
	return out
}

// install is the machine's newest install intent, or nil.
func (t tables) install(of machine.ID) *intentRow { return t.newest(of, machine.IntentInstall) }

// newest is the machine's newest intent of a kind, or nil.
func (t tables) newest(of machine.ID, kind machine.IntentKind) (newest *intentRow) {
	for _, r := range t.intents(of) {
		if r.Intent.Kind == kind {
			newest = r
		}
	}
	return newest
}

// orders are what is ordered for a machine.
func (t tables) orders(of machine.ID) machine.Orders {
	return machine.Orders{
		Install: theIntent(t.install(of)), Join: theIntent(t.newest(of, machine.IntentJoin)),
		Rescue: theIntent(t.newest(of, machine.IntentRescue)), Bootstrap: theIntent(t.bootstrap()),
	}
}

// window says whether the discovery window is open at a time, and until when it
// is; zero: for ever.
func (t tables) window(at time.Time) (open bool, until time.Time) {
	if s := t.site(); s != nil && s.Discovery.Always {
		return true, time.Time{}
	}
	until = t.cluster().Discovery
	return until.After(at), until
}

// circumstances are what the boot decision of a machine depends on.
func (t tables) circumstances(m machine.Machine, at time.Time) machine.Circumstances {
	c := machine.Circumstances{Now: at}
	c.Window, _ = t.window(at)
	c.Opened = t.cluster().Opened
	if s := t.site(); s != nil {
		_, c.Listed = s.Listed(m)
	}
	if m.ID != "" {
		c.Rescue = theIntent(t.newest(m.ID, machine.IntentRescue))
	}
	return c
}

// bootstrap is the one bootstrap intent, or nil: those that were revoked before
// anybody used them do not count. It is never dropped.
func (t tables) bootstrap() (found *intentRow) {
	each(t, tableIntents, byOrder, nil, func(r *intentRow) bool {
		if r.Intent.Kind == machine.IntentBootstrap && r.Intent.Status != machine.IntentRevoked {
			found = r
		}
		return found == nil
	})
	return found
}

// endedBootstrap is the newest bootstrap intent that was revoked or abandoned, or
// nil. It is forgotten with its machine, unless that was abandoned.
func (t tables) endedBootstrap() (found *intentRow) {
	each(t, tableIntents, byOrder, nil, func(r *intentRow) bool {
		if r.Intent.Kind == machine.IntentBootstrap && r.Intent.Status == machine.IntentRevoked {
			found = r
		}
		return true
	})
	return found
}

func (t tables) nextOrder() uint64 {
	if r := last[intentRow](t, tableIntents, byOrder, nil); r != nil {
		return r.Order + 1
	}
	return 1
}

func (t tables) lease(a netip.Addr) *machine.Lease {
	return first[machine.Lease](t, tableLeases, byID, addressKey(a))
}

func (t tables) leaseByMAC(m machine.MAC) *machine.Lease {
	return first[machine.Lease](t, tableLeases, byMAC, optional(string(m)))
}

func (t tables) leasesOf(id machine.ID) (out []*machine.Lease) {
	under(t, tableLeases, byMachine, key(id), func(r *machine.Lease) bool {
		out = append(out, r)
		return true
	})
	return out
}

func (t tables) lastEvent() uint64 {
	if r := last[machine.Event](t, tableEvents, byID, nil); r != nil {
		return r.Seq
	}
	return 0
}

// lastChunk is the machine's newest chunk, or nil.
func (t tables) lastChunk(of machine.ID) *machine.Chunk {
	return last[machine.Chunk](t, tableChunks, byID, key(of))
}

// nextLine is the number of the line that is expected next on a stream.
func (t tables) nextLine(of machine.ID, stream string) uint64 {
	if r := last[machine.Chunk](t, tableChunks, byStream, append(key(of), key(stream)...)); r != nil {
		return r.Last + 1
	}
	return 1
}
