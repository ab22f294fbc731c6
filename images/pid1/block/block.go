// Package block finds block devices in sysfs and tells what is on them. It
// never writes.
package block

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/rackseed/rackseed/images/pid1/gpt"
)

// Host is where a machine's sysfs and device nodes are mounted.
type Host struct{ Sys, Dev string }

// System is the running machine.
var System = Host{Sys: "/sys", Dev: "/dev"}

// Device is one block device: a whole disk or a partition.
type Device struct {
	Name       string // "sda1"
	Path       string // "/dev/sda1"
	SysPath    string // below /sys/devices, symbolic links resolved
	Disk       string // name of the disk that a partition is on; "" for a whole disk
	Number     int    // of the partition
	PartName   string // its name in the GPT
	Bytes      int64
	SectorSize int // logical, bytes
	Removable  bool
	ReadOnly   bool
}

// List lists all block devices but RAM disks, unused loop devices and the
// like; disks before their partitions, by name.
func (h Host) List() ([]Device, error) {
	dir := filepath.Join(h.Sys, "class/block")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("block devices: %w", err)
	}
	var list []Device
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, "ram") || strings.HasPrefix(name, "zram") {
			continue
		}
		d, err := h.device(name)
		if errors.Is(err, os.ErrNotExist) { // unplugged meanwhile
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("block device %s: %w", name, err)
		}
		if d.Bytes > 0 {
			list = append(list, d)
		}
	}
	sort.Slice(list, func(i, j int) bool {
		a, b := list[i], list[j]
		if (a.Disk == "") != (b.Disk == "") {
			return a.Disk == ""
		}
		return a.Disk < b.Disk || a.Disk == b.Disk && (a.Number < b.Number || a.Number == b.Number && a.Name < b.Name)
	})
	return list, nil
}

func (h Host) device(name string) (Device, error) {
	sys, err := filepath.EvalSymlinks(filepath.Join(h.Sys, "class/block", name))
	if err != nil {
		return Device{}, err
	}
	d := Device{Name: name, Path: filepath.Join(h.Dev, name), SysPath: sys}
	sectors, err := number(filepath.Join(sys, "size"))
	if err != nil {
		return Device{}, err
	}
	d.Bytes = sectors * 512 // always of 512 bytes, whatever the disk's are
	d.ReadOnly = readText(filepath.Join(sys, "ro")) == "1"
	disk := sys
	if n, err := number(filepath.Join(sys, "partition")); err == nil {
		d.Number = int(n)
		disk = filepath.Dir(sys)
		d.Disk = filepath.Base(disk)
		for _, line := range strings.Split(readText(filepath.Join(sys, "uevent")), "\n") {
			if v, ok := strings.CutPrefix(line, "PARTNAME="); ok {
				d.PartName = v
			}
		}
	}
	size, err := number(filepath.Join(disk, "queue/logical_block_size"))
	if err != nil {
		return Device{}, err
	}
	d.SectorSize = int(size)
	d.Removable = readText(filepath.Join(disk, "removable")) == "1"
	return d, nil
}

// Partitions of a disk, by number.
func Partitions(list []Device, disk string) []Device {
	var parts []Device
	for _, d := range list {
		if d.Disk == disk && d.Disk != "" {
			parts = append(parts, d)
		}
	}
	return parts
}

// Table reads the GPT of a whole disk; gpt.ErrNone if it has none.
func (h Host) Table(disk Device) (gpt.Table, error) {
	f, err := os.Open(disk.Path)
	if err != nil {
		return gpt.Table{}, err
	}
	t, err := gpt.Read(f, disk.Bytes, disk.SectorSize)
	return t, errors.Join(err, f.Close())
}

// FindPartUUID finds a partition by its GUID in either case, by reading the
// disks' tables: Debian 13's kernel does not tell it in sysfs. found is false
// while it is not there; err is then what kept a disk from being read, if any.
func (h Host) FindPartUUID(uuid string) (d Device, found bool, err error) {
	want, err := gpt.ParseGUID(uuid)
	if err != nil {
		return Device{}, false, err
	}
	list, err := h.List()
	if err != nil {
		return Device{}, false, err
	}
	var unread []error
	for _, disk := range list {
		parts := Partitions(list, disk.Name)
		if disk.Disk != "" || len(parts) == 0 {
			continue
		}
		table, err := h.Table(disk)
		if errors.Is(err, gpt.ErrNone) {
			continue
		}
		if err != nil {
			unread = append(unread, err)
			continue
		}
		for _, entry := range table.Partitions {
			for _, p := range parts {
				if entry.ID == want && p.Number == entry.Number {
					return p, true, nil
				}
			}
		}
	}
	return Device{}, false, errors.Join(unread...)
}

// FindSignature finds the first device whose contents match, partitions before
// whole disks: a hybrid ISO's label is on both, and who mounts the whole disk
// keeps all of its partitions from being used.
func (h Host) FindSignature(match func(Device, Signature) bool) (d Device, found bool, err error) {
	list, err := h.List()
	if err != nil {
		return Device{}, false, err
	}
	for _, whole := range []bool{false, true} {
		for _, d := range list {
			if (d.Disk == "") != whole {
				continue
			}
			// A medium that cannot be read is not the one that is looked for.
			if s, err := h.Probe(d); err == nil && match(d, s) {
				return d, true, nil
			}
		}
	}
	return Device{}, false, nil
}

// Probe tells what is on a device.
func (h Host) Probe(d Device) (Signature, error) {
	f, err := os.Open(d.Path)
	if err != nil {
		return Signature{}, err
	}
	s, err := Probe(f, d.Bytes)
	return s, errors.Join(err, f.Close())
}

// Wait calls find every 100 ms until it finds or ctx ends. The error then names
// what was looked for and what was there instead.
func (h Host) Wait(ctx context.Context, what string, find func() (Device, bool, error)) (Device, error) {
	t := time.NewTicker(100 * time.Millisecond)
	defer t.Stop()
	for {
		d, found, err := find()
		if found {
			return d, nil
		}
		select {
		case <-ctx.Done():
			return Device{}, fmt.Errorf("%s was not found among %s: %w", what, h.Names(), errors.Join(ctx.Err(), err))
		case <-t.C:
		}
	}
}

// Names lists the devices, for messages.
func (h Host) Names() string {
	list, err := h.List()
	if err != nil {
		return err.Error()
	}
	if len(list) == 0 {
		return "no block devices at all"
	}
	var names []string
	for _, d := range list {
		names = append(names, d.Name)
	}
	return strings.Join(names, ", ")
}

func number(path string) (int64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
}

// readText returns an optional attribute, "" where it does not exist.
func readText(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
