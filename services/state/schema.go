package state

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"reflect"
	"time"

	"github.com/hashicorp/go-memdb"

	"github.com/rackseed/rackseed/services/machine"
)

// The tables' names: what View.Changed takes.
const (
	tableSite        = "site"
	tableCluster     = "cluster"
	tableSecrets     = "secrets"
	tableMachines    = "machines"
	tableIntents     = "intents"
	tableLeases      = "leases"
	tableEvents      = "events"
	tableChunks      = "chunks"
	tableImages      = "images"
	tableUsers       = "users"
	tableLogins      = "logins"
	tableListed      = "listed"
	tableReplicas    = "replicas"
	tableInvitations = "invitations"
	tableHandoff     = "handoff"
	tableRollout     = "rollout"
	tableKeyring     = "keyring"
)

// Index names; "id" is what memdb calls a primary key.
const (
	byID      = "id"
	byMAC     = "mac"
	byUUID    = "uuid"
	byName    = "name"
	byAddress = "address"
	bySignKey = "signkey"
	byNodeKey = "nodekey"
	bySilence = "silence"
	byMachine = "machine"
	byOrder   = "order"
	byStream  = "stream"
	byExpiry  = "expiry"
	byUser    = "user"
)

// tableInfo describes one table: how it is indexed, and how its rows come
// back from a snapshot.
type tableInfo struct {
	name    string
	schema  *memdb.TableSchema
	row     reflect.Type // of a row; fields.golden holds its fields
	decode  func([]byte) (any, error)
	primary func(any) []byte
}

// catalog lists the tables in the order of a snapshot.
var catalog = []tableInfo{
	newTable(tableCluster, func(*clusterRow) []byte { return []byte{0} }),
	newTable(tableSite, func(*siteRow) []byte { return []byte{0} }),
	newTable(tableSecrets, func(r *secretRow) []byte { return key(r.Name) }),
	newTable(tableImages, func(r *machine.Image) []byte { return key(r.Ref) }),
	newTable(tableUsers, func(r *User) []byte { return key(r.Name) }),
	newTable(tableLogins, func(r *Login) []byte { return r.TokenHash },
		one(byExpiry, func(r *Login) []byte { return timeKey(r.Expires) }),
		one(byUser, func(r *Login) []byte { return key(r.User) })),
	newTable(tableListed, func(r *listedRow) []byte { return key(r.Entry) }),
	newTable(tableReplicas, func(r *machine.Replica) []byte { return key(r.ID) }),
	newTable(tableInvitations, func(r *invitationRow) []byte { return r.TokenHash }),
	newTable(tableHandoff, func(*machine.Handoff) []byte { return []byte{0} }),
	newTable(tableRollout, func(*machine.Rollout) []byte { return []byte{0} }),
	newTable(tableKeyring, func(*Keyring) []byte { return []byte{0} }),
	newTable(tableMachines, func(r *machineRow) []byte { return key(r.Machine.ID) },
		many(byMAC, func(r *machineRow) [][]byte {
			out := make([][]byte, len(r.Machine.MACs))
			for i, m := range r.Machine.MACs {
				out[i] = key(m)
			}
			return out
		}),
		one(byUUID, func(r *machineRow) []byte { return optional(r.Machine.UUID) }),
		one(byName, func(r *machineRow) []byte { return optional(r.Machine.Name) }),
		one(byAddress, func(r *machineRow) []byte { return addressKey(r.Machine.Address) }),
		one(bySignKey, func(r *machineRow) []byte {
			if r.Machine.Session == nil {
				return nil
			}
			return optional(string(r.Machine.Session.SignKey))
		}),
		one(byNodeKey, func(r *machineRow) []byte { return optional(string(r.Machine.NodeKey)) }),
		// Only those that nobody ever approved: what a flood makes. First those
		// that nobody looked at, which are known by packets alone.
		one(bySilence, func(r *machineRow) []byte {
			switch {
			case r.approved():
				return nil
			case r.Machine.Inventory == nil:
				return append([]byte{0}, timeKey(r.Machine.LastSeen)...)
			}
			return append([]byte{1}, timeKey(r.Machine.LastSeen)...)
		})),
	newTable(tableIntents, func(r *intentRow) []byte { return key(r.Intent.ID) },
		one(byOrder, func(r *intentRow) []byte { return number(r.Order) }),
		one(byMachine, func(r *intentRow) []byte { return append(key(r.Intent.Machine), number(r.Order)...) })),
	newTable(tableLeases, func(r *machine.Lease) []byte { return addressKey(r.Address) },
		one(byMAC, func(r *machine.Lease) []byte {
			if r.Declined { // its address is nobody's
				return nil
			}
			return key(r.MAC)
		}),
		one(byMachine, func(r *machine.Lease) []byte { return optional(string(r.Machine)) }),
		one(byExpiry, func(r *machine.Lease) []byte { return timeKey(r.Expires) })),
	newTable(tableChunks, func(r *machine.Chunk) []byte { return append(key(r.Machine), number(r.Seq)...) },
		one(byStream, func(r *machine.Chunk) []byte {
			return append(append(key(r.Machine), key(r.Stream)...), number(r.Last)...)
		})),
	newTable(tableEvents, func(r *machine.Event) []byte { return number(r.Seq) },
		one(byMachine, func(r *machine.Event) []byte {
			if r.Machine == "" {
				return nil
			}
			return append(key(r.Machine), number(r.Seq)...)
		})),
}

