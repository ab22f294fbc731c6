package medium

import (
	"bytes"
	"encoding/binary"
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/rackseed/rackseed/images/pid1/gpt"
)

// drive is a stick with what prepare does to it. Its format lays down the
// superblocks that mke2fs does; data_host_test.go holds that to the real one.
type drive struct {
	t         *testing.T
	file      *os.File
	formatted int
	fail      error // of the next format
	log       bytes.Buffer
}

func newDrive(t *testing.T) *drive { return &drive{t: t, file: stick(t, size16G)} }

func (d *drive) start() error {
	return prepare(d.file, size16G, steps{
		log:  slog.New(slog.NewTextHandler(&d.log, nil)),
		show: func(Table) (string, error) { return "/dev/sda4", nil },
		format: func(string) error {
			d.formatted++
			if d.fail != nil {
				err := d.fail
				d.fail = nil
				return err
			}
			d.format()
			return nil
		},
	})
}

func (d *drive) format() {
	d.t.Helper()
	for _, group := range append([]int64{0}, copies...) {
		b := make([]byte, 1024)
		binary.LittleEndian.PutUint16(b[56:], 0xef53)
		binary.LittleEndian.PutUint16(b[90:], uint16(group))
		copy(b[120:], DataLabel)
		d.put(max(group*groupBlocks*blockBytes, 1024), b)
	}
}

// put writes at an offset in the data partition's place.
func (d *drive) put(offset int64, b []byte) {
	d.t.Helper()
	if _, err := d.file.WriteAt(b, DataOffset+offset); err != nil {
		d.t.Fatal(err)
	}
}

// table is what the drive's table says.
func (d *drive) table() Table {
	d.t.Helper()
	table, err := ReadTable(d.file, size16G)
	if err != nil {
		d.t.Fatal(err)
	}
	return table
}

// rewrite writes the image to the stick anew: the table, not the data.
func (d *drive) rewrite() {
	d.t.Helper()
	image := make([]byte, 1<<20)
	if _, err := stick(d.t, size16G).ReadAt(image, 0); err != nil {
		d.t.Fatal(err)
	}
	if _, err := d.file.WriteAt(image, 0); err != nil {
		d.t.Fatal(err)
	}
}

func (d *drive) first() {
	d.t.Helper()
	if err := d.start(); err != nil || d.formatted != 1 || d.table().Entry != Made {
		d.t.Fatalf("first start: %v, formatted %d times, entry %d", err, d.formatted, d.table().Entry)
	}
}

func (d *drive) refused(what string) {
	d.t.Helper()
	var damaged *DamagedError
	err := d.start()
	if !errors.As(err, &damaged) || !strings.Contains(err.Error(), "e2fsck -f -b 32768 -B 4096") || !strings.Contains(err.Error(), "/dev/sda4") {
		d.t.Errorf("%s: %v", what, err)
	}
	if d.formatted != 1 || d.table().Entry != Made {
		d.t.Errorf("%s: formatted %d times, entry %d", what, d.formatted, d.table().Entry)
	}
}

func TestFirstStartMakesAndTheNextFinds(t *testing.T) {
	d := newDrive(t)
	d.first()
	if strings.Contains(d.log.String(), "there=") {
		t.Errorf("nothing was there, and the log says %s", d.log.String())
	}
	if err := d.start(); err != nil || d.formatted != 1 {
		t.Errorf("second start: %v, formatted %d times", err, d.formatted)
	}
}

func TestADamagedFileSystemIsNotMadeAnew(t *testing.T) {
	d := newDrive(t)
	d.first()
	d.put(1024, make([]byte, 1024))
	d.refused("first superblock zeroed")
	d.rewrite()
	d.refused("and the image written anew")
	for _, group := range copies {
		d.put(group*groupBlocks*blockBytes, make([]byte, 1024))
	}
	d.refused("all superblocks zeroed")
}

