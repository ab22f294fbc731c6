package dhcp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sync/errgroup"

	"github.com/rackseed/rackseed/services/dhcp/foreign"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
)

const (
	// Each link has its own queue and workers, so that a flood on one is not
	// another's outage. Workers mostly wait for commits, which are batched:
	// many of them make one fsync serve many clients.
	queueLength = 512
	workers     = 128
	// answerTime is how old a reply may get. Later the client has asked again.
	answerTime = 2 * time.Second
	// attempts at a decision that the state refuses because it changed since.
	attempts = 3
	// reopenPause is between attempts to open a link's socket.
	reopenPause = time.Second
	// exhaustedPause is between events about a link without a free address.
	exhaustedPause = 5 * time.Minute
	// exhaustedTime is how long a search of the pool that found nothing holds
	// for everybody: an address that becomes free is found that much later.
	exhaustedTime = time.Second
	// askerPause is between events about another appliance that asks.
	askerPause = time.Hour
	maxPacket  = 2048
)

// Server answers DHCP on its links while Run runs. The fields are set before.
type Server struct {
	Links []Link
	// View gives the state as it is now.
	View func() State
	// Propose commits a command; it returns a *state.Refusal when the rules
	// say no, and an error while this replica does not lead.
	Propose func(ctx context.Context, by string, c state.Command) error
	// Hindered is called when it changes why new clients are not served on some
	// links: it has a sentence for each of them. nil: nobody asks.
	Hindered func([]string)
	// Watchers have what was learned of other DHCP servers on each interface, by
	// its name: those of an earlier Server, since a changed site file does not
	// silence anybody. Run adds those that are missing. nil: nothing is known.
	Watchers map[string]*foreign.Watcher
	Now      func() time.Time // nil: time.Now
	Logger   *slog.Logger     // nil: slog.Default

	openSocket func(context.Context, Link) (conn, error) // nil: openSocket
	wire       func(Link) (foreign.Wire, error)          // nil: foreign.Listen

	counters counters
}

// conn is a link's sockets.
type conn interface {
	// Read waits for a packet, and says how long that has waited to be read.
	Read(b []byte) (n int, waited time.Duration, err error)
	Send(Target, []byte) error
	Close() error
}

type counters struct{ received, dropped, malformed, sent, late, refused atomic.Uint64 }

// Stats are counts since the server was made.
type Stats struct {
	Received  uint64 // packets read
	Dropped   uint64 // packets that found the queue full
	Malformed uint64 // packets that are no DHCP
	Sent      uint64 // replies sent
	Late      uint64 // requests not answered in time: they waited, or the commit took, too long
	Refused   uint64 // requests left unanswered by a limit or by the state
}

// Stats may be called at any time.
func (s *Server) Stats() Stats {
	c := &s.counters
	return Stats{c.received.Load(), c.dropped.Load(), c.malformed.Load(), c.sent.Load(), c.late.Load(), c.refused.Load()}
}

// String says for people what was counted, and nothing of what never happened.
func (s Stats) String() string {
	text := fmt.Sprintf("%d packets, %d answers", s.Received, s.Sent)
	for _, c := range []struct {
		count uint64
		what  string
	}{
		{s.Dropped, "dropped as too many at once"}, {s.Late, "answers too late to be sent"},
		{s.Refused, "over a limit or refused by the state"}, {s.Malformed, "malformed"},
	} {
		if c.count > 0 {
			text += fmt.Sprintf(", %d %s", c.count, c.what)
		}
	}
	return text
}

