package contents

import (
	"bytes"
	"fmt"
	"io"
)

// A place is blank if its bytes are all zero, as of a disk that is new or was
// wiped, or all 0xFF, as flash has them that was erased. (What a disk returns
// after an erasure by its own encryption may be neither: it is unknown data.)
//
// A disk is blank if its first and last 4 MiB are, and places of 64 KiB spread
// evenly between. Whoever wiped only the beginning of a disk is found out so
// where its file systems kept anything in one place of 64 KiB in 512; blank but
// for a few files it passes for empty. On a rotating disk the 512 places take
// about three seconds, less than its first page of partition tables takes to
// explain.
const (
	edge    = 4 << 20
	samples = 512
	// Of a partition, which is named either way, less.
	partEdge    = 256 << 10
	partSamples = 16

	sample = 64 << 10
	chunk  = 1 << 20
)

var zeros, ones = make([]byte, chunk), bytes.Repeat([]byte{0xff}, chunk)

// isBlank looks at a disk or partition of size bytes.
func isBlank(r io.ReaderAt, size, edge int64, samples int) (bool, error) {
	buffer := make([]byte, chunk)
	for _, s := range places(size, edge, samples) {
		for at := s.First; at < s.First+s.Length; at += chunk {
			b := buffer[:min(chunk, s.First+s.Length-at)]
			if n, err := r.ReadAt(b, at); n < len(b) {
				return false, fmt.Errorf("reading at byte %d: %w", at, err)
			}
			if !uniform(b) {
				return false, nil
			}
		}
	}
	return true, nil
}

// uniform says whether each 4 KiB are all zero or all ones.
func uniform(b []byte) bool {
	const page = 4096
	if bytes.Equal(b, zeros[:len(b)]) || bytes.Equal(b, ones[:len(b)]) {
		return true
	}
	for len(b) > 0 {
		p := b[:min(page, len(b))]
		if !bytes.Equal(p, zeros[:len(p)]) && !bytes.Equal(p, ones[:len(p)]) {
			return false
		}
		b = b[len(p):]
	}
	return true
}

// places are where isBlank looks, in the order of the disk but for its end,
// which is looked at second: most that is on a disk is known by its ends.
func places(size, edge int64, samples int) []Part {
	if size <= 2*edge {
		return []Part{{0, size}}
	}
	list := []Part{{0, edge}, {size - edge, edge}}
	step := (size - 2*edge) / int64(samples+1)
	for i := range int64(samples) {
		at := (edge + (i+1)*step) &^ 4095
		list = append(list, Part{at, min(sample, size-edge-at)})
	}
	return list
}
