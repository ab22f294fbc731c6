package address

import "time"

const (
	// defendPause is between announcements that answer a conflict (RFC 5227
	// section 1.1: DEFEND_INTERVAL).
	defendPause = 10 * time.Second
	// contestTime without a conflict, and it counts as over. A host that has
	// the address is asked at each announceTime.
	contestTime = 2 * announceTime
)

// defence is what is done about another host that uses the address while it is
// held (RFC 5227 section 2.4, case c): it is kept, since every machine of the
// site knows the boot service by it, and announced once more, but not so often
// that two who both keep it flood the link.
type defence struct {
	heard, defended time.Time
}

// conflict notes one. defend says whether to announce now.
func (d *defence) conflict(now time.Time) (defend bool) {
	d.heard = now
	if !d.defended.IsZero() && now.Sub(d.defended) < defendPause {
		return false
	}
	d.defended = now
	return true
}

// over says, once, that a conflict is over.
func (d *defence) over(now time.Time) bool {
	if d.heard.IsZero() || now.Sub(d.heard) < contestTime {
		return false
	}
	d.heard = time.Time{}
	return true
}
