// Package efi makes the firmware's boot entries (UEFI 2.10, chapter 3).
package efi

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"unicode/utf16"

	"github.com/rackseed/rackseed/images/pid1/gpt"
)

// active is LOAD_OPTION_ACTIVE: the boot manager tries the entry.
const active = 1

// LoadOption encodes an EFI_LOAD_OPTION (§3.1.3) that starts a file of a GPT
// partition: a hard drive media device path (§10.3.5.1), a file path
// (§10.3.5.4) and the end (§10.3.1). file is as \EFI\BOOT\BOOTX64.EFI.
func LoadOption(description string, p gpt.Partition, file string) []byte {
	le := binary.LittleEndian
	drive := []byte{4, 1, 42, 0}
	drive = le.AppendUint32(drive, uint32(p.Number))
	drive = le.AppendUint64(drive, p.First)
	drive = le.AppendUint64(drive, p.Last-p.First+1)
	id := p.ID.Disk()
	drive = append(drive, id[:]...)
	drive = append(drive, 2, 2) // GPT, identified by GUID

	name := ucs2(file)
	path := le.AppendUint16([]byte{4, 4}, uint16(4+len(name)))
	path = append(append(drive, path...), name...)
	path = append(path, 0x7f, 0xff, 4, 0)

	option := le.AppendUint32(nil, active)
	option = le.AppendUint16(option, uint16(len(path)))
	option = append(option, ucs2(description)...)
	return append(option, path...)
}

// ucs2 encodes with the terminating zero.
func ucs2(s string) []byte {
	var b []byte
	for _, u := range append(utf16.Encode([]rune(s)), 0) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return b
}

// Description reads an entry's name.
func Description(option []byte) (string, error) {
	var units []uint16
	for i := 6; i+1 < len(option); i += 2 {
		u := binary.LittleEndian.Uint16(option[i:])
		if u == 0 {
			return string(utf16.Decode(units)), nil
		}
		units = append(units, u)
	}
	return "", errors.New("the boot entry's name does not end")
}

// ParseOrder reads BootOrder.
func ParseOrder(b []byte) ([]uint16, error) {
	if len(b)%2 != 0 {
		return nil, fmt.Errorf("BootOrder has %d bytes", len(b))
	}
	var order []uint16
	for i := 0; i < len(b); i += 2 {
		order = append(order, binary.LittleEndian.Uint16(b[i:]))
	}
	return order, nil
}

// EncodeOrder is its inverse.
func EncodeOrder(order []uint16) []byte {
	var b []byte
	for _, n := range order {
		b = binary.LittleEndian.AppendUint16(b, n)
	}
	return b
}

// NewOrder puts the entry ours second behind current, the one that this boot
// came by, which is the network's: a node stays in reach of the boot service,
// which sends it on to its disk. If current is not in the order, ours is first.
func NewOrder(order []uint16, current, ours uint16) []uint16 {
	var next []uint16
	if slices.Contains(order, current) && current != ours {
		next = append(next, current)
	}
	next = append(next, ours)
	for _, n := range order {
		if !slices.Contains(next, n) {
			next = append(next, n)
		}
	}
	return next
}

// Free returns the number for an entry of that name: that of the one that has
// it already, else the lowest that is not taken.
func Free(entries map[uint16]string, name string) uint16 {
	found, best := false, uint16(0)
	for n, d := range entries {
		if d == name && (!found || n < best) {
			found, best = true, n
		}
	}
	if found {
		return best
	}
	for n := uint16(0); ; n++ {
		if _, taken := entries[n]; !taken {
			return n
		}
	}
}
