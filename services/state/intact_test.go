package state

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
)

// folder is what a data folder holds: the files by their paths in it.
type folder map[string][]byte

func readFolder(t *testing.T, dir string) folder {
	t.Helper()
	all := folder{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		all[name], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func (f folder) write(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, content := range f {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, content, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// entries opens the log of a folder as a Store does and reads all of it; more
// can be appended.
func entries(t *testing.T, dir string, segment int) (all []string, err error) {
	t.Helper()
	s := &Store{config: Config{Dir: dir, ID: "r-1", segment: segment, Logger: slog.New(slog.DiscardHandler)}}
	defer func() { err = errors.Join(err, s.closeStores()) }()
	kept, err := s.openStores()
	if err != nil {
		return nil, err
	}
	if _, err := kept.begun(dir); err != nil {
		return nil, err
	}
	first, err := kept.log.FirstIndex()
	if err != nil {
		return nil, err
	}
	last, err := kept.log.LastIndex()
	if err != nil {
		return nil, err
	}
	for i := first; i > 0 && i <= last; i++ {
		var l raft.Log
		if err := kept.log.GetLog(i, &l); err != nil {
			return nil, fmt.Errorf("entry %d: %w", i, err)
		}
		all = append(all, string(l.Data))
	}
	for i := last + 1; i < last+3; i++ {
		if err := kept.log.StoreLog(&raft.Log{Index: i, Term: 1, Data: []byte("after")}); err != nil {
			return all, fmt.Errorf("appending entry %d: %w", i, err)
		}
	}
	return all, nil
}

// batches makes a folder with a log of batches of entries in its one segment,
// and tells where in that each batch ends. The power was cut before anything
// followed on the last one.
func batches(t *testing.T, segment int, batches ...[]string) (f folder, name string, ends []int) {
	t.Helper()
	dir := t.TempDir()
	s := &Store{config: Config{Dir: dir, ID: "r-1", segment: segment, Logger: slog.New(slog.DiscardHandler)}}
	kept, err := s.openStores()
	if err != nil {
		t.Fatal(err)
	}
	name = fmt.Sprintf("raft/%020d-%016x.wal", 1, 0)
	var content []byte
	index := uint64(0)
	for _, b := range batches {
		f = readFolder(t, dir)
		var logs []*raft.Log
		for _, text := range b {
			index++
			logs = append(logs, &raft.Log{Index: index, Term: 1, Data: []byte(text)})
		}
		if err := kept.log.StoreLogs(logs); err != nil {
			t.Fatal(err)
		}
		if content, err = os.ReadFile(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		// A batch ends with a checksum, of which the last bytes may be zeros.
		ends = append(ends, (len(bytes.TrimRight(content, "\x00"))+frameHeader-1)/frameHeader*frameHeader)
	}
	if err := s.closeStores(); err != nil {
		t.Fatal(err)
	}
	f[name] = content
	return f, name, ends
}

// TestTornAppend cuts the power at the bytes of the newest batch: what was
// written before is there, and the batch is there whole or not at all.
func TestTornAppend(t *testing.T) {
	t.Run("in a segment", func(t *testing.T) { tornAppend(t, 32<<10) })
	t.Run("at a segment's end", func(t *testing.T) { tornAppend(t, 1600) })
}

func tornAppend(t *testing.T, segment int) {
	rows := [][]string{{"configuration"}, {"one", "two and a half"}, {strings.Repeat("three ", 30)}, {"four", strings.Repeat("5", 1200), "six"}}
	f, name, ends := batches(t, segment, rows...)
	whole := f[name]
	noise := make([]byte, 4<<10)
	random := rand.New(rand.NewPCG(4, 2))
	for i := range noise {
		noise[i] = byte(random.Uint32())
	}
	before := ends[len(ends)-2]
	want := fmt.Sprint(append(append([]string{}, rows[0]...), append(rows[1], rows[2]...)...))
	all := fmt.Sprint(append(append(append([]string{}, rows[0]...), append(rows[1], rows[2]...)...), rows[3]...))
	check := func(what string, content []byte) {
		t.Helper()
		g := maps.Clone(f)
		g[name] = content
		dir := g.write(t)
		got, err := entries(t, dir, segment)
		if again, e := entries(t, dir, segment); e != nil || fmt.Sprint(again) != fmt.Sprint(append(got, "after", "after")) {
			t.Fatalf("%s, appended to: %v, %.200q", what, e, fmt.Sprint(again))
		}
		if err != nil || fmt.Sprint(got) != want && fmt.Sprint(got) != all {
			t.Fatalf("%s: %v, %.200q, want %.200q", what, err, fmt.Sprint(got), want)
		}
	}
	end := ends[len(ends)-1]
	for cut := before; cut <= end; cut++ {
		if cut > before+64 && cut < end-64 && cut%29 > 0 { // inside of a long entry
			continue
		}
		check(fmt.Sprintf("cut off at byte %d", cut), whole[:cut])
		zeros := append(bytes.Clone(whole[:cut]), make([]byte, len(whole)-cut)...)
		check(fmt.Sprintf("zeros from byte %d", cut), zeros)
		garbage := bytes.Clone(zeros)
		copy(garbage[cut:], noise)
		check(fmt.Sprintf("garbage from byte %d", cut), garbage)
		// The medium writes sectors in any order: this one came last.
		torn := bytes.Clone(whole)
		sector := cut / 512 * 512
		clear(torn[max(sector, before):min(sector+512, len(torn))])
		check(fmt.Sprintf("without the sector at %d", sector), torn)
	}
}

// A leader that was killed has entries that nobody took. As it follows the next
// one, these are replaced, and it is killed again: the log is there.
// (hashicorp/raft-wal 31: 0.4.0 could read no entry of it then.)
func TestReplacedTailIsThereAgain(t *testing.T) {
	for _, size := range []int{4 << 10, 64 << 10} {
		dir := t.TempDir()
		s := &Store{config: Config{Dir: dir, ID: "r-1", segment: size, Logger: slog.New(slog.DiscardHandler)}}
		kept, err := s.openStores()
		if err != nil {
			t.Fatal(err)
		}
		want := map[uint64]string{}
		store := func(from, to uint64, what string) {
			t.Helper()
			for i := from; i <= to; i++ {
				want[i] = fmt.Sprintf("%s %d %s", what, i, strings.Repeat(".", 300))
				if err := kept.log.StoreLog(&raft.Log{Index: i, Term: 1, Data: []byte(want[i])}); err != nil {
					t.Fatal(err)
				}
			}
		}
		check := func() {
			t.Helper()
			// Killed: nothing was closed.
			again := readFolder(t, dir).write(t)
			got, err := entries(t, again, size)
			if err != nil || len(got) != len(want) {
				t.Fatalf("segments of %d bytes: %d entries of %d, %v", size, len(got), len(want), err)
			}
			for i, text := range want {
				if got[i-1] != text {
					t.Fatalf("entry %d is %.40q, and was %.40q", i, got[i-1], text)
				}
			}
		}
		store(1, 40, "taken")
		for round := range 3 {
			n := uint64(40 + 10*round)
			store(n+1, n+5, "of nobody")
			if err := kept.log.DeleteRange(n+1, n+5); err != nil {
				t.Fatal(err)
			}
			for i := n + 1; i <= n+5; i++ {
				delete(want, i)
			}
			check()
			store(n+1, n+10, fmt.Sprint("taken ", round))
			check()
		}
		if err := s.closeStores(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTornAppendGoesOn: entries can be appended after what was dropped.
func TestTornAppendGoesOn(t *testing.T) {
	config := Config{ID: "r-1", Dir: t.TempDir()}
	s := open(t, config)
	propose := func(n int) {
		t.Helper()
		if _, err := s.Propose(within(t), "x", note(fmt.Sprint("note ", n))); err != nil {
			t.Fatal(err)
		}
	}
	propose(1)
	propose(2)
	closeStore(t, s)
	files, err := segments(filepath.Join(config.Dir, "raft"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	content, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	end := len(bytes.TrimRight(content, "\x00"))
	f, err := os.OpenFile(files[0], os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = f.WriteAt([]byte("\x01\x00\x00\x00\x40\x00\x00\x00half an entry"), int64(end+7)/8*8); errors.Join(err, f.Close()) != nil {
		t.Fatal(err)
	}
	for n := 3; n < 5; n++ {
		s = open(t, config)
		propose(n)
		closeStore(t, s)
	}
	s = open(t, config)
	defer closeStore(t, s)
	var texts []string
	for _, e := range s.View().Events(0, "", 0) {
		if e.Kind == "note" {
			texts = append(texts, e.Text)
		}
	}
	equal(t, "events", fmt.Sprint(texts), "[note 1 note 2 note 3 note 4]")
}

// TestDamage: what no loss of power leaves is refused by the file's name, and
// nothing in the folder is made anew or removed.
func TestDamage(t *testing.T) {
	config := Config{ID: "r-1", Dir: t.TempDir(), segment: 4 << 10}
	s := open(t, config)
	for n := range 40 {
		if _, err := s.Propose(within(t), "x", note(fmt.Sprint(n, strings.Repeat(" text", 20)))); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.raft.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	whole := readFolder(t, config.Dir)
	var wals, snapshots []string
	for name := range whole {
		switch {
		case strings.HasSuffix(name, ".wal"):
			wals = append(wals, name)
		case strings.HasSuffix(name, "state.bin"):
			snapshots = append(snapshots, name)
		}
	}
	if len(wals) < 3 || len(snapshots) != 1 {
		t.Fatal(wals, snapshots)
	}
	firstWAL, snapshot := fmt.Sprintf("raft/%020d-%016x.wal", 1, 0), snapshots[0]
	const meta = "raft/wal-meta.db"
	without := func(f folder, names ...string) {
		for _, n := range names {
			delete(f, n)
		}
	}
	for name, test := range map[string]struct {
		damage func(f folder)
		names  string // what the error names; "": none
	}{
		"whole":                      {func(folder) {}, ""},
		"no meta":                    {func(f folder) { without(f, meta) }, meta},
		"no meta, no snapshot":       {func(f folder) { without(f, meta, snapshot) }, meta},
		"no log at all":              {func(f folder) { without(f, append(wals, meta)...) }, meta},
		"empty meta":                 {func(f folder) { f[meta] = nil }, meta},
		"one page of the meta":       {func(f folder) { f[meta] = f[meta][:4096] }, meta},
		"meta without its last page": {func(f folder) { f[meta] = f[meta][:3*4096] }, meta},
		"meta of zeros":              {func(f folder) { f[meta] = make([]byte, len(f[meta])) }, meta},
		"meta of noise":              {func(f folder) { f[meta] = bytes.Repeat([]byte("noise..."), len(f[meta])/8) }, meta},
		"no first segment":           {func(f folder) { without(f, firstWAL) }, firstWAL},
		"half the first segment":     {func(f folder) { f[firstWAL] = f[firstWAL][:1<<10] }, firstWAL},
		"a bit":                      {func(f folder) { f[firstWAL] = flip(f[firstWAL], 600) }, firstWAL},
		"an empty first segment":     {func(f folder) { f[firstWAL] = nil }, firstWAL},
		"half a snapshot":            {func(f folder) { f[snapshot] = f[snapshot][:len(f[snapshot])/2] }, "snapshots"},
		"a snapshot's bit":           {func(f folder) { f[snapshot] = flip(f[snapshot], 100) }, "snapshots"},
		"a snapshot on its way": {func(f folder) {
			f["snapshots/2-9-1.tmp/state.bin"] = []byte("half")
		}, ""},
		"a snapshot without its meta": {func(f folder) { without(f, filepath.Dir(snapshot)+"/meta.json") }, ""}, // the log has it all
	} {
		t.Run(name, func(t *testing.T) {
			f := maps.Clone(whole)
			test.damage(f)
			dir := f.write(t)
			// Go's files keep the lock of a database that could not be opened:
			// nothing here opens a folder twice after an error.
			s, err := Open(Config{ID: "r-1", Dir: dir, segment: config.segment})
			if test.names == "" {
				if err != nil {
					t.Fatal(err)
				}
				defer closeStore(t, s)
				if err := s.WaitLeader(within(t)); err != nil {
					t.Fatal(err)
				}
				if notes := len(s.View().Events(0, "", 0)); notes < 40 {
					t.Errorf("%d events, want 40 and more", notes)
				}
				if left, _ := filepath.Glob(filepath.Join(dir, "snapshots", "*.tmp")); len(left) > 0 {
					t.Errorf("left: %v", left)
				}
				return
			}
			if err == nil {
				t.Fatal("it opened", errors.Join(s.Close()))
			}
			if !strings.Contains(err.Error(), filepath.Join(dir, test.names)) || !strings.Contains(err.Error(), "empty data folder") {
				t.Errorf("error %v, want the name %s and the way out", err, test.names)
			}
			after := readFolder(t, dir)
			for name, content := range f {
				if !strings.HasSuffix(name, ".wal") && !strings.HasSuffix(name, ".bin") {
					continue
				}
				if !bytes.Equal(after[name], content) {
					t.Errorf("%s was changed", name)
				}
			}
		})
	}
}

func flip(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 4
	return b
}

// TestTornBootstrap: the power was cut between the first term and the first
// entry, at the first start. The next one makes the log.
func TestTornBootstrap(t *testing.T) {
	for term, refused := range map[uint64]bool{1: false, 2: true} {
		dir := t.TempDir()
		s := &Store{config: Config{Dir: dir, ID: "r-1", segment: segmentSize, Logger: slog.New(slog.DiscardHandler)}}
		kept, err := s.openStores()
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(kept.stable.SetUint64(termKey, term), s.closeStores()); err != nil {
			t.Fatal(err)
		}
		s, err = Open(Config{ID: "r-1", Dir: dir})
		if refused {
			if err == nil || !strings.Contains(err.Error(), "term 2") {
				t.Errorf("an empty log of term 2: %v", err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := s.WaitLeader(within(t)); err != nil {
			t.Error(err)
		}
		closeStore(t, s)
	}
}

// TestGap: a log that begins after the newest snapshot's end is refused; Raft
// would end with a panic.
func TestGap(t *testing.T) {
	m := raft.NewInmemStore()
	if err := m.StoreLog(&raft.Log{Index: 50, Term: 2}); err != nil {
		t.Fatal(err)
	}
	if _, err := (stores{m, m, raft.NewInmemSnapshotStore()}).begun("x"); err == nil || !strings.Contains(err.Error(), "begins with entry 50") {
		t.Error(err)
	}
}

// The format that segmentIntact reads is that of raft-wal.
func TestSegmentFormat(t *testing.T) {
	f, name, _ := batches(t, 4<<10, []string{"a"})
	if got := binary.LittleEndian.Uint32(f[name]); got != 0x58eb6b0d {
		t.Errorf("magic %#x", got)
	}
}
