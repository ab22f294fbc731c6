package inventory

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/rackseed/rackseed/images/installer/contents"
	"github.com/rackseed/rackseed/images/pid1/block"
	"github.com/rackseed/rackseed/services/machine"
)

const (
	// lookLimit bounds the look at one disk: one that hangs must not hide the
	// machine.
	lookLimit = time.Minute
	// atOnce is how many disks are read at a time.
	atOnce = 16
)

// Disks looks at all disks. One that cannot be read is listed with that as its
// contents; one that is reached by several paths is listed once.
func Disks(host block.Host) ([]machine.Disk, error) {
	list, err := host.List()
	if err != nil {
		return nil, err
	}
	found := []machine.Disk{}
	for _, d := range list {
		if d.Disk == "" && !notDisks.MatchString(d.Name) {
			found = append(found, attributes(d))
		}
	}
	found = onePath(found)
	var all sync.WaitGroup
	turns := make(chan struct{}, atOnce)
	for i := range found {
		all.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			found[i].Contents = look(found[i], lookLimit)
		})
	}
	all.Wait()
	return found, nil
}

// Look looks at one disk of an earlier list again: what is at that path now. The
// error wraps os.ErrNotExist when nothing is.
func Look(host block.Host, path string) (machine.Disk, error) {
	list, err := host.List()
	if err != nil {
		return machine.Disk{}, err
	}
	for _, d := range list {
		if d.Path == path && d.Disk == "" {
			now := attributes(d)
			now.Contents = look(now, lookLimit)
			return now, nil
		}
	}
	return machine.Disk{}, fmt.Errorf("disk %s is gone: %w", path, os.ErrNotExist)
}

// attributes are what the kernel tells of a disk, without its contents.
func attributes(d block.Device) machine.Disk {
	attr := func(names ...string) string {
		for _, n := range names {
			b, err := os.ReadFile(filepath.Join(d.SysPath, n))
			if v := strings.TrimSpace(strings.ToValidUTF8(string(b), "?")); err == nil && v != "" {
				return v
			}
		}
		return ""
	}
	return machine.Disk{
		Path: d.Path, Transport: transport(d.Name, d.SysPath),
		Model:  strings.TrimSpace(vendor(attr("device/vendor")) + " " + attr("device/model", "device/name")),
		Serial: serial(d.SysPath, attr("serial", "device/serial")), WWN: attr("wwid", "device/wwid"),
		Bytes: uint64(d.Bytes), SectorSize: d.SectorSize,
		Rotational: attr("queue/rotational") == "1", Removable: d.Removable, ReadOnly: d.ReadOnly,
	}
}

// Multipath is the transport of a disk that is reached by several paths.
const Multipath = "multipath"

// onePath lists each disk once. Disks of one WWN, one serial number and one size
// are one, reached by several paths: a LUN of a SAN, a dual-ported drive behind
// two controllers. To write it by one path while another is in use can lose
// data, and nothing of ours joins paths, so it is marked. Disks without WWN are
// never taken for one.
func onePath(disks []machine.Disk) []machine.Disk {
	type identity struct {
		wwn, serial string
		bytes       uint64
	}
	at := map[identity]int{}
	one := disks[:0]
	for _, d := range disks {
		id := identity{d.WWN, d.Serial, d.Bytes}
		if n, again := at[id]; again && d.WWN != "" {
			one[n].Transport = Multipath
			continue
		}
		at[id] = len(one)
		one = append(one, d)
	}
	return one
}

// vendor drops what is no vendor's name: libata says ATA for all, PCI devices
// have a number there.
func vendor(s string) string {
	if s == "ATA" || strings.HasPrefix(s, "0x") {
		return ""
	}
	return s
}

// serial prefers the attribute; SCSI disks have their unit serial number page
// (SPC-4 §7.8.15), four bytes of header before it.
func serial(sysPath, attribute string) string {
	if attribute != "" {
		return cleanID(attribute)
	}
	page, err := os.ReadFile(filepath.Join(sysPath, "device/vpd_pg80"))
	if err != nil || len(page) < 4 {
		return ""
	}
	return cleanID(strings.ToValidUTF8(string(page[4:]), "?"))
}

// look says what is on a disk. One that does not answer in time is left to the
// kernel's own time limits.
func look(d machine.Disk, limit time.Duration) string {
	answer := make(chan string, 1)
	go func() {
		text, err := read(d)
		if err != nil {
			text = "unreadable: " + err.Error()
		}
		answer <- text
	}()
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case text := <-answer:
		return text
	case <-t.C:
		return fmt.Sprintf("unreadable: it did not answer within %s", limit)
	}
}

func read(d machine.Disk) (string, error) {
	f, err := os.Open(d.Path)
	if err != nil {
		return "", err
	}
	text, err := contents.Describe(f, int64(d.Bytes), d.SectorSize)
	return text, errors.Join(err, f.Close())
}
