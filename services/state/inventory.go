package state

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/rackseed/rackseed/services/machine"
)

// bounded is an inventory of at most maxInventory bytes: each of its texts is
// clipped, and clipped short if that is not enough.
func bounded(i machine.Inventory) (machine.Inventory, error) {
	if len(i.NICs) > maxNICs || len(i.Disks) > maxDisks {
		return i, fmt.Errorf("%d network interfaces and %d disks; at most %d and %d are taken", len(i.NICs), len(i.Disks), maxNICs, maxDisks)
	}
	for _, limit := range []int{maxField, maxFieldLarge} {
		short := clipInventory(i, limit)
		if b, err := json.Marshal(short); err == nil && len(b) <= maxInventory {
			return short, nil
		}
	}
	return i, fmt.Errorf("an inventory of %d network interfaces and %d disks takes more than %s, which is the most that is kept",
		len(i.NICs), len(i.Disks), size(maxInventory))
}

// TooLarge says why an inventory is more than is kept; nil: it is not.
func TooLarge(i machine.Inventory) error {
	_, err := bounded(i)
	return err
}

func clipInventory(i machine.Inventory, limit int) machine.Inventory {
	for _, s := range []*string{&i.UUID, &i.Manufacturer, &i.Product, &i.Serial, &i.AssetTag, &i.BIOSVersion, &i.Firmware, &i.CPU.Model} {
		*s = clipTo(*s, limit)
	}
	i.Disks, i.NICs = slices.Clone(i.Disks), slices.Clone(i.NICs)
	for n, d := range i.Disks {
		i.Disks[n] = clipDisk(d, limit)
	}
	for n := range i.NICs {
		i.NICs[n].Name, i.NICs[n].Driver = clipTo(i.NICs[n].Name, limit), clipTo(i.NICs[n].Driver, limit)
	}
	return i
}

func clipDisk(d machine.Disk, limit int) machine.Disk {
	for _, s := range []*string{&d.Path, &d.Transport, &d.Model, &d.Serial, &d.WWN, &d.Contents} {
		*s = clipTo(*s, limit)
	}
	return d
}

// fingerprint is what makes a machine the same one as before, hashed: UUID,
// serial number and the set of hardware addresses. Disks may differ: an
// install that was cut off has changed them.
func fingerprint(i machine.Inventory) string {
	macs := i.Addresses()
	slices.Sort(macs)
	words := []string{machine.ParseUUID(i.UUID), i.Serial}
	for _, m := range macs {
		words = append(words, string(m))
	}
	h := sha256.Sum256([]byte(strings.Join(words, "\x00")))
	return hex.EncodeToString(h[:])
}
