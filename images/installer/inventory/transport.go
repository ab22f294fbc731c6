package inventory

import (
	"regexp"
	"strings"
)

// notDisks are block devices that are no disks of the machine's own.
var notDisks = regexp.MustCompile(`^(loop|sr|fd|dm-|md|nbd|rbd|drbd|ram|zram|mtdblock|mmcblk\d+(boot|rpmb)|nvme\d+c\d+n)`)

// transport tells how a disk is attached from its place in the device tree
// (/sys/devices/…). The buses that a disk hangs on stand in the path.
func transport(name, sysPath string) string {
	has := func(s string) bool { return strings.Contains(sysPath, s) }
	switch {
	// USB first: behind it are SCSI hosts, and sometimes ATA and NVMe bridges.
	case has("/usb"):
		return "usb"
	case strings.HasPrefix(name, "mmcblk"):
		return "mmc"
	case strings.HasPrefix(name, "nvme"):
		return "nvme"
	case has("/virtio"):
		return "virtio"
	case has("/session"):
		return "iscsi"
	case has("/rport-"):
		return "fc"
	case has("/end_device-") || has("/port-"):
		return "sas"
	case has("/ata"):
		return "sata"
	}
	return "unknown"
}

// cleanID drops what vendors write where a serial number should be.
func cleanID(s string) string {
	s = strings.TrimSpace(strings.Trim(s, "\x00"))
	switch strings.ToLower(strings.Trim(s, ". ")) {
	case "", "none", "n/a", "not specified", "not available", "default string", "system serial number", "chassis serial number",
		"to be filled by o.e.m", "0123456789", "123456789", "serial number", "asset tag", "no asset tag", "unknown", "invalid":
		return ""
	}
	if strings.Trim(s, "0-") == "" || strings.Trim(strings.ToLower(s), "f-") == "" || strings.Trim(strings.ToLower(s), "x") == "" {
		return ""
	}
	return s
}
