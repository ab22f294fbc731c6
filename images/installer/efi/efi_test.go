package efi

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/rackseed/rackseed/images/pid1/gpt"
	"golang.org/x/sys/unix"
)

var partition = gpt.Partition{Number: 2, ID: gpt.MustGUID("00112233-4455-6677-8899-aabbccddeeff"), First: 4096, Last: 4096 + 2097152 - 1}

const loader = `\EFI\BOOT\BOOTX64.EFI`

// Laid out by hand after UEFI 2.10 §3.1.3, §10.3.5.1 and §10.3.5.4.
func TestLoadOption(t *testing.T) {
	want := "01000000" + "3800" + // active; 56 bytes of device path
		"520061000000" + // "Ra"
		"04012a00" + "02000000" + "0010000000000000" + "0000200000000000" + "33221100554477668899aabbccddeeff" + "0202" +
		"04040a00" + "5c0041000000" + // \A
		"7fff0400"
	if got := hex.EncodeToString(LoadOption("Ra", partition, `\A`)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// option is an entry with a device path in hexadecimal, its end added.
func option(t *testing.T, attributes byte, description, path string) []byte {
	t.Helper()
	p, err := hex.DecodeString(strings.ReplaceAll(path, " ", "") + "7fff0400")
	if err != nil {
		t.Fatal(err)
	}
	b := append([]byte{attributes, 0, 0, 0, byte(len(p)), byte(len(p) >> 8)}, ucs2(description)...)
	return append(b, p...)
}

// Device paths as firmware has them: OVMF, HPE, Dell.
const (
	pci       = "02010c00 d041030a 00000000 01010600 0003 "
	mac1      = "030b2500 525400d00001 0000000000000000000000000000000000000000000000000000 01 "
	mac2      = "030b2500 525400d10001 0000000000000000000000000000000000000000000000000000 01 "
	ip4       = "030c1b00 00000000 00000000 0000 0000 0000 00 00000000 00000000 "
	web       = "03180400 "
	hd        = "04012a00 01000000 0008000000000000 0000100000000000 33221100554477668899aabbccddeeff 0202 04040a00 5c0041000000 "
	cd        = "04021800 00000000 0000000000000000 0000000000000000 "
	stick     = "03050600 0100 "
	nvme      = "03171000 01000000 0000000000000000 "
	uiApp     = "04071400 c9bdb87cebf8344faaea3ee4af6516a1 04061400 21aa2c4614760345836e8ab6f4662331 "
	bbsNIC    = "05010a00 0600 0000 4e00 "
	bbsDisk   = "05010a00 0200 0000 4800 "
	vendorNIC = "01041400 00112233445566778899aabbccddeeff "
)

func TestParseEntry(t *testing.T) {
	for _, c := range []struct {
		name       string
		attributes byte
		path       string
		want       Entry
	}{
		{"UEFI PXEv4 (MAC:525400D00001)", 1, pci + mac1 + ip4, Entry{Network: true, MAC: "52:54:00:d0:00:01"}},
		{"UEFI HTTPv4 (MAC:525400D00001)", 1, pci + mac1 + ip4 + web, Entry{Network: true, MAC: "52:54:00:d0:00:01"}},
		{"Legacy PXE", 1, bbsNIC, Entry{Network: true}},
		{"Legacy disk", 1, bbsDisk, Entry{Medium: true}},
		{"debian", 1, hd, Entry{Medium: true}},
		{"UEFI QEMU DVD-ROM", 1, pci + cd, Entry{Medium: true}},
		{"Stick", 1, pci + stick, Entry{Medium: true}},
		{"UEFI Samsung SSD", 1, pci + nvme, Entry{}},
		{"UiApp", 9, uiApp, Entry{Medium: true}},
		{"Embedded NIC 1 Port 1", 1, vendorNIC, Entry{}},
		{"off", 0, pci + mac1, Entry{Network: true, MAC: "52:54:00:d0:00:01"}},
		{"malformed", 1, "030b0300", Entry{}},
		{"too long", 1, "030bff00", Entry{}},
	} {
		c.want.Description, c.want.Active = c.name, c.attributes&1 != 0
		if got, err := ParseEntry(option(t, c.attributes, c.name, c.path)); err != nil || got != c.want {
			t.Errorf("%s: %+v, %v, want %+v", c.name, got, err, c.want)
		}
	}
	if e, err := ParseEntry(LoadOption("Rackseed", partition, loader)); err != nil || !e.Medium || e.Description != "Rackseed" {
		t.Errorf("%+v, %v", e, err)
	}
	for _, b := range [][]byte{nil, {1, 0, 0}, {1, 0, 0, 0, 1, 0, 'x', 0}} {
		if e, err := ParseEntry(b); err == nil {
			t.Errorf("%x: %+v", b, e)
		}
	}
	if e, err := ParseEntry(option(t, 1, " a\x1b[2J"+strings.Repeat("b", 200), "")); err != nil || e.Description != "a?[2J"+strings.Repeat("b", 75)+"…" {
		t.Errorf("%q, %v", e.Description, err)
	}
}

func FuzzParseEntry(f *testing.F) {
	f.Add(LoadOption("Rackseed", partition, loader))
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, err := ParseEntry(b); err == nil && len([]rune(e.Description)) > 81 {
			t.Errorf("%q", e.Description)
		}
	})
}