// Run serves until ctx ends, then closes all sockets and returns nil. A link
// whose socket fails is tried again each second; it is not an error.
//
// Serving follows the role: ctx must end when this replica stops leading.
func (s *Server) Run(ctx context.Context) error {
	if s.Now == nil {
		s.Now = time.Now
	}
	if s.Logger == nil {
		s.Logger = slog.Default()
	}
	if s.openSocket == nil {
		s.openSocket = openSocket
	}
	if s.wire == nil {
		s.wire = func(l Link) (foreign.Wire, error) { return foreign.Listen(l.Interface) }
	}
	offers := newOffers()
	list := make([]*worker, len(s.Links))
	for i, l := range s.Links {
		list[i] = &worker{
			Server: s, link: l, offers: offers, limits: newLimits(l), log: s.Logger.With("link", l.Interface),
		}
	}
	var telling sync.Mutex
	changed := func() {
		telling.Lock() // so that the last one told is the newest
		defer telling.Unlock()
		var hindered []string
		for _, w := range list {
			if h := w.watch.Hindrance(); h != "" {
				hindered = append(hindered, h)
			}
		}
		if s.Hindered != nil {
			s.Hindered(hindered)
		}
	}
	for _, w := range list {
		w.watch = s.watcher(w.link.Interface)
		w.watch.Self, w.watch.Changed, w.watch.Now, w.watch.Logger = w.link.Self(), changed, s.Now, w.log
		w.watch.Propose = func(ctx context.Context, n state.Note) error { return s.Propose(ctx, "dhcp", n) }
		w.open = w.watch.Open
	}
	if slices.ContainsFunc(list, func(w *worker) bool { return w.watch.Hindrance() != "" }) {
		changed()
	}
	var g errgroup.Group
	for _, w := range list {
		g.Go(func() error { w.run(ctx); return nil })
	}
	return g.Wait()
}

// watcher is an interface's, from before if there was one.
func (s *Server) watcher(name string) *foreign.Watcher {
	if s.Watchers == nil {
		s.Watchers = map[string]*foreign.Watcher{}
	}
	if s.Watchers[name] == nil {
		s.Watchers[name] = &foreign.Watcher{}
	}
	return s.Watchers[name]
}

// worker serves one link.
type worker struct {
	*Server
	link   Link
	offers *offers // those of all links
	limits
	log   *slog.Logger
	watch *foreign.Watcher
	open  func() bool // whether new clients are served: the watch's word

	exhausted, asker pause
	// full is until when the pool counts as exhausted: Unix nanoseconds.
	full atomic.Int64
}

// limits are what strangers on one link can have written to the log. Another
// link's are not fewer for it.
type limits struct {
	naks      *bucket
	sightings *bucket // of machines
	events    *bucket // of sightings and bindings, which are committed all the same
	endings   *bucket // releases and declines
	declined  *declines
}

// newLimits lets a room full of machines through at once. In the long run a
// flood makes some events a second, so that it takes hours to push out the
// state's 100,000.
func newLimits(l Link) limits {
	return limits{
		naks: newBucket(50, 5), sightings: newBucket(1000, 20), events: newBucket(2000, 2), endings: newBucket(200, 1),
		declined: newDeclines(number(l.To) - number(l.From) + 1),
	}
}

func (w *worker) run(ctx context.Context) {
	for told := ""; ctx.Err() == nil; {
		c, wire, err := w.openBoth(ctx)
		if err == nil {
			w.log.Info("DHCP served", "service", w.link.Service, "from", w.link.From, "to", w.link.To)
			err, told = w.serveWatched(ctx, c, wire), ""
		}
		if err != nil && err.Error() != told { // the same once a second helps nobody
			told = err.Error()
			w.log.Warn("DHCP not served; trying again each second", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(reopenPause):
		}
	}
}

// openBoth opens the link's sockets, and the one that hears other servers:
// nothing is served that is not watched.
func (w *worker) openBoth(ctx context.Context) (conn, foreign.Wire, error) {
	c, err := w.openSocket(ctx, w.link)
	if err != nil {
		return nil, nil, err
	}
	wire, err := w.wire(w.link)
	if err != nil {
		return nil, nil, errors.Join(err, c.Close())
	}
	return c, wire, nil
}

// serveWatched serves until one of the sockets fails or ctx ends (then nil); it
// closes them.
func (w *worker) serveWatched(ctx context.Context, c conn, wire foreign.Wire) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return w.watch.Run(ctx, wire) })
	g.Go(func() error { return w.serve(ctx, c) })
	return g.Wait()
}

