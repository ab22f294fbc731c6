package disk

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/rackseed/rackseed/images/installer/contents"
	"github.com/rackseed/rackseed/images/installer/internal/specimen"
	"github.com/rackseed/rackseed/images/pid1/block"
	"github.com/rackseed/rackseed/images/pid1/gpt"
	"github.com/rackseed/rackseed/services/machine"
)

func TestLayout(t *testing.T) {
	table, err := Layout(16<<30, 512, gpt.NewGUID)
	if err != nil {
		t.Fatal(err)
	}
	var end uint64 = 2048
	for i, want := range []struct {
		name  string
		bytes uint64
		kind  string
	}{
		{"rs-bios", 1 << 20, "21686148-6449-6e6f-744e-656564454649"}, {"rs-esp", 1 << 30, "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"},
		{"rs-root-a", 4 << 30, "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"}, {"rs-root-b", 4 << 30, "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"},
		{"rs-data-new", 16<<30 - 9<<30 - 3<<20, "0fc63daf-8483-4772-8e79-3d69d8477de4"},
	} {
		p := Part(table, i+1)
		if p.Name != want.name || (p.Last-p.First+1)*512 != want.bytes || p.Type.String() != want.kind || p.First != end || p.First%2048 != 0 {
			t.Errorf("partition %d: %+v, want %+v at %d", i+1, p, want, end)
		}
		end = p.Last + 1
	}
	if _, err := Layout(machine.MinDiskBytes-512, 512, gpt.NewGUID); err == nil || !strings.Contains(err.Error(), "needs 16.0 GiB") {
		t.Errorf("a small disk: %v", err)
	}
}

// Whatever was on a disk, nothing of it is found once the disk is prepared:
// neither on the whole, nor in a new partition, nor where an old one was. The
// disk takes the hint to discard, and keeps everything nevertheless.
func TestPrepareClearsOldContents(t *testing.T) {
	for _, s := range specimen.All {
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			d := s.Make()
			old, err := contents.Parts(d, d.Size, 512)
			if err != nil {
				t.Fatal(err)
			}
			table, err := Layout(uint64(d.Size), 512, gpt.NewGUID)
			if err != nil {
				t.Fatal(err)
			}
			d.Writes = nil
			if err := prepare(t.Context(), d, table); err != nil {
				t.Fatal(err)
			}
			places := append(old, contents.Part{First: 0, Length: d.Size})
			for _, p := range table.Partitions {
				places = append(places, contents.Part{First: int64(p.First) * 512, Length: int64(p.Last-p.First+1) * 512})
			}
			for _, p := range places {
				found, err := block.ProbeAll(io.NewSectionReader(d, p.First, p.Length), p.Length)
				if err != nil || len(found) > 0 {
					t.Errorf("at byte %d, %d bytes: %+v, %v", p.First, p.Length, found, err)
				}
				for _, at := range copies {
					b := make([]byte, 4096)
					if at >= p.Length {
						continue
					}
					if _, err := d.ReadAt(b, p.First+at); err != nil && !errors.Is(err, io.EOF) || len(bytes.Trim(b, "\x00")) > 0 {
						t.Errorf("a copy at byte %d of what begins at %d is left: %.20q, %v", at, p.First, b, err)
					}
				}
			}
			if text, err := contents.Describe(d, d.Size, 512); err != nil || text != "broken-off Rackseed install" {
				t.Errorf("%q, %v", text, err)
			}
		})
	}
}