// memory is the firmware of a machine.
type memory struct {
	vars    map[string][]byte
	writes  []string
	removed []string
	err     error // of each write
	refuses string
	forgets bool
}

func (m *memory) Names() ([]string, error) {
	var names []string
	for n := range m.vars {
		names = append(names, n)
	}
	return names, nil
}

func (m *memory) Read(name string) ([]byte, error) {
	if b, ok := m.vars[name]; ok {
		return b, nil
	}
	return nil, fmt.Errorf("firmware variable %s: %w", name, os.ErrNotExist)
}

func (m *memory) Write(name string, data []byte) error {
	if m.refuses == name {
		return fmt.Errorf("firmware variable %s: %w", name, unix.EIO)
	}
	if m.err != nil {
		return fmt.Errorf("firmware variable %s: %w", name, m.err)
	}
	m.writes = append(m.writes, name)
	if !m.forgets {
		m.vars[name] = bytes.Clone(data)
	}
	return nil
}

func (m *memory) Remove(name string) error {
	delete(m.vars, name)
	m.removed = append(m.removed, name)
	return nil
}

// Orders as they are found, and as an install must leave them.
func TestAddEntry(t *testing.T) {
	type entry struct{ name, path string }
	const bootMAC = "52:54:00:d0:00:01"
	ours := entry{"Rackseed", hd}
	for _, c := range []struct {
		name    string
		entries []entry // by their numbers from 0 on
		order   string
		current int // -1: the firmware does not tell
		want    string
		removed string
	}{
		{"the network is first", []entry{{"PXE", mac1}, {"Disk", hd}}, "0 1", 0, "PXE, Rackseed, Disk", ""},
		{"each NIC has two ways", []entry{{"PXE1", mac1 + ip4}, {"HTTP1", mac1 + ip4 + web}, {"PXE2", mac2}, {"UiApp", uiApp}}, "2 0 1 3", 0, "PXE1, Rackseed, PXE2, HTTP1, UiApp", ""},
		{"installed before", []entry{{"PXE", mac1}, ours, {"Disk", hd}}, "0 1 2", 0, "PXE, Rackseed, Disk", ""},
		{"installed often, on several disks", []entry{{"PXE", mac1}, ours, {"Disk", hd}, ours, ours}, "4 0 1 2 3", 0, "PXE, Rackseed, Disk", "Boot0003 Boot0004"},
		{"an old one that is in no order", []entry{{"PXE", mac1}, ours}, "0", 0, "PXE, Rackseed", ""},
		{"another system's loader put itself first", []entry{{"PXE", mac1}, {"UiApp", uiApp}, {"debian", hd}}, "2 0 1", 0, "PXE, Rackseed, debian, UiApp", ""},
		{"so did the firmware, with what it found on the disk", []entry{{"PXE", mac1}, {"UEFI OS", hd}, ours}, "1 2 0", 0, "PXE, Rackseed, UEFI OS", ""},
		{"a disk that was empty is first", []entry{{"UEFI Samsung SSD", nvme}, {"PXE", mac1}}, "0 1", 1, "PXE, Rackseed, UEFI Samsung SSD", ""},
		{"a NIC that is not told as one", []entry{{"Windows", hd}, {"Embedded NIC 1", vendorNIC}}, "0 1", 1, "Embedded NIC 1, Rackseed, Windows", ""},
		{"netbooted by a stick with iPXE", []entry{{"Stick", stick}, {"PXE2", mac2}, {"PXE1", mac1}, {"Disk", hd}}, "0 1 2 3", 0, "PXE1, Rackseed, Stick, PXE2, Disk", ""},
		{"by a stick, and another NIC", []entry{{"Stick", stick}, {"Disk", hd}, {"PXE2", mac2}}, "0 1 2", 0, "PXE2, Rackseed, Stick, Disk", ""},
		{"by a stick, where nothing is of the network", []entry{{"Stick", stick}, {"Disk", hd}}, "0 1", 0, "Rackseed, Stick, Disk", ""},
		{"by an entry for once", []entry{{"Disk", hd}, {"PXE", mac1}, {"once", mac1}}, "0 1", 2, "PXE, Rackseed, Disk", ""},
		{"not told by what", []entry{{"Disk", hd}, {"PXE", mac1}}, "0 1", -1, "PXE, Rackseed, Disk", ""},
		{"no order at all", nil, "", -1, "Rackseed", ""},
		{"an order of what is not there, and of what is twice", []entry{{"PXE", mac1}, {"Disk", hd}}, "7 0 1 1", 0, "PXE, Rackseed, 0007, Disk", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := &memory{vars: map[string][]byte{}}
			for n, e := range c.entries {
				m.vars[variable(uint16(n))] = option(t, 1, e.name, e.path)
			}
			var order []uint16
			for _, f := range strings.Fields(c.order) {
				order = append(order, uint16(f[0]-'0'))
			}
			if order != nil {
				m.vars["BootOrder"] = encodeOrder(order)
			}
			if c.current >= 0 {
				m.vars["BootCurrent"] = encodeOrder([]uint16{uint16(c.current)})
			}
			before := maps.Clone(m.vars)
			lines, saved, err := AddEntry(m, "Rackseed", bootMAC, partition, loader)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, l := range lines {
				if _, name, ok := strings.Cut(l, " "); ok {
					names = append(names, name)
				} else {
					names = append(names, strings.TrimPrefix(l, "Boot"))
				}
			}
			if got := strings.Join(names, ", "); got != c.want {
				t.Errorf("%s\nwant %s", got, c.want)
			}
			if got := strings.Join(m.removed, " "); got != c.removed {
				t.Errorf("removed: %s", got)
			}
			if !slices.Contains(m.writes, "BootOrder") && len(m.writes) == 0 {
				t.Error("nothing was written")
			}
			// What is left is read the same; and once more nothing is written.
			m.writes, m.removed = nil, nil
			again, _, err := AddEntry(m, "Rackseed", bootMAC, partition, loader)
			if err != nil || !slices.Equal(again, lines) || len(m.writes)+len(m.removed) > 0 {
				t.Errorf("again: %q, %v, written %v, removed %v", again, err, m.writes, m.removed)
			}
			// An install that fails puts all back, once.
			if err := saved.Restore(m); err != nil || !reflect.DeepEqual(m.vars, before) {
				t.Errorf("put back: %v\n%x\nwas\n%x", err, m.vars, before)
			}
			m.writes, m.removed = nil, nil
			if err := saved.Restore(m); err != nil || len(m.writes)+len(m.removed) > 0 {
				t.Errorf("put back again: %v, written %v, removed %v", err, m.writes, m.removed)
			}
			// So does a firmware that takes the entry, and not the order.
			m.refuses = "BootOrder"
			if _, _, err := AddEntry(m, "Rackseed", bootMAC, partition, loader); err == nil && slices.Contains(m.writes, "BootOrder") {
				t.Error("the order was taken")
			} else if err != nil && !reflect.DeepEqual(m.vars, before) {
				t.Errorf("without an order: %v\n%x\nwas\n%x", err, m.vars, before)
			}
		})
	}
}

