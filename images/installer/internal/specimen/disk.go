// Package specimen makes disks as they are found in machines, for tests: what
// is on them, in few bytes.
package specimen

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Disk is a disk in memory, of which only what was written is kept.
type Disk struct {
	Size int64
	Fill byte // of all that was never written
	// Data, if not nil, says which stretches of 16 KiB that were never written
	// hold data nevertheless.
	Data func(offset int64) bool
	// Bad, if not nil, says what goes wrong with reading a byte.
	Bad func(offset int64) error

	mu     sync.Mutex
	blocks map[int64][]byte
	// Writes are the runs of bytes that were written, in their order: where each
	// begins, and how long it is. Discards are the same of hints.
	Writes, Discards [][2]int64
	reads            int
}

const block = 16 << 10

var zero [block]byte

// New returns a disk of size bytes that are all zero.
func New(size int64) *Disk { return &Disk{Size: size, blocks: map[int64][]byte{}} }

func (d *Disk) block(n int64) []byte {
	if b, ok := d.blocks[n]; ok {
		return b
	}
	return bytes.Repeat([]byte{d.Fill}, block)
}

// WriteAt fails beyond the disk's end, as a disk does.
func (d *Disk) WriteAt(p []byte, offset int64) (int, error) {
	if offset < 0 || offset+int64(len(p)) > d.Size {
		return 0, fmt.Errorf("%d bytes at %d are not on a disk of %d", len(p), offset, d.Size)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.Writes = append(d.Writes, [2]int64{offset, int64(len(p))})
	for i := 0; i < len(p); {
		at := offset + int64(i)
		n := min(len(p)-i, int(block-at%block))
		if _, kept := d.blocks[at/block]; kept || d.Fill != 0 || d.Data != nil || !bytes.Equal(p[i:i+n], zero[:n]) {
			b := d.block(at / block)
			copy(b[at%block:], p[i:i+n])
			d.blocks[at/block] = b
		}
		i += n
	}
	return len(p), nil
}

func (d *Disk) ReadAt(p []byte, offset int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reads++
	n := min(int64(len(p)), d.Size-offset)
	if offset < 0 || n < 0 {
		return 0, errors.New("not on the disk")
	}
	for i := int64(0); i < n; {
		at := offset + i
		if d.Bad != nil {
			if err := d.Bad(at); err != nil {
				return int(i), err
			}
		}
		if b, ok := d.blocks[at/block]; ok {
			i += int64(copy(p[i:n], b[at%block:]))
			continue
		}
		gap := p[i:min(n, i+block-at%block)]
		fill := d.Fill
		if d.Data != nil && d.Data(at) {
			fill = 'x'
		}
		for j := range gap {
			gap[j] = fill
		}
		i += int64(len(gap))
	}
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

// Sync does nothing.
func (d *Disk) Sync() error { return nil }

// Discard keeps what is there, as a disk may: it is only a hint.
func (d *Disk) Discard(first, length int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.Discards = append(d.Discards, [2]int64{first, length})
	return nil
}

// Reads is how often the disk was read.
func (d *Disk) Reads() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.reads
}

// Put writes a text at an offset, from the end if it is negative.
func (d *Disk) Put(offset int64, text string) *Disk {
	if offset < 0 {
		offset += d.Size
	}
	if _, err := d.WriteAt([]byte(text), offset); err != nil {
		panic(err) // a fault of the test
	}
	return d
}

// Copy returns a disk of the same contents that was never written.
func (d *Disk) Copy() *Disk {
	c := New(d.Size)
	c.Fill, c.Data = d.Fill, d.Data
	for n, b := range d.blocks {
		c.blocks[n] = bytes.Clone(b)
	}
	return c
}

// In returns the part of a disk as one of its own, for what makes a whole disk's
// contents. Its bytes are the disk's.
func (d *Disk) In(first, length int64, make func(*Disk)) *Disk {
	part := New(length)
	make(part)
	for n, b := range part.blocks {
		d.Put(first+n*block, string(b[:min(block, length-n*block)]))
	}
	return d
}
