package contents_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/rackseed/rackseed/images/installer/contents"
	"github.com/rackseed/rackseed/images/installer/internal/specimen"
	"github.com/rackseed/rackseed/services/machine"
)

func TestDescribe(t *testing.T) {
	for _, s := range specimen.All {
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			d := s.Make()
			writes := len(d.Writes)
			got, err := contents.Describe(d, d.Size, 512)
			if err != nil || got != s.Text {
				t.Errorf("%q, %v\nwant %q", got, err, s.Text)
			}
			if s.Nothing != (got == machine.Empty) {
				t.Errorf("empty: %v, want %v", got == machine.Empty, s.Nothing)
			}
			if again, err := contents.Describe(s.Make(), d.Size, 512); err != nil || again != got {
				t.Errorf("the same disk again: %q, %v", again, err)
			}
			if len(d.Writes) != writes {
				t.Error("it was written")
			}
		})
	}
}

// Data as long as what lies between two samples is not overlooked, wherever it
// is.
func TestHowMuchMayBeOverlooked(t *testing.T) {
	const size = 1 << 40
	const between = (size-2*4<<20)/513 + 64<<10
	for at := int64(0); at < size-between; at += size / 7 {
		d := specimen.New(size)
		d.Data = func(b int64) bool { return b >= at && b < at+between }
		if got, err := contents.Describe(d, size, 512); err != nil || got != "unknown data" {
			t.Fatalf("%d bytes at %d: %q, %v", int64(between), at, got, err)
		}
	}
}

// A blank disk, the slowest, takes a bounded number of reads, whatever its size.
func TestBlankDiskIsReadInFewPlaces(t *testing.T) {
	for _, size := range []int64{16 << 30, 20 << 40} {
		d := specimen.New(size)
		if got, err := contents.Describe(d, size, 512); err != nil || got != machine.Empty {
			t.Fatalf("%q, %v", got, err)
		}
		if n := d.Reads(); n > 700 {
			t.Errorf("a disk of %d bytes: %d reads", size, n)
		}
	}
}

func TestUnreadable(t *testing.T) {
	gone := errors.New("input/output error")
	for _, c := range []struct {
		name string
		from int64
		make func(*specimen.Disk)
		want string // of the text or the error
	}{
		{"from the first byte on", 0, func(*specimen.Disk) {}, "reading the first 69632 bytes: input/output error"},
		{"in the middle of a blank disk", 8 << 30, func(*specimen.Disk) {}, "input/output error"},
		{"a partition", 2 << 30, specimen.GPT(512, specimen.Partition{MiB: 1024, In: specimen.Ext4("a")}, specimen.Partition{MiB: 8192, In: specimen.Ext4("b")}), `GPT, 2 partitions: ext4 "a", unreadable`},
	} {
		d := specimen.New(specimen.Size)
		c.make(d)
		d.Bad = func(at int64) error {
			if at >= c.from && at < specimen.Size-64<<20 || c.from == 0 {
				return gone
			}
			return nil
		}
		text, err := contents.Describe(d, d.Size, 512)
		if all := fmt.Sprint(text, err); !strings.Contains(all, c.want) {
			t.Errorf("%s: %q, %v", c.name, text, err)
		}
		if text == machine.Empty {
			t.Errorf("%s: empty", c.name)
		}
	}
}

func TestTextsHaveABound(t *testing.T) {
	var parts []specimen.Partition
	for i := range 100 {
		parts = append(parts, specimen.Partition{MiB: 100, In: specimen.Ext4(fmt.Sprintf("volume %d", i))})
	}
	text := func() string {
		d := specimen.New(specimen.Size)
		specimen.GPT(512, parts...)(d)
		s, err := contents.Describe(d, d.Size, 512)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	one := text()
	if len(one) > 220 || !strings.HasPrefix(one, `GPT, 100 partitions: ext4 "volume 0", `) {
		t.Errorf("%d bytes: %s", len(one), one)
	}
	parts[99].In = specimen.Ext4("other")
	if other := text(); other == one {
		t.Error("another disk has the same text")
	}
}

func TestParts(t *testing.T) {
	d := specimen.New(specimen.Size)
	specimen.GPT(512, specimen.Partition{MiB: 100}, specimen.Partition{MiB: 200})(d)
	// A newer primary table: the old one is still at the end.
	old := specimen.New(specimen.Size)
	specimen.GPT(512, specimen.Partition{MiB: 150})(old)
	primary := make([]byte, 34*512)
	if _, err := old.ReadAt(primary, 0); err != nil {
		t.Fatal(err)
	}
	d.Put(0, string(primary))
	got, err := contents.Parts(d, d.Size, 512)
	const mib = 1 << 20
	want := []contents.Part{{mib, 150 * mib}, {mib, 100 * mib}, {101 * mib, 200 * mib}, {512, specimen.Size - 512}}
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
}

// The boot service knows how the disk of a node reads, whatever its name.
func TestFinished(t *testing.T) {
	for _, name := range []string{"", "node-1", "a-name-with-twenty-eight-cha", "a-name-with-more-than-twenty-eight", "a-name-that-is-cut-at-a-hyph-en"} {
		d := specimen.New(specimen.Size)
		specimen.GPT(512, specimen.Node(contents.Finished(name))...)(d)
		if text, err := contents.Describe(d, d.Size, 512); err != nil || text != machine.NodeDisk(name) || !machine.Left(text, name) || machine.Left(text, "node-2") {
			t.Errorf("%q: %q, %v", name, text, err)
		}
	}
}

func FuzzDescribe(f *testing.F) {
	for _, s := range specimen.All {
		head := make([]byte, 72<<10)
		if _, err := s.Make().ReadAt(head, 0); err != nil {
			f.Fatal(err)
		}
		f.Add(head, head[:512])
	}
	f.Fuzz(func(t *testing.T, head, tail []byte) {
		const size = 3 << 20
		d := specimen.New(size)
		d.Put(0, string(head[:min(len(head), size)])).Put(-int64(min(len(tail), size)), string(tail[:min(len(tail), size)]))
		text, err := contents.Describe(d, size, 512)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := contents.Describe(d, size, 512); err != nil || again != text || len(text) > 220 {
			t.Fatalf("%q, then %q, %v", text, again, err)
		}
		if _, err := contents.Parts(d, size, 512); err != nil {
			t.Fatal(err)
		}
	})
}
