package disk

import (
	"fmt"

	"github.com/rackseed/rackseed/images/installer/contents"
	"github.com/rackseed/rackseed/images/pid1/gpt"
	"github.com/rackseed/rackseed/services/machine"
)

// Numbers of a node's partitions.
const (
	BIOS  = 1
	ESP   = 2
	RootA = 3
	RootB = 4
	Data  = 5
)

const (
	mib = 1 << 20
	gib = 1 << 30
	// ESPBytes and RootBytes can never grow on a node: nothing in front of
	// the data partition moves.
	ESPBytes  = 1 * gib
	RootBytes = 4 * gib
)

// Layout is a node's partition table on a disk of bytes bytes, as it is until
// Finish. Every GUID is new, so that no two disks, and no two installs of one,
// are ever confused.
func Layout(bytes uint64, sectorSize int, newGUID func() gpt.GUID) (gpt.Table, error) {
	if bytes < machine.MinDiskBytes {
		return gpt.Table{}, fmt.Errorf("the disk has %s; a node needs %s", machine.DiskSize(bytes), machine.DiskSize(machine.MinDiskBytes))
	}
	t := gpt.Table{DiskID: newGUID(), SectorSize: sectorSize, Sectors: bytes / uint64(sectorSize)}
	sectors := func(n uint64) uint64 { return n / uint64(sectorSize) }
	next := sectors(mib)
	for _, p := range []struct {
		number int
		name   string
		kind   gpt.GUID
		bytes  uint64 // 0: the rest, to a whole MiB
	}{
		{BIOS, contents.NodeParts[BIOS-1], gpt.TypeBIOSBoot, mib},
		{ESP, contents.NodeParts[ESP-1], gpt.TypeESP, ESPBytes},
		{RootA, contents.NodeParts[RootA-1], gpt.TypeRootAMD64, RootBytes},
		{RootB, contents.NodeParts[RootB-1], gpt.TypeRootAMD64, RootBytes},
		{Data, contents.Unfinished, gpt.TypeLinux, 0},
	} {
		end := next + sectors(p.bytes)
		if p.bytes == 0 {
			end = (t.LastUsable() + 1) / sectors(mib) * sectors(mib)
		}
		t.Partitions = append(t.Partitions, gpt.Partition{Number: p.number, Type: p.kind, ID: newGUID(), First: next, Last: end - 1, Name: p.name})
		next = end
	}
	return t, t.Check()
}

// Part returns a partition of a table that Layout made.
func Part(t gpt.Table, number int) gpt.Partition { return t.Partitions[number-1] }
