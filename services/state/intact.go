package state

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
	"golang.org/x/sys/unix"
)

// What a loss of power may leave in the folder is a batch of entries that is
// half in the last segment, and a snapshot that is half written: nobody was
// told of either, and both are dropped. raft-wal 0.4.0 takes other damage for a
// shorter log, and a folder without wal-meta.db for a new one, whose
// segments it deletes. So what cannot be a loss of power is refused here, by
// the file's name.

// wayOut is what helps when a part of the folder is lost.
const wayOut = "put the folder back from a copy, or start anew with an empty data folder, as another replica"

// lost says that a part of the folder is damaged or missing.
func lost(path, what string) error {
	return fmt.Errorf("%s: %s; what was committed would be lost: %s", path, what, wayOut)
}

// segments are the files of the log in its folder.
func segments(log string) ([]string, error) { return filepath.Glob(filepath.Join(log, "*.wal")) }

// metaIntact refuses a folder that has a history and no list of its segments.
func metaIntact(dir, log string) error {
	snapshots, err := finishedSnapshots(dir)
	if err != nil {
		return err
	}
	meta := filepath.Join(log, metadb.FileName)
	info, err := os.Stat(meta)
	if err == nil && info.Size() > 0 {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	files, err := segments(log)
	if err != nil {
		return err
	}
	if history := append(files, snapshots...); len(history) > 0 {
		return lost(meta, fmt.Sprintf("it is missing or empty, and %s is there", history[0]))
	}
	if info != nil {
		return lost(meta, "it is empty")
	}
	return nil
}

// finishedSnapshots are the folders of snapshots that were written whole. Those
// that were not are removed: Raft never does.
func finishedSnapshots(dir string) (whole []string, err error) {
	folder := filepath.Join(dir, "snapshots")
	entries, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		path := filepath.Join(folder, e.Name())
		if !strings.HasSuffix(e.Name(), ".tmp") {
			whole = append(whole, path)
		} else if err := os.RemoveAll(path); err != nil {
			return nil, fmt.Errorf("removing a half-written snapshot: %w", err)
		}
	}
	return whole, nil
}

// openIntact opens the log. A database of its metadata that is damaged makes
// bbolt panic, or read beyond the file's end: that is an error as any other.
func openIntact(log string, meta types.MetaStore, open func() (*wal.WAL, error)) (entries *wal.WAL, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			entries, err = nil, lost(filepath.Join(log, metadb.FileName), fmt.Sprintf("it is damaged (%v)", p))
		}
	}()
	state, err := meta.Load(log)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return nil, err
	}
	if err == nil {
		_, err = meta.GetStable(termKey) // its other half, which Raft reads later
	}
	if err != nil {
		return nil, lost(filepath.Join(log, metadb.FileName), err.Error())
	}
	for n, info := range state.Segments {
		path := filepath.Join(log, segment.FileName(info))
		held, err := readSegment(path)
		sealed := !info.SealTime.IsZero()
		if errors.Is(err, fs.ErrNotExist) && !sealed {
			continue // a new one, before the first batch in it was on disk
		}
		if err == nil && sealed && held.end < int64(info.IndexStart) {
			err = fmt.Errorf("it ends after byte %d, its index begins at %d", held.end, info.IndexStart)
		}
		if err != nil {
			return nil, lost(path, err.Error())
		}
		if !sealed && n == len(state.Segments)-1 {
			if err := mendTail(path, held, &state, meta); err != nil {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
		}
	}
	return open()
}

// Of a segment's format (raft-wal, README, "Segment files"): a header, then
// frames, each a header with its type and a length, or for a commit the CRC of
// what was written since the commit before.
const (
	segmentHeader = 32
	frameHeader   = 8
	frameEntry    = 1
	frameIndex    = 2
	frameCommit   = 3
)

// contents is what is in a segment.
type contents struct {
	end     int64  // of the last whole batch, in bytes; 0: there is none
	entries uint64 // in whole batches
	index   uint64 // where the index is, in bytes, in the last whole batch; 0: there is none
	torn    bool   // the beginning of another batch follows
}

