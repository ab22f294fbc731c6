package foreign

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
	"time"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
)

const (
	// listenTime is how long a link is listened to, and asked, before new
	// clients are served. A server that pings an address before it offers it
	// takes three seconds.
	listenTime = 4 * time.Second
	// quietTime without a sign of another server, and it counts as gone, unless
	// it answers one of the probes of listening again.
	quietTime = 5 * time.Minute
	// spread of quietTime between appliances: of two that silenced each other
	// one goes on first, and the other then hears it. It is another one each
	// time, since two that are less than 2 s apart silence each other again.
	spread = 30 * time.Second
	// tellPause is between events about one server.
	tellPause = 5 * time.Minute
	// maxServers are told apart on a link. Those of a flood beyond it are
	// signs as well, and are not named.
	maxServers = 16
	probePause = time.Minute
)

// schedule is when to probe after a link came up. A switch port may forward
// nothing for twice its forward delay of 15 s and 20 s more (spanning tree,
// IEEE 802.1D section 17.14), so that a server may show after 50 s.
var schedule = []time.Duration{
	0, time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 20 * time.Second,
	35 * time.Second, 50 * time.Second, time.Minute,
}

// phase is how a link stands.
type phase int

const (
	down      phase = iota // no carrier
	listening              // it is not known yet who else serves there
	serving                // new clients are served
	yielding               // another server does that
)

// watch decides about one link. It has no clock: all it knows of time is what
// it is told.
type watch struct {
	self    Self
	spreads func(nth uint32) time.Duration // of each time that it yields; nil: none
	spread  time.Duration                  // of this time
	yields  uint32                         // how often it came to yield

	phase  phase
	begun  time.Time // the schedule's zero
	probed time.Time // the last probe; before begun: none of this schedule
	heard  time.Time // the last sign of another server
	seen   []server  // since the link was last served
}

type server struct {
	last Sighting
	at   time.Time
	told time.Time // its newest event
}

func newWatch(self Self, hw net.HardwareAddr) *watch {
	return &watch{self: self, spreads: func(nth uint32) time.Duration { return spreadOf(hw, nth) }}
}

// spreadOf is 0 to spread, a network card's own, another one each time.
func spreadOf(hw net.HardwareAddr, nth uint32) time.Duration {
	h := fnv.New32a()
	h.Write(binary.BigEndian.AppendUint32(nil, nth)) // never fails
	h.Write(hw)
	return time.Duration(h.Sum32()%uint32(spread/time.Millisecond)) * time.Millisecond
}

// yield leaves new clients to the other server.
func (w *watch) yield() {
	w.phase = yielding
	if w.spreads != nil {
		w.spread = w.spreads(w.yields)
		w.yields++
	}
}

// carrier notes whether the link has one.
func (w *watch) carrier(up bool, now time.Time) {
	switch {
	case !up:
		w.phase = down
	case w.phase == down:
		w.begin(now)
	}
}

// begin listens anew.
func (w *watch) begin(now time.Time) {
	w.phase, w.begun, w.probed = listening, now, now.Add(-time.Nanosecond)
}

// open says whether new clients are served.
func (w *watch) open() bool { return w.phase == serving }

// due is when the next probe is: the first time of the schedule after the last.
// What was missed, by a process that was stopped, is not made up for.
func (w *watch) due() time.Time {
	for _, after := range schedule {
		if t := w.begun.Add(after); t.After(w.probed) {
			return t
		}
	}
	return w.probed.Add(probePause)
}