// Firmware that does not take it is no reason to fail for the caller: it is
// told, and what was there before still is.
func TestFirmwareThatTakesNothing(t *testing.T) {
	for name, c := range map[string]struct {
		err     error
		forgets bool
		want    string
	}{
		"full":      {unix.ENOSPC, false, "firmware variable Boot0001: no space left on device"},
		"read-only": {unix.EROFS, false, "firmware variable Boot0001: read-only file system"},
		"forgetful": {nil, true, "reading back: firmware variable Boot0001: file does not exist"},
	} {
		m := &memory{vars: map[string][]byte{"Boot0000": option(t, 1, "PXE", mac1), "BootOrder": {0, 0}, "BootCurrent": {0, 0}}, err: c.err, forgets: c.forgets}
		if lines, saved, err := AddEntry(m, "Rackseed", "", partition, loader); err == nil || err.Error() != c.want || saved != nil {
			t.Errorf("%s: %q, %v, %v", name, lines, saved, err)
		}
		if !bytes.Equal(m.vars["BootOrder"], []byte{0, 0}) {
			t.Errorf("%s: the order is %x", name, m.vars["BootOrder"])
		}
	}
}

func TestLines(t *testing.T) {
	b := Boot{Order: []uint16{3, 0x1a, 9}, Entries: map[uint16]Entry{3: {Description: "UEFI PXEv4 (MAC:525400D00001)", Active: true}, 0x1a: {Description: "debian"}}}
	if got := b.Lines(); !reflect.DeepEqual(got, []string{"Boot0003 UEFI PXEv4 (MAC:525400D00001)", "Boot001A debian (switched off)", "Boot0009"}) {
		t.Errorf("%q", got)
	}
	for n := range uint16(100) {
		b.Order = append(b.Order, 100+n)
	}
	if got := b.Lines(); len(got) != maxLines+1 || got[maxLines] != "and 63 more" {
		t.Errorf("%d lines, the last %q", len(got), got[len(got)-1])
	}
}