// readSegment compares each batch of a segment with its CRC. raft-wal does so
// with the last alone, which may be torn: any other was on the medium before the
// next was begun.
func readSegment(path string) (whole contents, err error) {
	f, err := os.Open(path)
	if err != nil {
		return contents{}, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	in := bufio.NewReaderSize(f, 64<<10)
	table := crc32.MakeTable(crc32.Castagnoli)
	var sum uint32
	var at int64
	// take adds n bytes to the batch, and answers the last eight.
	take := func(n int64) (last [frameHeader]byte, err error) {
		for ; n > 0; n -= frameHeader {
			if _, err := io.ReadFull(in, last[:]); err != nil {
				return last, err
			}
			sum, at = crc32.Update(sum, table, last[:]), at+frameHeader
		}
		return last, nil
	}
	batch, bad := contents{}, int64(-1)
	_, err = take(segmentHeader)
	for err == nil {
		var header [frameHeader]byte
		before := sum
		if header, err = take(frameHeader); err != nil {
			break
		}
		value := binary.LittleEndian.Uint32(header[4:])
		switch header[0] {
		case frameEntry, frameIndex:
			batch.entries++
			if header[0] == frameIndex {
				batch.entries--
				batch.index = uint64(at)
			}
			_, err = take((int64(value) + frameHeader - 1) / frameHeader * frameHeader)
		case frameCommit:
			if bad >= 0 {
				return whole, fmt.Errorf("the entries before byte %d have another checksum, and others follow them: the medium is damaged", bad)
			}
			if before == value {
				whole = contents{end: at, entries: batch.entries, index: batch.index}
			} else {
				bad = at
			}
			sum = 0
		default:
			whole.torn = whole.torn || header != [frameHeader]byte{} || at-frameHeader > max(whole.end, segmentHeader)
			return whole, nil
		}
	}
	if err != io.EOF && err != io.ErrUnexpectedEOF {
		return whole, fmt.Errorf("at byte %d: %w", at, err)
	}
	whole.torn = at > max(whole.end, segmentHeader)
	return whole, nil
}

// mendTail ends what a loss of power cut off in the newest segment. raft-wal
// 0.4.0 takes an index there, be it in a torn batch, for the segment's end, and
// then refuses every entry: a torn batch goes, and where the index is whole, the
// next segment is named, as it would have been (wal.go, rotateSegmentLocked).
func mendTail(path string, held contents, state *types.PersistentState, meta types.MetaStore) error {
	if held.torn {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Truncate(held.end), f.Sync(), f.Close()); err != nil {
			return fmt.Errorf("removing a half-written batch: %w", err)
		}
	}
	if held.index == 0 {
		return nil
	}
	tail := &state.Segments[len(state.Segments)-1]
	tail.SealTime, tail.MaxIndex, tail.IndexStart = time.Now(), tail.BaseIndex+held.entries-1, held.index
	next := *tail
	next.ID, next.BaseIndex, next.MinIndex, next.MaxIndex = state.NextSegmentID, tail.MaxIndex+1, tail.MaxIndex+1, 0
	next.IndexStart, next.CreateTime, next.SealTime = 0, tail.SealTime, time.Time{}
	state.NextSegmentID++
	state.Segments = append(state.Segments, next)
	if err := meta.CommitState(*state); err != nil {
		return fmt.Errorf("naming the next segment: %w", err)
	}
	return nil
}

// begun says whether the stores hold a history. A bootstrap that was cut off,
// which stores the first term before the first entry, is none: it is made
// again. Where others follow each other there must be no gap between them.
func (k stores) begun(dir string) (bool, error) {
	first, err := k.log.FirstIndex()
	if err != nil {
		return false, err
	}
	last, err := k.log.LastIndex()
	if err != nil {
		return false, err
	}
	newest, err := k.newestSnapshot(dir)
	if err != nil {
		return false, err
	}
	if newest > 0 && (last == 0 || first <= newest+1) || first == 1 {
		return true, nil
	}
	if last > 0 {
		return false, lost(dir, fmt.Sprintf("the log begins with entry %d, and the newest snapshot that can be read ends with %d", first, newest))
	}
	term, err := k.term()
	if err != nil {
		return false, err
	}
	if term > 1 {
		return false, fmt.Errorf("%w: %w", errElected, lost(filepath.Join(dir, "raft"), fmt.Sprintf("the log is empty, and a leader was elected in term %d", term)))
	}
	return false, nil
}

// errElected says that a log is empty which was not when a leader was elected.
var errElected = errors.New("entries are missing")

// termKey is where Raft keeps its term (raft, keyCurrentTerm).
var termKey = []byte("CurrentTerm")

// term is the newest that this replica saw; 0: none.
func (k stores) term() (uint64, error) {
	term, err := k.stable.GetUint64(termKey)
	if err != nil && err.Error() == "not found" { // raft.InmemStore's, which has no name
		return 0, nil
	}
	return term, err
}

// newestSnapshot is the index of the newest snapshot that can be read; 0: none
// is there. Raft takes that one, too.
func (k stores) newestSnapshot(dir string) (uint64, error) {
	list, err := k.snapshots.List()
	if err != nil {
		return 0, err
	}
	var why error
	for _, s := range list {
		content, err := readable(k.snapshots, s.ID)
		if err == nil {
			return s.Index, content.Close()
		}
		why = errors.Join(why, fmt.Errorf("snapshot %s: %w", s.ID, err))
	}
	if why != nil {
		return 0, lost(filepath.Join(dir, "snapshots"), why.Error())
	}
	return 0, nil
}

// readable opens a snapshot, of which the store compares the checksum.
func readable(store raft.SnapshotStore, id string) (io.ReadCloser, error) {
	_, content, err := store.Open(id)
	return content, err
}
