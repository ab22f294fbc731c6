// Package inventory looks at a machine's hardware. It only looks.
package inventory

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/rackseed/rackseed/images/pid1/block"
	"github.com/rackseed/rackseed/images/pid1/link"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/siderolabs/go-smbios/smbios"
)

// Collect collects everything. bootMAC is the link that the machine netbooted
// from. What cannot be found out is logged and left out: a machine with odd
// firmware tables must still appear.
func Collect(bootMAC net.HardwareAddr, uefi, secureBoot bool, log *slog.Logger) machine.Inventory {
	inv := machine.Inventory{Firmware: "bios", SecureBoot: secureBoot, BootMAC: machine.MAC(bootMAC.String()), Disks: []machine.Disk{}, NICs: []machine.NIC{}}
	if uefi {
		inv.Firmware = "uefi"
	}
	trouble := func(what string, err error) {
		if err != nil {
			log.Warn("part of the inventory is missing", "part", what, "error", err)
		}
	}
	tables, err := readSMBIOS()
	trouble("SMBIOS", err)
	if err == nil {
		fromSMBIOS(&inv, tables)
	}
	cpuinfo, err := os.ReadFile("/proc/cpuinfo")
	trouble("processors", err)
	inv.CPU = parseCPU(string(cpuinfo))
	if inv.MemoryBytes == 0 {
		meminfo, err := os.ReadFile("/proc/meminfo")
		trouble("memory", err)
		inv.MemoryBytes = parseMemTotal(string(meminfo))
	}
	disks, err := Disks(block.System)
	trouble("disks", err)
	inv.Disks = append(inv.Disks, disks...)
	links, err := link.List()
	trouble("network links", err)
	for _, l := range links {
		inv.NICs = append(inv.NICs, machine.NIC{Name: l.Name, MAC: machine.MAC(l.MAC.String()), Driver: l.Driver, Mbit: l.Mbit, Carrier: l.Carrier})
	}
	return inv
}

// readSMBIOS guards against tables that the library's decoder does not expect:
// it indexes into structures without looking at their length.
func readSMBIOS() (s *smbios.SMBIOS, err error) {
	defer func() {
		if p := recover(); p != nil {
			s, err = nil, fmt.Errorf("the firmware's SMBIOS tables are malformed: %v", p)
		}
	}()
	return smbios.New()
}

func fromSMBIOS(inv *machine.Inventory, s *smbios.SMBIOS) {
	inv.UUID = machine.ParseUUID(s.SystemInformation.UUID)
	inv.Manufacturer = cleanID(s.SystemInformation.Manufacturer)
	inv.Product = cleanID(s.SystemInformation.ProductName)
	inv.Serial = cleanID(s.SystemInformation.SerialNumber)
	inv.AssetTag = cleanID(s.SystemEnclosure.AssetTagNumber)
	inv.BIOSVersion = cleanID(s.BIOSInformation.Version)
	inv.MemoryBytes = installedMemory(s.MemoryDevices)
}

// installedMemory sums the memory modules; 0 when one of them is of unknown
// size, or given in a way in which the library loses bits (KiB, or the extended
// size of modules from 32 GiB): then the kernel's total serves.
func installedMemory(modules []smbios.MemoryDevice) uint64 {
	var sum uint64
	for _, m := range modules {
		if m.Size >= 0x7fff {
			return 0
		}
		sum += uint64(m.Size) << 20
	}
	return sum
}

// parseCPU reads /proc/cpuinfo of x86.
func parseCPU(text string) machine.CPU {
	var c machine.CPU
	sockets, cores := map[string]bool{}, map[string]bool{}
	socket := ""
	for _, line := range strings.Split(text, "\n") {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(key) {
		case "processor":
			c.Threads++
		case "model name":
			c.Model = strings.Join(strings.Fields(value), " ")
		case "physical id":
			socket = value
			sockets[value] = true
		case "core id":
			cores[socket+"/"+value] = true
		}
	}
	c.Sockets, c.Cores = len(sockets), len(cores)
	return c
}

// parseMemTotal reads MemTotal of /proc/meminfo, in bytes; 0 if it is not there.
func parseMemTotal(text string) uint64 {
	for _, line := range strings.Split(text, "\n") {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "MemTotal:" {
			if n, err := strconv.ParseUint(f[1], 10, 64); err == nil {
				return n << 10
			}
		}
	}
	return 0
}