// tableBit gives each table its bit in a set of tables.
var tableBit = func() map[string]tableSet {
	m := make(map[string]tableSet, len(catalog))
	for i, t := range catalog {
		m[t.name] = 1 << i
	}
	return m
}()

// tableSet is a set of tables.
type tableSet uint32

var allTables = tableSet(1<<len(catalog) - 1)

func newTable[T any](name string, primary func(*T) []byte, indexes ...*memdb.IndexSchema) tableInfo {
	s := &memdb.TableSchema{Name: name, Indexes: map[string]*memdb.IndexSchema{
		byID: {Name: byID, Unique: true, Indexer: single[T](primary)},
	}}
	for _, x := range indexes {
		s.Indexes[x.Name] = x
	}
	return tableInfo{
		name: name, schema: s, row: reflect.TypeFor[T](),
		primary: func(row any) []byte { return primary(row.(*T)) },
		decode: func(b []byte) (any, error) {
			row := new(T)
			if err := decodeStrict(b, row); err != nil {
				return nil, err
			}
			if len(primary(row)) == 0 {
				return nil, fmt.Errorf("table %s: a row without a key: %.100s", name, b)
			}
			return row, nil
		},
	}
}

func newDatabase() (*memdb.MemDB, error) {
	s := &memdb.DBSchema{Tables: map[string]*memdb.TableSchema{}}
	for _, t := range catalog {
		s.Tables[t.name] = t.schema
	}
	return memdb.NewMemDB(s)
}

// one makes an index over at most one value a row; nil: not in the index.
// Secondary indexes are not unique for memdb (it appends the primary key), so
// that the order in which a change replaces rows does not matter; what must be
// unique is decided before.
func one[T any](name string, of func(*T) []byte) *memdb.IndexSchema {
	return &memdb.IndexSchema{Name: name, AllowMissing: true, Indexer: single[T](of)}
}

func many[T any](name string, of func(*T) [][]byte) *memdb.IndexSchema {
	return &memdb.IndexSchema{Name: name, AllowMissing: true, Indexer: multi[T](of)}
}

type single[T any] func(*T) []byte

func (f single[T]) FromArgs(args ...any) ([]byte, error)       { return bytesArg(args) }
func (f single[T]) PrefixFromArgs(args ...any) ([]byte, error) { return bytesArg(args) }
func (f single[T]) FromObject(row any) (bool, []byte, error) {
	r, ok := row.(*T)
	if !ok {
		return false, nil, fmt.Errorf("a %T is not a row of this table", row)
	}
	v := f(r)
	return len(v) > 0, v, nil
}

type multi[T any] func(*T) [][]byte

func (f multi[T]) FromArgs(args ...any) ([]byte, error)       { return bytesArg(args) }
func (f multi[T]) PrefixFromArgs(args ...any) ([]byte, error) { return bytesArg(args) }
func (f multi[T]) FromObject(row any) (bool, [][]byte, error) {
	r, ok := row.(*T)
	if !ok {
		return false, nil, fmt.Errorf("a %T is not a row of this table", row)
	}
	v := f(r)
	return len(v) > 0, v, nil
}

func bytesArg(args []any) ([]byte, error) {
	if len(args) == 1 {
		if b, ok := args[0].([]byte); ok {
			return b, nil
		}
	}
	return nil, fmt.Errorf("an index is searched by one []byte, not %v", args)
}

// key ends a word so that it is no prefix of a longer one. Binary words (keys)
// have a fixed length, so that a zero byte in them does no harm.
func key[S ~string](s S) []byte { return append([]byte(s), 0) }

func optional(s string) []byte {
	if s == "" {
		return nil
	}
	return key(s)
}

func number(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

func addressKey(a netip.Addr) []byte {
	if !a.IsValid() {
		return nil
	}
	b := a.As16()
	return b[:]
}

// timeKey orders times, also those before 1970.
func timeKey(t time.Time) []byte {
	b := number(uint64(t.Unix()) ^ 1<<63)
	return binary.BigEndian.AppendUint32(b, uint32(t.Nanosecond()))
}

// decodeStrict refuses unknown fields and anything after the value.
func decodeStrict(b []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("data after the value, at byte %d", d.InputOffset())
	}
	return nil
}
