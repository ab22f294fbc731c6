package disk

import (
	"bytes"
	"strings"
	"testing"

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
		{"rs-data", 16<<30 - 9<<30 - 3<<20, "0fc63daf-8483-4772-8e79-3d69d8477de4"},
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

// sparse is a disk of which only what differs from fill is kept.
type sparse struct {
	fill   byte
	blocks map[int64][]byte // of 64 KiB
	size   int64
	writes []int64
}

const blockSize = 64 << 10

func (s *sparse) block(n int64) []byte {
	if b, ok := s.blocks[n]; ok {
		return b
	}
	return bytes.Repeat([]byte{s.fill}, blockSize)
}

func (s *sparse) WriteAt(p []byte, offset int64) (int, error) {
	s.writes = append(s.writes, offset)
	for i := 0; i < len(p); {
		n, at := (offset+int64(i))/blockSize, (offset+int64(i))%blockSize
		b := s.block(n)
		i += copy(b[at:], p[i:])
		s.blocks[n] = b
	}
	return len(p), nil
}

func (s *sparse) ReadAt(p []byte, offset int64) (int, error) {
	for i := 0; i < len(p); {
		i += copy(p[i:], s.block((offset + int64(i)) / blockSize)[(offset+int64(i))%blockSize:])
	}
	return len(p), nil
}

func (s *sparse) Sync() error { return nil }

// shifted reads from an offset on, as a partition's device does.
type shifted struct {
	*sparse
	by int64
}

func (s shifted) ReadAt(p []byte, offset int64) (int, error) { return s.sparse.ReadAt(p, s.by+offset) }

func TestWriteTableClearsOldContents(t *testing.T) {
	const bytes = 16 << 30
	table, err := Layout(bytes, 512, gpt.NewGUID)
	if err != nil {
		t.Fatal(err)
	}
	d := &sparse{fill: 0x55, blocks: map[int64][]byte{}, size: bytes}
	for _, p := range table.Partitions { // an old file system in each place
		if _, err := d.WriteAt([]byte("\x53\xef"), int64(p.First)*512+1080); err != nil {
			t.Fatal(err)
		}
	}
	d.writes = nil
	if err := writeTable(d, table); err != nil {
		t.Fatal(err)
	}
	if last := d.writes[len(d.writes)-1]; last != 0 {
		t.Errorf("the primary table must be written last; it was byte %d", last)
	}
	got, err := gpt.Read(d, bytes, 512)
	if err != nil || len(got.Partitions) != 5 || got.DiskID != table.DiskID {
		t.Errorf("read back %+v, %v", got, err)
	}
	for _, p := range table.Partitions {
		if s, err := block.Probe(shifted{d, int64(p.First) * 512}, int64(p.Last-p.First+1)*512); err != nil || s.Type != "" {
			t.Errorf("partition %d still holds %q, %v", p.Number, s.Type, err)
		}
	}
}