// arrival is a packet with the time it came.
type arrival struct {
	packet []byte
	at     time.Time
}

// serve reads until the socket fails or ctx ends (then nil); it closes c.
func (w *worker) serve(ctx context.Context, c conn) error {
	ctx, cancel := context.WithCancel(ctx)
	queue := make(chan arrival, queueLength)
	closed := make(chan error, 1)
	go func() {
		<-ctx.Done()
		closed <- c.Close() // which ends Read
	}()
	var answering sync.WaitGroup
	for range workers {
		answering.Go(func() {
			for a := range queue {
				w.handle(ctx, c, a)
			}
		})
	}
	err := w.read(c, queue)
	if ctx.Err() != nil {
		err = nil
	}
	close(queue)
	cancel()
	answering.Wait()
	return errors.Join(err, <-closed)
}

// read fills the queue until the socket fails or is closed.
func (w *worker) read(c conn, queue chan<- arrival) error {
	buffer := make([]byte, maxPacket)
	for {
		n, waited, err := c.Read(buffer)
		if err != nil {
			return fmt.Errorf("DHCP on %s: reading: %w", w.link.Interface, err)
		}
		w.counters.received.Add(1)
		select {
		case queue <- arrival{append([]byte(nil), buffer[:n]...), w.Now().Add(-waited)}:
		default:
			w.counters.dropped.Add(1)
		}
	}
}

// handle answers one packet: decide, commit, send.
func (w *worker) handle(ctx context.Context, c conn, a arrival) {
	if w.Now().Sub(a.at) > answerTime { // as after this process was stopped: it has asked again
		w.counters.late.Add(1)
		return
	}
	req, err := parse(a.packet)
	if err != nil {
		w.counters.malformed.Add(1)
		w.log.Debug("packet dropped", "error", err)
		return
	}
	log := w.log.With("mac", req.ClientHWAddr.String(), "type", req.MessageType().String())
	ctx, cancel := context.WithTimeout(ctx, answerTime-w.Now().Sub(a.at))
	defer cancel()
	for range attempts {
		now := w.Now()
		full := w.full.Load() > now.UnixNano()
		d := Decide(req, w.link, moment{w.View(), w.offers, now, w.open(), full}, now)
		if d.Exhausted {
			if !full {
				w.full.Store(now.Add(exhaustedTime).UnixNano())
			}
			w.tellExhausted(ctx, now)
		}
		if d.Other.IsValid() {
			w.watch.Named(d.Other, macOf(req))
		}
		if d.Asker != "" {
			w.tellAsker(ctx, d.Asker, now)
		}
		if d.Offer.IsValid() && !w.offers.take(d.Offer, macOf(req), now) {
			continue // another worker offered it in this moment
		}
		if err := w.commit(ctx, d, now); err != nil {
			var refusal *state.Refusal
			if errors.As(err, &refusal) {
				log.Info("state changed meanwhile, deciding again", "decision", d.Reason, "refusal", refusal)
				continue
			}
			w.counters.refused.Add(1)
			log.Warn("no answer", "decision", d.Reason, "error", err)
			return
		}
		if d.Withdraw {
			w.offers.withdraw(macOf(req))
		}
		log.Debug("decided", "decision", d.Reason)
		if d.Reply != nil {
			w.send(log, c, d, a)
		}
		return
	}
	w.counters.refused.Add(1)
	log.Warn("no answer: the state refused each decision")
}