// A power cut at any write leaves what was there before, or what is known as
// ours; and each byte of the disk is written over or discarded, none twice.
func TestPrepareCutOff(t *testing.T) {
	const before = `GPT, 3 partitions: FAT, ext4 "root", swap`
	var whole *specimen.Disk
	for _, s := range specimen.All {
		if s.Name == "Debian" {
			whole = s.Make()
		}
	}
	table, err := Layout(uint64(whole.Size), 512, gpt.NewGUID)
	if err != nil {
		t.Fatal(err)
	}
	cut := errors.New("power cut")
	ours := false
	for n := 0; ; n++ {
		if n > 5 { // the clearing has begun
			n += 7
		}
		d := &faulty{Disk: whole.Copy(), left: n, err: cut}
		err := prepare(t.Context(), d, table)
		text, textErr := contents.Describe(d, d.Size, 512)
		if textErr != nil {
			t.Fatal(textErr)
		}
		switch {
		case text == "broken-off Rackseed install":
			ours = true
		case text != before || ours:
			t.Errorf("after %d writes: %s", n, text)
		}
		if err == nil {
			break
		}
		if !errors.Is(err, cut) {
			t.Fatal(err)
		}
	}
	d := whole.Copy()
	if err := prepare(t.Context(), d, table); err != nil {
		t.Fatal(err)
	}
	runs := append(d.Writes, d.Discards...)
	slices.SortFunc(runs, func(a, b [2]int64) int { return cmp.Compare(a[0], b[0]) })
	end := int64(0)
	for _, r := range runs {
		if r[0] != end {
			t.Fatalf("byte %d comes after byte %d", r[0], end)
		}
		end += r[1]
	}
	if end != d.Size {
		t.Errorf("the end is byte %d", end)
	}
}

// Whatever was on a disk, a failure at one of the first writes leaves it described
// as before, or as ours: the next attempt is permitted to write over nothing else
// (machine.Left). Between the two tables what lay at its end is gone already: such a
// disk must be looked at and approved again.
func TestPrepareFailsAtItsBeginning(t *testing.T) {
	for _, s := range specimen.All {
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			whole := s.Make()
			before, err := contents.Describe(whole, whole.Size, 512)
			if err != nil {
				t.Fatal(err)
			}
			table, err := Layout(uint64(whole.Size), 512, gpt.NewGUID)
			if err != nil {
				t.Fatal(err)
			}
			for n := range 4 {
				d := &faulty{Disk: whole.Copy(), left: n, err: errors.New("input/output error")}
				if err := prepare(t.Context(), d, table); err == nil {
					t.Fatal("it did not fail")
				}
				if text, err := contents.Describe(d, d.Size, 512); err != nil || text != machine.BrokenOff && text != before && (n != 1 || !strings.HasPrefix(before, text+"; ")) {
					t.Errorf("after %d writes: %q, which was %q, %v", n, text, before, err)
				}
			}
		})
	}
}

// faulty fails after some writes.
type faulty struct {
	*specimen.Disk
	left int
	err  error
}

func (f *faulty) WriteAt(p []byte, at int64) (int, error) {
	if f.left--; f.left < 0 {
		return 0, f.err
	}
	return f.Disk.WriteAt(p, at)
}

func TestPrepareEndsWithItsContext(t *testing.T) {
	d := specimen.New(16 << 30)
	table, err := Layout(16<<30, 512, gpt.NewGUID)
	if err != nil {
		t.Fatal(err)
	}
	revoked := errors.New("revoked")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(revoked)
	if err := prepare(ctx, d, table); !errors.Is(err, revoked) {
		t.Errorf("%v", err)
	}
}

// The table of a node whose install has ended has its name, and BIOS's boot code
// stays.
func TestFinish(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const size = 16 << 30
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	table, err := Layout(size, 512, gpt.NewGUID)
	if err != nil {
		t.Fatal(err)
	}
	if err := prepare(t.Context(), device{f}, table); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("boot code"), 0); err != nil {
		t.Fatal(err)
	}
	if err := Finish(path, table, "node-1"); err != nil {
		t.Fatal(err)
	}
	if text, err := contents.Describe(f, size, 512); err != nil || text != "Rackseed node node-1" {
		t.Errorf("%q, %v", text, err)
	}
	code := make([]byte, 9)
	if _, err := f.ReadAt(code, 0); err != nil || string(code) != "boot code" {
		t.Errorf("%q, %v", code, err)
	}
	primary, backup, err := gpt.ReadBoth(f, size, 512)
	if err != nil || primary == nil || backup == nil || !reflect.DeepEqual(primary, backup) || primary.DiskID != table.DiskID {
		t.Errorf("%+v, %+v, %v", primary, backup, err)
	}
}
