package handoff

import (
	"time"

	"github.com/rackseed/rackseed/services/machine"
)

func (w World) slower(d time.Duration) time.Duration { return d * time.Duration(max(w.Slower, 1)) }

// still is how long a plan has stood still. While something is on its way, what was
// copied counts, too; whoever has just come to lead knows of none before.
func (w World) still(p machine.Handoff, copies bool) time.Duration {
	still := w.Now.Sub(p.Moved)
	if copies {
		still = min(still, w.Now.Sub(w.Leads), w.Now.Sub(w.Copied))
	}
	return still
}

// lacks is what a replica lacks.
type lacks struct {
	blobs   int
	bytes   int64  // of them
	entries uint64 // of the log
}

// lacksOf is what a replica that was seen lacks, of a log that ends with an entry. Who
// is close lacks none: nobody has the newest.
func lacksOf(s Seen, index uint64) lacks {
	l := lacks{blobs: s.Missing, bytes: s.MissingBytes}
	if s.Stored.Applied+MaxLag < index {
		l.entries = index - s.Stored.Applied
	}
	return l
}

// then is the least that it lacked, once it was seen again, and whether something was
// copied: what comes and goes again is not. With more blobs, of new images, it begins
// anew.
func (l lacks) then(now lacks) (lacks, bool) {
	copied := now.blobs <= l.blobs && now.bytes < l.bytes || now.entries < l.entries
	if now.blobs <= l.blobs {
		now.bytes = min(now.bytes, l.bytes)
	}
	now.entries = min(now.entries, l.entries)
	return now, copied
}
