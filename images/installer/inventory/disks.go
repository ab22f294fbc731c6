package inventory

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/rackseed/rackseed/images/pid1/block"
	"github.com/rackseed/rackseed/services/machine"
)

// Disks looks at all disks. One that cannot be read is listed with that as its
// contents.
func Disks(host block.Host) ([]machine.Disk, error) {
	list, err := host.List()
	if err != nil {
		return nil, err
	}
	disks := []machine.Disk{}
	for _, d := range list {
		if d.Disk != "" || notDisks.MatchString(d.Name) {
			continue
		}
		text, err := read(d)
		if err != nil {
			text = "unreadable: " + err.Error()
		}
		attr := func(names ...string) string {
			for _, n := range names {
				b, err := os.ReadFile(filepath.Join(d.SysPath, n))
				if v := strings.TrimSpace(strings.ToValidUTF8(string(b), "?")); err == nil && v != "" {
					return v
				}
			}
			return ""
		}
		disks = append(disks, machine.Disk{
			Path: d.Path, Transport: transport(d.Name, d.SysPath),
			Model:  strings.TrimSpace(vendor(attr("device/vendor")) + " " + attr("device/model", "device/name")),
			Serial: serial(d.SysPath, attr("serial", "device/serial")), WWN: attr("wwid", "device/wwid"),
			Bytes: uint64(d.Bytes), SectorSize: d.SectorSize,
			Rotational: attr("queue/rotational") == "1", Removable: d.Removable, ReadOnly: d.ReadOnly, Contents: text,
		})
	}
	return disks, nil
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

func read(d block.Device) (string, error) {
	f, err := os.Open(d.Path)
	if err != nil {
		return "", err
	}
	text, err := contents(f, d.Bytes, d.SectorSize)
	return text, errors.Join(err, f.Close())
}
