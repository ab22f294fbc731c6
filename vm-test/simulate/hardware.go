package simulate

import (
	"fmt"

	"github.com/rackseed/rackseed/services/machine"
)

// Hardware is the inventory of the simulated machine with a number from 1 on:
// the same number is the same machine, with the same addresses and serial
// numbers. Kinds alternate: one disk, two disks of which one must be chosen,
// and an old machine with BIOS and an SD card.
func Hardware(number int) machine.Inventory {
	mac := func(port int) machine.MAC {
		return machine.MAC(fmt.Sprintf("52:54:00:d%x:%02x:%02x", port, number>>8&0xff, number&0xff))
	}
	i := machine.Inventory{
		UUID:    fmt.Sprintf("4c4c4544-0053-4d10-8052-%012x", number),
		BootMAC: mac(0),
	}
	serial := func(prefix string) string { return fmt.Sprintf("%s%05d", prefix, number) }
	switch (number - 1) % 3 {
	case 0:
		i.Manufacturer, i.Product, i.Serial = "Supermicro", "SYS-110P-WR", serial("S4718X")
		i.AssetTag = serial("R7-")
		i.BootOrder = []string{"Boot0003 PXE IPv4 ens1f0", "Boot0001 UEFI OS"}
		i.BIOSVersion, i.Firmware, i.SecureBoot = "1.9", "uefi", true
		i.CPU = machine.CPU{Model: "Intel(R) Xeon(R) Silver 4314 CPU @ 2.40GHz", Sockets: 1, Cores: 16, Threads: 32}
		i.MemoryBytes = 128 << 30
		i.Disks = []machine.Disk{
			{Path: "/dev/nvme0n1", Transport: "nvme", Model: "SAMSUNG MZQL21T9HCJR-00A07", Serial: serial("S64GNE0R"), Bytes: 1920383410176, SectorSize: 512, Contents: "empty"},
		}
		i.NICs = []machine.NIC{
			{Name: "ens1f0", MAC: mac(0), Driver: "ixgbe", Mbit: 10000, Carrier: true},
			{Name: "ens1f1", MAC: mac(1), Driver: "ixgbe"},
		}
	case 1:
		i.Manufacturer, i.Product, i.Serial = "Dell Inc.", "PowerEdge R650", serial("7H2X")
		i.BIOSVersion, i.Firmware = "1.12.1", "uefi"
		i.CPU = machine.CPU{Model: "Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz", Sockets: 2, Cores: 64, Threads: 128}
		i.MemoryBytes = 512 << 30
		i.Disks = []machine.Disk{
			{Path: "/dev/sda", Transport: "sata", Model: "INTEL SSDSC2KB48", Serial: serial("PHYF1492"), Bytes: 480103981056, SectorSize: 512, Contents: "GPT, 3 partitions: FAT, ext4, LVM"},
			{Path: "/dev/sdb", Transport: "sas", Model: "KIOXIA KPM6XRUG3T84", Serial: serial("31P0A0CF"), Bytes: 3840755982336, SectorSize: 512, Contents: "empty"},
		}
		i.NICs = []machine.NIC{
			{Name: "eno1", MAC: mac(0), Driver: "bnxt_en", Mbit: 25000, Carrier: true},
			{Name: "eno2", MAC: mac(1), Driver: "bnxt_en", Mbit: 25000, Carrier: true},
		}
	default:
		i.Manufacturer, i.Product, i.Serial = "HPE", "ProLiant DL360 Gen9", serial("CZJ64")
		i.BIOSVersion, i.Firmware = "P89 v2.76 (10/21/2019)", "bios"
		i.CPU = machine.CPU{Model: "Intel(R) Xeon(R) CPU E5-2640 v4 @ 2.40GHz", Sockets: 2, Cores: 20, Threads: 40}
		i.MemoryBytes = 64 << 30
		i.Disks = []machine.Disk{
			{Path: "/dev/sda", Transport: "sas", Model: "HP EG0600JETKA", Serial: serial("W0M2K"), Bytes: 600127266816, SectorSize: 512, Rotational: true, Contents: "MBR, 1 partition: NTFS"},
			{Path: "/dev/sdb", Transport: "usb", Model: "HP iLO Internal SD-CARD", Serial: "000002660A01", Bytes: 31914983424, SectorSize: 512, Removable: true, Contents: "FAT"},
		}
		i.NICs = []machine.NIC{
			{Name: "eno49", MAC: mac(0), Driver: "tg3", Mbit: 1000, Carrier: true},
		}
	}
	return i
}