func (w *worker) send(log *slog.Logger, c conn, d Decision, a arrival) {
	if age := w.Now().Sub(a.at); age > answerTime {
		w.counters.late.Add(1)
		log.Warn("reply dropped: the commit took too long", "age", age)
		return
	}
	if err := c.Send(target(d.Reply), d.Reply.ToBytes()); err != nil {
		log.Warn("reply not sent", "error", err)
		return
	}
	w.counters.sent.Add(1)
}

var errLimit = errors.New("too many of its kind on this link at the moment; it will ask again")

// commit proposes the decision's commands in turn. Over the limit a machine is
// not noted, or without an event, as is a lease, and the client has its answer all the
// same; a NAK binds, so that without its entry in the log it is not sent; and a
// lease that was to end lasts until its time is over.
func (w *worker) commit(ctx context.Context, d Decision, now time.Time) error {
	for _, command := range d.Commands {
		switch x := command.(type) {
		case state.Note:
			if !w.naks.take(now) {
				return fmt.Errorf("refusing an address: %w", errLimit)
			}
		case state.MachineSee:
			if x.Text != "" && !w.sightings.take(now) {
				w.log.Debug("machine not noted: too many at the moment", "mac", x.MAC)
				continue
			}
			if x.Text != "" && !w.events.take(now) {
				x.Text = ""
			}
			x.ID = machine.NewID()
			command = x
		case state.LeaseBind:
			x.Event = x.Event && w.events.take(now)
			command = x
		case state.LeaseRelease:
			if !w.endings.take(now) {
				return fmt.Errorf("releasing %s: %w", x.Address, errLimit)
			}
		case state.LeaseDecline:
			if !w.endings.take(now) || !w.declined.add(x.Address, x.MAC, now, x.Until) {
				return fmt.Errorf("declining %s: %w", x.Address, errLimit)
			}
		}
		err := w.Propose(ctx, "dhcp", command)
		var refusal *state.Refusal
		if _, sighting := command.(state.MachineSee); sighting && errors.As(err, &refusal) {
			// It stays unknown, and may have an address all the same.
			w.log.Warn("machine not noted", "refusal", refusal)
		} else if err != nil {
			return fmt.Errorf("%s: %w", command.Kind(), err)
		}
	}
	return nil
}

func (w *worker) tellExhausted(ctx context.Context, now time.Time) {
	if !w.exhausted.over(now, exhaustedPause) {
		return
	}
	note := state.Note{
		What: "dhcp.exhausted", Severity: machine.Error,
		Text: fmt.Sprintf("No address is left in %s to %s on %s: new machines there get none. Make the pool larger in the site file, or its lease time shorter.", w.link.From, w.link.To, w.link.Interface),
		Data: map[string]string{"link": w.link.Interface},
	}
	w.tell(ctx, note)
}

// tellAsker tells of another appliance that found this one.
func (w *worker) tellAsker(ctx context.Context, who string, now time.Time) {
	if !w.asker.over(now, askerPause) {
		return
	}
	w.tell(ctx, state.Note{
		What: "dhcp.asked", Severity: machine.Warning,
		Text: fmt.Sprintf("Another Rackseed appliance (%s) is on %s. It serves no new machines there as long as this one does. If they are to be its machines, switch this one off there.", who, w.link.Interface),
		Data: map[string]string{"link": w.link.Interface, "who": who},
	})
}

func (w *worker) tell(ctx context.Context, note state.Note) {
	if err := w.Propose(ctx, "dhcp", note); err != nil {
		w.log.Error(note.Text, "error", err)
	}
}

// parse reads a packet; a panic of the library becomes an error, since anybody
// on the link can send anything.
func parse(b []byte) (req *dhcpv4.DHCPv4, err error) {
	defer func() {
		if p := recover(); p != nil {
			req, err = nil, fmt.Errorf("DHCP packet of %d bytes: %v", len(b), p)
		}
	}()
	return dhcpv4.FromBytes(b)
}

func macOf(req *dhcpv4.DHCPv4) machine.MAC { return machine.MAC(req.ClientHWAddr.String()) }
