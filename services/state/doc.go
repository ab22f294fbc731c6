// Package state is the boot service's replicated state: a Raft log of commands,
// a deterministic state machine over immutable tables, snapshots and watches.
//
// A command is decided by a pure function of (tables, command, time, asker)
// that returns a change or a refusal; only a whole change is written. Hence:
//
//   - a refused command changes nothing, on any replica;
//   - a log replayed gives the same state, to the byte (see Store.Hash);
//   - values in the tables are never modified, only replaced, so a View stays
//     as it was taken and may be read without a lock.
//
// Entries that this binary cannot decode stop it (Config.Halt): a replica that
// skips an entry is no replica any more.
package state
