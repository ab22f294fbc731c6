package medium

import "github.com/rackseed/rackseed/images/pid1/block"

// Action is what is done to have the data partition.
type Action struct {
	Add    bool // write the table's entry
	Format bool // make the file system
	Why    string
}

// Decide says what has to be done, from what the table says and what is at the
// data partition's place.
//
// The place is never formatted while a file system of ours is there, listed or
// not: the image was written to the stick anew, the table with it, the data
// stayed. Anything else there is left over from before the image was written:
// who writes an image to a stick gives up what was on it.
func Decide(t Table, found block.Signature) Action {
	ours := found.Type == "ext4" && found.Label == DataLabel
	switch {
	case t.Listed && ours:
		return Action{Why: "found"}
	case t.Listed:
		return Action{Format: true, Why: "the partition is there without its file system: an earlier start was cut off"}
	case ours:
		return Action{Add: true, Why: "found without its partition entry: the image was written to this stick anew"}
	default:
		return Action{Add: true, Format: true, Why: "first start from this stick"}
	}
}