// What the data's files hold may look like anything.
func TestDataThatLooksLikeARAIDIsNotFormatted(t *testing.T) {
	for name, put := range map[string]func(d *drive, size int64){
		"Intel RAID": func(d *drive, size int64) { d.put(size-1024, []byte("Intel Raid ISM Cfg Sig. 1.0")) },
		"md":         func(d *drive, size int64) { d.put(4096, []byte("\xfc\x4e\x2b\xa9")) },
		"ZFS":        func(d *drive, size int64) { d.put(128<<10, binary.LittleEndian.AppendUint64(nil, 0x00bab10c)) },
	} {
		d := newDrive(t)
		d.first()
		put(d, d.table().Bytes)
		if err := d.start(); err != nil || d.formatted != 1 {
			t.Errorf("%s: %v, formatted %d times", name, err, d.formatted)
		}
		d.rewrite()
		if err := d.start(); err != nil || d.formatted != 1 {
			t.Errorf("%s, image written anew: %v, formatted %d times", name, err, d.formatted)
		}
	}
}

func TestAFirstStartThatWasCutOffIsDoneAgain(t *testing.T) {
	d := newDrive(t)
	d.fail = errors.New("signal: killed")
	if err := d.start(); err == nil || !strings.Contains(err.Error(), "/dev/sda4: signal: killed") {
		t.Errorf("cut off: %v", err)
	}
	if e := d.table().Entry; e != Making {
		t.Errorf("cut off, the entry says %d", e)
	}
	if err := d.start(); err != nil || d.formatted != 2 || d.table().Entry != Made {
		t.Errorf("next start: %v, formatted %d times", err, d.formatted)
	}
}

func TestAfterWritingTheImageAnewTheDataIsFound(t *testing.T) {
	d := newDrive(t)
	d.first()
	before := d.table()
	d.rewrite()
	if d.table().Entry != Absent {
		t.Fatal("the entry is still there")
	}
	if err := d.start(); err != nil || d.formatted != 1 || d.table().Entry != Made || d.table().Bytes != before.Bytes {
		t.Errorf("%v, formatted %d times, %+v", err, d.formatted, d.table())
	}
}

func TestAForeignPartitionIsLeftAlone(t *testing.T) {
	d := newDrive(t)
	d.first()
	table := d.table()
	entry := table.raw.entry(DataNumber)
	clear(entry[56:128])
	entry[56] = 'x'
	if err := write(d.file, table.raw.writes()); err != nil {
		t.Fatal(err)
	}
	if err := d.start(); err == nil || !strings.Contains(err.Error(), `is not it ("x"`) || d.formatted != 1 {
		t.Errorf("%v, formatted %d times", err, d.formatted)
	}
}

// What was on the stick before the image was written to it is given up.
func TestLeavingsOfAnotherFileSystemAreFormatted(t *testing.T) {
	d := newDrive(t)
	b := make([]byte, 1024)
	binary.LittleEndian.PutUint16(b[56:], 0xef53)
	copy(b[120:], "photos")
	d.put(1024, b)
	d.first()
	if !strings.Contains(d.log.String(), `there="ext2 photos"`) {
		t.Errorf("the log says %s", d.log.String())
	}
}

// A loss of power after any write of the first start: the next start ends as one
// that was not cut off, and its successor finds it.
func TestFirstStartCutOffAnywhere(t *testing.T) {
	const perTable = 5 // writes of a table
	for cut := range 2*perTable + 1 {
		d := newDrive(t)
		table := d.table()
		said := table.Say(Making, gpt.NewGUID())
		if err := write(d.file, said[:min(cut, perTable)]); err != nil {
			t.Fatal(err)
		}
		if cut > perTable {
			d.format()
			if err := write(d.file, table.Say(Made, gpt.GUID{})[:cut-perTable]); err != nil {
				t.Fatal(err)
			}
		}
		if err := d.start(); err != nil || d.table().Entry != Made {
			t.Errorf("cut off after %d writes: %v, entry %d", cut, err, d.table().Entry)
		}
		formatted := d.formatted
		if err := d.start(); err != nil || d.formatted != formatted || formatted > 1 {
			t.Errorf("cut off after %d writes, second start: %v, formatted %d times", cut, err, d.formatted)
		}
	}
}
