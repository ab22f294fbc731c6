package state

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/go-memdb"
	"github.com/hashicorp/raft"
)

// A snapshot is lines of JSON: a header, every row of every table in the
// catalog's order and by key, and an end that counts the rows. It has no
// choices, so equal states give equal bytes. Golden files hold the format.

const (
	snapshotFormat  = "rackseed-state"
	snapshotVersion = 1
	maxSnapshotLine = 64 << 20 // bytes; a row is far smaller
)

type snapshotHeader struct {
	Format string `json:"format"`
	V      int    `json:"v"`
	// Index is the last log entry that is in it; it is no part of the hash.
	Index uint64 `json:"index,omitempty"`
}

type snapshotRow struct {
	Table string          `json:"table,omitempty"`
	Row   json.RawMessage `json:"row,omitempty"`
	End   *int            `json:"end,omitempty"` // the number of rows
}

// snapshot is one immutable version, on its way to disk.
type snapshot struct{ *version }

// Persist writes the snapshot to Raft's sink.
func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if err := writeSnapshot(sink, s.txn, s.index); err != nil {
		return errors.Join(fmt.Errorf("writing snapshot %s: %w", sink.ID(), err), sink.Cancel())
	}
	return sink.Close()
}

// Release has nothing to release: the garbage collector has the version.
func (s snapshot) Release() {}

func writeSnapshot(to io.Writer, txn *memdb.Txn, index uint64) error {
	w := bufio.NewWriterSize(to, 1<<16)
	lines := json.NewEncoder(w)
	if err := lines.Encode(snapshotHeader{snapshotFormat, snapshotVersion, index}); err != nil {
		return err
	}
	rows := 0
	for _, t := range catalog {
		all, err := txn.Get(t.name, byID)
		if err != nil {
			return err
		}
		for value := all.Next(); value != nil; value = all.Next() {
			data, err := json.Marshal(value)
			if err != nil {
				return fmt.Errorf("table %s: %w", t.name, err)
			}
			if err := lines.Encode(snapshotRow{Table: t.name, Row: data}); err != nil {
				return err
			}
			rows++
		}
	}
	if err := lines.Encode(snapshotRow{End: &rows}); err != nil {
		return err
	}
	return w.Flush()
}

// readSnapshot makes new tables of a snapshot. It refuses one that is cut off
// or holds what this binary, which supports feature level own, does not know.
func readSnapshot(from io.Reader, own uint64) (*memdb.MemDB, uint64, error) {
	db, err := newDatabase()
	if err != nil {
		return nil, 0, err
	}
	byName := map[string]tableInfo{}
	for _, t := range catalog {
		byName[t.name] = t
	}
	lines := bufio.NewScanner(from)
	lines.Buffer(make([]byte, 0, 1<<16), maxSnapshotLine)
	if !lines.Scan() {
		return nil, 0, fmt.Errorf("it has no header: %w", errors.Join(lines.Err(), io.ErrUnexpectedEOF))
	}
	var header snapshotHeader
	if err := json.Unmarshal(lines.Bytes(), &header); err != nil || header.Format != snapshotFormat || header.V != snapshotVersion {
		return nil, 0, fmt.Errorf("header %.80q: %s version %d is expected; another release wrote it: install that one", lines.Bytes(), snapshotFormat, snapshotVersion)
	}
	txn := db.Txn(true)
	defer txn.Abort() // does nothing once committed
	rows, ended := 0, false
	for lines.Scan() {
		if ended {
			return nil, 0, errors.New("it goes on after its end")
		}
		var line snapshotRow
		if err := decodeStrict(lines.Bytes(), &line); err != nil {
			return nil, 0, fmt.Errorf("row %d: %w", rows+1, err)
		}
		if line.End != nil {
			if *line.End != rows {
				return nil, 0, fmt.Errorf("it has %d rows and should have %d", rows, *line.End)
			}
			ended = true
			continue
		}
		t, ok := byName[line.Table]
		if !ok {
			return nil, 0, fmt.Errorf("row %d: table %.40q is not known to this binary; a newer release wrote it: install that one", rows+1, line.Table)
		}
		value, err := t.decode(line.Row)
		if err != nil {
			return nil, 0, fmt.Errorf("row %d, table %s: %w", rows+1, t.name, err)
		}
		if row, ok := value.(*clusterRow); ok && row.FeatureLevel > own { // rather than which row is strange
			return nil, 0, tooNew(row.FeatureLevel, own)
		}
		if err := txn.Insert(t.name, value); err != nil {
			return nil, 0, fmt.Errorf("row %d, table %s: %w", rows+1, t.name, err)
		}
		rows++
	}
	if err := lines.Err(); err != nil {
		return nil, 0, err
	}
	if !ended {
		return nil, 0, fmt.Errorf("it ends after %d rows, cut off: %w", rows, io.ErrUnexpectedEOF)
	}
	txn.Commit()
	return db, header.Index, nil
}

// hash is the SHA-256 of the snapshot that a version would make, in hex.
func hash(txn *memdb.Txn) (string, error) {
	h := sha256.New()
	if err := writeSnapshot(h, txn, 0); err != nil {
		return "", fmt.Errorf("hashing the state: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Compact has the state as it is now on this replica's disk: what is read of it at the
// next start, before a leader is known, is no older.
func (s *Store) Compact() error {
	if err := s.raft.Snapshot().Error(); err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
		return fmt.Errorf("a snapshot of the state: %w", err)
	}
	return nil
}

// Export writes the state now, in the snapshot's format, and answers its newest
// log entry.
func (s *Store) Export(to io.Writer) (index uint64, err error) {
	v := s.fsm.view().v
	return v.index, writeSnapshot(to, v.txn, v.index)
}
