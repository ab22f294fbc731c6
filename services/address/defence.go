package address

import (
	"bytes"
	"net"
	"time"
)

const (
	// trialTime after a link came up an address may still be another host's: a
	// switch port forwards nothing for twice its forward delay of 15 s and 20 s
	// more (spanning tree, IEEE 802.1D section 17.14), so that neither our
	// probes nor the other host's answers pass.
	trialTime = 60 * time.Second
	// defendPause is between announcements that answer a conflict (RFC 5227
	// section 1.1: DEFEND_INTERVAL).
	defendPause = 10 * time.Second
	// contestTime without a conflict, and it counts as over. A host that has
	// the address is asked at each announceTime.
	contestTime = 2 * announceTime
	// lingerTime after the address was taken the kernel of the replica that had it
	// before may still answer for it, and lingerTicks are the seconds in it.
	lingerTime  = 2 * lifetime
	lingerTicks = int(lingerTime / renewal)
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

// tenure is how an address is held on a link that comes and goes.
type tenure struct {
	trial time.Duration
	up    bool      // the link has a carrier
	since time.Time // it has
	taken time.Time
	sure  time.Time // nobody else had it: it was asked for, or the kernel was told to keep it
	later net.HardwareAddr
	defence
}

// carrier notes whether the link has one, and says whether that is new.
func (t *tenure) carrier(up bool, now time.Time) (changed bool) {
	if up == t.up {
		return false
	}
	t.up = up
	if up {
		t.since = now
	}
	return true
}

// onTrial says whether who has the address now may have had it first.
func (t *tenure) onTrial(now time.Time) bool { return !t.up || now.Sub(t.since) < t.trial }

// lapsed says whether the kernel may have forgotten the address since: this process
// was stopped, or its machine was paused, and another replica may lead and have it.
func (t *tenure) lapsed(now time.Time) bool { return now.Sub(t.sure) > lifetime }

// lingers says whether the replica that had the address before may have it still.
func (t *tenure) lingers(now time.Time) bool { return now.Sub(t.taken) < lingerTime }

// seen judges another host that uses the address: it had it first, so that it
// keeps it, or came later, when it is not given up. Who once came later does not
// have it for a switch that restarted. defend says whether to announce now.
func (t *tenure) seen(owner net.HardwareAddr, now time.Time) (first, defend bool) {
	if t.onTrial(now) && !bytes.Equal(owner, t.later) {
		return true, false
	}
	t.later = owner
	return false, t.conflict(now)
}
