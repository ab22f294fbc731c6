package machine

import "slices"

// Inventory is what the installer found in a machine. It only looks.
type Inventory struct {
	UUID         string `json:"uuid,omitempty"` // SMBIOS type 1, lower case
	Manufacturer string `json:"manufacturer,omitempty"`
	Product      string `json:"product,omitempty"`
	Serial       string `json:"serial,omitempty"`
	AssetTag     string `json:"assetTag,omitempty"`
	BIOSVersion  string `json:"biosVersion,omitempty"`
	Firmware     string `json:"firmware"` // "uefi" or "bios"
	SecureBoot   bool   `json:"secureBoot,omitempty"`
	CPU          CPU    `json:"cpu"`
	MemoryBytes  uint64 `json:"memoryBytes"`
	Disks        []Disk `json:"disks"`
	NICs         []NIC  `json:"nics"`
	BootMAC      MAC    `json:"bootMac,omitempty"` // the NIC it netbooted from
	// BootOrder is the firmware's, as "Boot0003 UEFI PXEv4 (MAC:…)"; UEFI only.
	BootOrder []string `json:"bootOrder,omitempty"`
}

// CPU is the sum of the machine's processors.
type CPU struct {
	Model   string `json:"model,omitempty"`
	Sockets int    `json:"sockets,omitempty"`
	Cores   int    `json:"cores,omitempty"`
	Threads int    `json:"threads"`
}

// Disk is one block device that is not a partition.
type Disk struct {
	Path       string `json:"path"`      // /dev/vda
	Transport  string `json:"transport"` // "nvme", "sata", "sas", "virtio", "usb", "mmc", "fc", "iscsi", "unknown"
	Model      string `json:"model,omitempty"`
	Serial     string `json:"serial,omitempty"`
	WWN        string `json:"wwn,omitempty"`
	Bytes      uint64 `json:"bytes"`
	SectorSize int    `json:"sectorSize"` // logical, bytes
	Rotational bool   `json:"rotational,omitempty"`
	Removable  bool   `json:"removable,omitempty"`
	ReadOnly   bool   `json:"readOnly,omitempty"`
	// Contents says what is on it, for people: "empty", "GPT, 3 partitions:
	// ext4 …", "NTFS". Never empty.
	Contents string `json:"contents"`
}

// NIC is one network interface.
type NIC struct {
	Name    string `json:"name"`
	MAC     MAC    `json:"mac"`
	Driver  string `json:"driver,omitempty"`
	Mbit    int    `json:"mbit,omitempty"` // link speed; 0 when unknown
	Carrier bool   `json:"carrier"`
}

// Addresses are its hardware addresses, the one that it netbooted from first.
func (i *Inventory) Addresses() []MAC {
	var out []MAC
	if i.BootMAC != "" {
		out = append(out, i.BootMAC)
	}
	for _, n := range i.NICs {
		if n.MAC != "" && !slices.Contains(out, n.MAC) {
			out = append(out, n.MAC)
		}
	}
	return out
}

// MayHave says whether one of the hardware addresses was found in the machine;
// true where nobody looked (i is nil), or no address was found. A UUID alone is
// not believed against it: makers repeat them, and anybody can send one.
func (i *Inventory) MayHave(macs ...MAC) bool {
	if i == nil {
		return true
	}
	known := i.Addresses()
	return len(known) == 0 || slices.ContainsFunc(macs, func(m MAC) bool { return slices.Contains(known, m) })
}