// next is when tick must be called again; zero while the link is down.
func (w *watch) next() time.Time {
	t := w.due()
	switch w.phase {
	case down:
		return time.Time{}
	case listening:
		t = earlier(t, w.begun.Add(listenTime))
	}
	return t
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// quiet says whether no other server shows.
func (w *watch) quiet(now time.Time) bool {
	return w.heard.IsZero() || now.Sub(w.heard) >= quietTime+w.spread
}

// tick does what is due: probe says to send one now.
func (w *watch) tick(now time.Time) (probe bool, told []state.Note) {
	switch w.phase {
	case down:
		return false, nil
	case listening:
		if now.Sub(w.begun) >= listenTime {
			told = w.decide(now)
		}
	case yielding:
		if w.quiet(now) {
			w.begin(now) // it is asked once more before new clients are served
		}
	}
	if !now.Before(w.due()) {
		w.probed, probe = now, true
	}
	return probe, told
}

// decide ends listening.
func (w *watch) decide(now time.Time) (told []state.Note) {
	if !w.quiet(now) {
		w.yield()
		return nil
	}
	w.phase = serving
	if len(w.seen) > 0 {
		told = append(told, w.gone())
	}
	w.heard, w.seen = time.Time{}, nil
	return told
}

// hear notes a sign of another server.
func (w *watch) hear(s Sighting, now time.Time) (told []state.Note) {
	w.heard = now
	if w.phase == serving || w.phase == listening {
		w.yield()
	}
	o := w.find(s, now)
	if o == nil {
		return nil
	}
	if s.Hardware == "" && o.last.Hardware != "" { // a client's word says less than the server's own
		s = o.last
	}
	o.last, o.at = s, now
	if !o.told.IsZero() && now.Sub(o.told) < tellPause {
		return nil
	}
	o.told = now
	return []state.Note{w.found(s)}
}

// find is the place of a server; nil: there is none for it.
func (w *watch) find(s Sighting, now time.Time) *server {
	oldest := -1
	for i := range w.seen {
		o := &w.seen[i]
		if o.last.Server == s.Server && (o.last.Hardware == s.Hardware || o.last.Hardware == "" || s.Hardware == "") {
			return o
		}
		if oldest < 0 || o.at.Before(w.seen[oldest].at) {
			oldest = i
		}
	}
	if len(w.seen) < maxServers {
		w.seen = append(w.seen, server{})
		return &w.seen[len(w.seen)-1]
	}
	if now.Sub(w.seen[oldest].told) < tellPause {
		return nil
	}
	w.seen[oldest] = server{}
	return &w.seen[oldest]
}

// newest is the server that was seen last.
func (w *watch) newest() (newest server, ok bool) {
	for _, o := range w.seen {
		if !ok || o.at.After(newest.at) {
			newest, ok = o, true
		}
	}
	return newest, ok
}

// hindrance says why new clients are not served; "": they are, or the link has
// no carrier, so that there are none.
func (w *watch) hindrance() string {
	switch w.phase {
	case listening:
		return fmt.Sprintf("%s: listening for other DHCP servers before new machines are served", w.self.Interface)
	case yielding:
		o, ok := w.newest()
		if !ok {
			return ""
		}
		return fmt.Sprintf("%s: %s answers DHCP too (at %s %s): new machines are not served there. %s",
			w.self.Interface, o.last.who(), o.at.UTC().Format("15:04:05 UTC"), o.last.what(), way(o.last))
	}
	return ""
}

// way is the way out.
func way(s Sighting) string {
	if s.Cluster != "" {
		return "Switch one of the two appliances off, or take dhcp out of this link in its site file; the other goes on by itself, about 5 minutes later"
	}
	return "Switch that server off on this network, or take dhcp out of this link in the site file; service goes on by itself about 5 minutes after the last sign of it"
}

func (w *watch) found(s Sighting) state.Note {
	note := state.Note{
		What: "dhcp.foreign", Severity: machine.Error,
		Text: fmt.Sprintf("On %s %s answers DHCP too (%s): new machines are not served there, those with an address go on. %s.", w.self.Interface, s.who(), s.what(), way(s)),
		Data: map[string]string{"link": w.self.Interface, "server": s.Server.String()},
	}
	for name, value := range map[string]string{
		"hardware": string(s.Hardware), "client": string(s.Client), "offered": shown(s.Offered), "name": s.Name,
		"domain": s.Domain, "vendor": s.Vendor, "cluster": s.Cluster, "site": s.Site,
	} {
		if value != "" {
			note.Data[name] = value
		}
	}
	return note
}

func (w *watch) gone() state.Note {
	return state.Note{
		What: "dhcp.foreign-gone", Severity: machine.Info,
		Text: fmt.Sprintf("On %s no other DHCP server showed for %d minutes: new machines are served there again.", w.self.Interface, int(quietTime.Minutes())),
		Data: map[string]string{"link": w.self.Interface},
	}
}

func shown(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
