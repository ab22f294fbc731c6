// Package efi reads and makes the firmware's boot entries (UEFI 2.10, chapters 3
// and 10).
package efi

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"unicode"
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

// Entry is a boot entry, as far as its place in the order depends on it.
type Entry struct {
	Description string
	Active      bool
	// Network says that it boots from a network interface, of this address if
	// its device path tells.
	Network bool
	MAC     string
	// Medium says that it boots from a disk, a stick, a CD or the firmware's
	// own memory.
	Medium bool
}

// ParseEntry reads an EFI_LOAD_OPTION. Of a device path that is malformed what
// comes before the fault counts.
func ParseEntry(option []byte) (Entry, error) {
	if len(option) < 6 {
		return Entry{}, fmt.Errorf("the boot entry has %d bytes", len(option))
	}
	e := Entry{Active: binary.LittleEndian.Uint32(option)&active != 0}
	var units []uint16
	at := 6
	for ; ; at += 2 {
		if at+1 >= len(option) {
			return Entry{}, errors.New("the boot entry's name does not end")
		}
		u := binary.LittleEndian.Uint16(option[at:])
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	e.Description = printable(string(utf16.Decode(units)))
	path := option[at+2:]
	path = path[:min(len(path), int(binary.LittleEndian.Uint16(option[4:])))]
	for len(path) >= 4 {
		size := int(binary.LittleEndian.Uint16(path[2:]))
		if size < 4 || size > len(path) {
			break
		}
		e.node(path[0], path[1], path[4:size])
		path = path[size:]
	}
	return e, nil
}

// Types and subtypes of device path nodes (§10.3.2 to §10.3.6).
const (
	messaging  = 3
	usb        = 5
	macAddress = 11
	ipv4       = 12
	ipv6       = 13
	usbClass   = 15
	usbWWID    = 16
	uri        = 24

	media        = 4
	hardDrive    = 1
	cdROM        = 2
	firmwareFile = 6
	firmware     = 7

	bbs        = 5 // BIOS Boot Specification: what legacy boot has
	bbsNetwork = 6
)

func (e *Entry) node(kind, subtype byte, data []byte) {
	switch kind {
	case messaging:
		switch subtype {
		case macAddress:
			e.Network = true
			if len(data) >= 6 {
				e.MAC = net.HardwareAddr(data[:6]).String()
			}
		case ipv4, ipv6, uri:
			e.Network = true
		case usb, usbClass, usbWWID:
			e.Medium = true
		}
	case media:
		e.Medium = e.Medium || subtype == hardDrive || subtype == cdROM || subtype == firmwareFile || subtype == firmware
	case bbs:
		if len(data) >= 2 && binary.LittleEndian.Uint16(data) == bbsNetwork {
			e.Network = true
		} else {
			e.Medium = true
		}
	}
}

// printable is a description as it can be shown.
func printable(s string) string {
	const limit = 80
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.TrimSpace(s))
	if r := []rune(s); len(r) > limit {
		return string(r[:limit]) + "…"
	}
	return s
}

// Boot is the firmware's list of what it boots.
type Boot struct {
	Order   []uint16
	Entries map[uint16]Entry
	// Current is the entry that this boot came by; nil if the firmware does not
	// tell.
	Current *uint16
}

// maxLines bounds what is reported of an order: firmware that makes an entry
// for each boot of each NIC has been seen.
const maxLines = 40

// Lines are the order for people: "Boot0003 UEFI PXEv4 (MAC:525400D00001)".
func (b Boot) Lines() []string {
	var lines []string
	for _, n := range b.Order {
		if len(lines) == maxLines {
			lines = append(lines, fmt.Sprintf("and %d more", len(b.Order)-maxLines))
			break
		}
		line := fmt.Sprintf("Boot%04X %s", n, b.Entries[n].Description)
		if e, known := b.Entries[n]; known && !e.Active {
			line += " (switched off)"
		}
		lines = append(lines, strings.TrimSpace(line))
	}
	return lines
}

// NewOrder is the order with the entry ours in it, once, and without those of
// drop. The boot service decides what a node boots: so the network comes before
// ours, the network being the entry that this boot came by; ours comes at once
// behind it, so that a boot service that is away costs one attempt; all others
// keep their order. (It is what MAAS has its installer do with BootCurrent:
// firmware, and what other systems' loaders leave there, put their own entries
// first.)
func (b Boot) NewOrder(ours uint16, mac string, drop []uint16) []uint16 {
	var next []uint16
	if n, ok := b.network(mac); ok && n != ours {
		next = append(next, n)
	}
	next = append(next, ours)
	for _, n := range b.Order {
		if !slices.Contains(next, n) && !slices.Contains(drop, n) {
			next = append(next, n)
		}
	}
	return next
}

// network is the entry of the order that boots this machine from the network:
// that of this boot, unless it is clearly none (a stick with iPXE); else the
// first of the interface that was netbooted from; else the first of any.
func (b Boot) network(mac string) (uint16, bool) {
	if c := b.Current; c != nil && slices.Contains(b.Order, *c) {
		if e := b.Entries[*c]; e.Network || !e.Medium {
			return *c, true
		}
	}
	for _, fits := range []func(Entry) bool{
		func(e Entry) bool { return e.Network && e.Active && mac != "" && e.MAC == mac },
		func(e Entry) bool { return e.Network && e.Active },
	} {
		for _, n := range b.Order {
			if fits(b.Entries[n]) {
				return n, true
			}
		}
	}
	return 0, false
}

// Numbers are the number for an entry of that name: the lowest of those that
// have it already, else the lowest that is not taken; and the others that have
// it.
func (b Boot) Numbers(name string) (ours uint16, others []uint16) {
	var named []uint16
	for n, e := range b.Entries {
		if e.Description == name {
			named = append(named, n)
		}
	}
	if slices.Sort(named); len(named) > 0 {
		return named[0], named[1:]
	}
	for n := uint16(0); ; n++ {
		if _, taken := b.Entries[n]; !taken && !slices.Contains(b.Order, n) {
			return n, nil
		}
	}
}

// parseOrder reads BootOrder.
func parseOrder(b []byte) ([]uint16, error) {
	if len(b)%2 != 0 {
		return nil, fmt.Errorf("BootOrder has %d bytes", len(b))
	}
	var order []uint16
	for i := 0; i < len(b); i += 2 {
		order = append(order, binary.LittleEndian.Uint16(b[i:]))
	}
	return order, nil
}

// encodeOrder is its inverse.
func encodeOrder(order []uint16) []byte {
	var b []byte
	for _, n := range order {
		b = binary.LittleEndian.AppendUint16(b, n)
	}
	return b
}
