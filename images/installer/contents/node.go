package contents

import (
	"fmt"
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

const ofNode = "Rackseed node"

// IsNode says whether a disk that is so described holds a node of ours, or what
// an install that was broken off left of one.
func IsNode(text string) bool {
	return text == machine.BrokenOff || text == ofNode || strings.HasPrefix(text, ofNode+" ")
}

// Data is the beginning of the data partition's name.
const Data = "rs-data"

// maxName is what of a node's name fits a partition's, which has 36 characters.
const maxName = 36 - len(Data+" ")

// Finished is the data partition's name on the disk of a node.
func Finished(node string) string {
	if len(node) > maxName {
		node = node[:maxName]
	}
	return strings.TrimSpace(Data + " " + node)
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
		return ofNode, true
	case strings.HasPrefix(last, Data+" "):
		name := strings.TrimPrefix(last, Data+" ")
		if !machine.IsHostName(name) { // cut, or not ours
			name = fmt.Sprintf("%q", name)
		}
		return ofNode + " " + name, true
	}
	return "", false
}
