package medium

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/rackseed/rackseed/images/pid1/block"
)

// There is what was found at the data partition's place.
type There int

const (
	Nothing There = iota // or something that is not ours
	Ours                 // a file system of ours, by its first superblock
	Damaged              // one whose first superblock is gone, by a copy of it
)

// The ext4 that mke2fs makes for us: blocks of 4 KiB, copies of the superblock
// in the block groups 1 and the powers of 3, 5 and 7 (feature sparse_super;
// ext4(5), kernel Documentation/filesystems/ext4/super.rst).
const (
	blockBytes  = 4096
	groupBlocks = 8 * blockBytes // one block of bitmap
)

var copies = []int64{1, 3, 5, 7, 9}

// look says what is in a place of size bytes. A file system of ours is looked
// for by its own marks first, and all of them: what its files hold may look
// like a member of a RAID or a pool, and none of that may hide it. what names
// it for messages; empty if there is nothing that is known.
func look(r io.ReaderAt, size int64) (found There, what string, err error) {
	ours, err := superblock(r, size, 1024, 0)
	if err != nil {
		return 0, "", err
	}
	if ours {
		return Ours, "ext4 " + DataLabel, nil
	}
	for _, group := range copies {
		ours, err := superblock(r, size, group*groupBlocks*blockBytes, uint16(group))
		if err != nil {
			return 0, "", err
		}
		if ours {
			return Damaged, fmt.Sprintf("ext4 %s without its first superblock, with the copy in block group %d", DataLabel, group), nil
		}
	}
	s, err := block.Probe(r, size)
	if err != nil {
		return 0, "", err
	}
	if s.Label != "" {
		s.Type += " " + s.Label
	}
	return Nothing, s.Type, nil
}

// superblock says whether the superblock of a block group, with our label, is
// at offset.
func superblock(r io.ReaderAt, size, offset int64, group uint16) (bool, error) {
	b := make([]byte, 1024)
	if offset+int64(len(b)) > size {
		return false, nil
	}
	if _, err := r.ReadAt(b, offset); err != nil && !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("reading at byte %d: %w", offset, err)
	}
	le := binary.LittleEndian
	label := make([]byte, 16)
	copy(label, DataLabel)
	return le.Uint16(b[56:]) == 0xef53 && le.Uint16(b[90:]) == group && string(b[120:136]) == string(label), nil
}
