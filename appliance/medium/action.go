package medium

// Entry is what the partition table says of the data partition.
type Entry int

const (
	Absent Entry = iota // nothing
	Making              // it is being made: nothing was ever kept in it
	Made                // its file system was made, once
)

// Names of the entry, by what it says.
var entryNames = map[Entry]string{Making: "rackseed-data-new", Made: "rackseed-data"}

// Action is what is done to have the data partition.
type Action struct {
	Entry  Entry // what the table has to say before anything else is done
	Format bool  // make the file system, then say Made
	Refuse bool  // leave it alone: Why tells what a person can do
	Why    string
}

// Decide says what has to be done, from what the table says and what is at the
// data partition's place.
//
// That mke2fs once ended is kept in the table, not in the file system: a
// damaged file system is not mistaken for one that was never made. It is made
// only where nothing of ours was ever kept. Without an entry (the image was
// written to the stick anew, the table with it, the data stayed), what is at
// the place decides; what is not ours there is left over from before: who
// writes an image to a stick gives up what was on it.
func Decide(e Entry, found There) Action {
	switch {
	case e == Making:
		return Action{Entry: Making, Format: true, Why: "an earlier first start was cut off"}
	case e == Made && found == Ours:
		return Action{Entry: Made, Why: "found"}
	case found == Ours:
		return Action{Entry: Made, Why: "found without its partition entry: the image was written to this stick anew"}
	case e == Made || found == Damaged:
		return Action{Entry: Made, Refuse: true, Why: "its file system is damaged"}
	default:
		return Action{Entry: Making, Format: true, Why: "first start from this stick"}
	}
}
