package state

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	stdhash "hash"
	"io"

	"github.com/hashicorp/go-memdb"
	"github.com/hashicorp/raft"
)

// A snapshot is lines of JSON: a header, every row of every table in the
// catalog's order and by key, and an end that counts the rows and has a checksum of
// all lines before it. It has no choices, so equal states give equal bytes. Golden
// files hold the format.

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
	// SHA256 is the checksum, in hex, of all lines before the end, which has it.
	SHA256 string `json:"sha256,omitempty"`
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
	sum := sha256.New()
	lines := json.NewEncoder(io.MultiWriter(w, sum))
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
	if err := lines.Encode(snapshotRow{End: &rows, SHA256: hex.EncodeToString(sum.Sum(nil))}); err != nil {
		return err
	}
	return w.Flush()
}

// readSnapshot makes new tables of a snapshot. It refuses one that is cut off or
// damaged, or holds what this binary, which supports feature level own, does not know.
func readSnapshot(from io.Reader, own uint64) (*memdb.MemDB, uint64, error) {
	db, err := newDatabase()
	if err != nil {
		return nil, 0, err
	}
	lines := bufio.NewScanner(from)
	lines.Buffer(make([]byte, 0, 1<<16), maxSnapshotLine)
	if !lines.Scan() {
		return nil, 0, fmt.Errorf("it has no header: %w", errors.Join(lines.Err(), io.ErrUnexpectedEOF))
	}
	var header snapshotHeader
	switch err := json.Unmarshal(lines.Bytes(), &header); {
	case err != nil || header.Format != snapshotFormat:
		return nil, 0, fmt.Errorf("header %.80q: it is no state of Rackseed, or damaged: %s is expected", lines.Bytes(), snapshotFormat)
	case header.V != snapshotVersion:
		return nil, 0, fmt.Errorf("header %.80q: %s version %d is expected; another release wrote it: install that one", lines.Bytes(), snapshotFormat, snapshotVersion)
	}
	txn := db.Txn(true)
	defer txn.Abort() // does nothing once committed
	rows := newRowReader(txn, own, lines.Bytes())
	for lines.Scan() {
		rows.line(lines.Bytes())
	}
	if err := errors.Join(lines.Err(), rows.end()); err != nil {
		return nil, 0, err
	}
	txn.Commit()
	return db, header.Index, nil
}

// rowReader reads a snapshot's lines after its header. What is wrong with a row is said
// only of one whose checksum fits: all else is damage.
type rowReader struct {
	txn   *memdb.Txn
	own   uint64 // feature level
	known map[string]tableInfo
	sum   stdhash.Hash
	rows  int
	ended *snapshotRow
	first error // of rows
}

func newRowReader(txn *memdb.Txn, own uint64, header []byte) *rowReader {
	r := &rowReader{txn: txn, own: own, known: map[string]tableInfo{}, sum: sha256.New()}
	for _, t := range catalog {
		r.known[t.name] = t
	}
	r.count(header)
	return r
}

func (r *rowReader) count(line []byte) {
	r.sum.Write(line) // it never fails (hash.Hash)
	r.sum.Write([]byte{'\n'})
}

func (r *rowReader) line(text []byte) {
	if r.ended != nil {
		r.first = errors.Join(r.first, errors.New("it goes on after its end"))
		return
	}
	var line snapshotRow
	err := decodeStrict(text, &line)
	if err == nil && line.End != nil {
		r.ended = &line
		return
	}
	r.count(text)
	r.rows++
	if err == nil && r.first == nil {
		err = r.insert(line)
	}
	if err != nil && r.first == nil {
		r.first = fmt.Errorf("row %d: %w", r.rows, err)
	}
}

func (r *rowReader) insert(line snapshotRow) error {
	t, ok := r.known[line.Table]
	if !ok {
		return fmt.Errorf("table %.40q is not known to this binary; a newer release wrote it: install that one", line.Table)
	}
	value, err := t.decode(line.Row)
	if err != nil {
		return fmt.Errorf("table %s: %w", t.name, err)
	}
	if row, ok := value.(*clusterRow); ok && row.FeatureLevel > r.own { // rather than which row is strange
		return tooNew(row.FeatureLevel, r.own)
	}
	if err := r.txn.Insert(t.name, value); err != nil {
		return fmt.Errorf("table %s: %w", t.name, err)
	}
	return nil
}

// end says what is wrong with all that was read.
func (r *rowReader) end() error {
	switch {
	case r.ended == nil:
		return fmt.Errorf("it ends after %d rows, cut off: %w", r.rows, io.ErrUnexpectedEOF)
	case *r.ended.End != r.rows:
		return fmt.Errorf("it is damaged: it has %d rows and should have %d", r.rows, *r.ended.End)
	case r.ended.SHA256 != hex.EncodeToString(r.sum.Sum(nil)):
		return errors.New("it is damaged: its checksum does not fit")
	}
	return r.first
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
