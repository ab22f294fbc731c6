package contents

import (
	"slices"
	"strings"

	"github.com/rackseed/rackseed/services/machine"
)

// The names of a node's partitions. That of the last tells how far the install
// came: Unfinished until it ended, then Data and the node's name.
var (
	NodeParts  = []string{"rs-bios", "rs-esp", "rs-root-a", "rs-root-b"}
	Unfinished = Data + "-new"
)

// IsNode says whether a disk that is so described holds a node of ours, or what
// an install that was broken off left of one.
func IsNode(text string) bool {
	return text == machine.BrokenOff || text == machine.OfNode || strings.HasPrefix(text, machine.OfNode+" ")
}

// Data is the beginning of the data partition's name.
const Data = "rs-data"

// Finished is the data partition's name on the disk of a node. It has 36 characters
// at the most (UEFI 2.10, §5.3.3).
func Finished(node string) string {
	return strings.TrimSpace(Data + " " + node[:min(len(node), machine.MaxNodeOnDisk)])
}

// node recognises a disk that an installer of ours has written, by the names of
// its partitions: whole or broken off, whatever is in them so far.
func node(names []string) (string, bool) {
	n := len(NodeParts)
	if len(names) != n+1 || !slices.Equal(names[:n], NodeParts) {
		return "", false
	}
	switch last := names[n]; {
	case last == Unfinished:
		return machine.BrokenOff, true
	case last == Data:
		return machine.OfNode, true
	case strings.HasPrefix(last, Data+" "):
		return machine.NodeDisk(strings.TrimPrefix(last, Data+" ")), true
	}
	return "", false
}