// A folder is what efivarfs is to a program, but for its flags.
func TestFS(t *testing.T) {
	v := FS{t.TempDir()}
	for name, data := range map[string][]byte{"Boot0001": option(t, 1, "UEFI PXEv4", mac1), "BootOrder": {1, 0}, "BootCurrent": {1, 0}, "SecureBoot": {1}} {
		if err := v.Write(name, data); err != nil {
			t.Fatal(err)
		}
	}
	if lines, _, err := AddEntry(v, "Rackseed", "", partition, loader); err != nil || strings.Join(lines, ", ") != "Boot0001 UEFI PXEv4, Boot0000 Rackseed" {
		t.Errorf("%q, %v", lines, err)
	}
	raw, err := os.ReadFile(filepath.Join(v.Dir, "BootOrder-"+global))
	if err != nil || !bytes.Equal(raw, []byte{7, 0, 0, 0, 1, 0, 0, 0}) {
		t.Errorf("BootOrder % x, %v", raw, err)
	}
	if err := v.Remove("Boot0001"); err != nil {
		t.Error(err)
	}
	if _, err := v.Read("Boot0001"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if !SecureBoot(v) {
		t.Error("Secure Boot is on")
	}
	if SecureBoot(FS{t.TempDir()}) {
		t.Error("Secure Boot without the variable")
	}
}
