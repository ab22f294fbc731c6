package dhcp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/rackseed/rackseed/services/dhcp/foreign"
	"github.com/rackseed/rackseed/services/internal/frame"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
)

// pipe is a link without a network.
type pipe struct {
	in     chan []byte
	out    chan *dhcpv4.DHCPv4
	closed chan struct{}
	waited atomic.Int64 // how long packets waited to be read: a time.Duration
}

func newPipe() *pipe {
	return &pipe{in: make(chan []byte), out: make(chan *dhcpv4.DHCPv4, 4096), closed: make(chan struct{})}
}

func (p *pipe) Read(b []byte) (int, time.Duration, error) {
	select {
	case m := <-p.in:
		return copy(b, m), time.Duration(p.waited.Load()), nil
	case <-p.closed:
		return 0, 0, net.ErrClosed
	}
}

func (p *pipe) Send(_ Target, b []byte) error {
	r, err := dhcpv4.FromBytes(b)
	if err == nil {
		p.out <- r
	}
	return err
}

func (p *pipe) Close() error { close(p.closed); return nil }

// listening is longer than a link is listened to before new clients are served.
const listening = 5 * time.Second

// ear is a link's wire, on which other servers talk.
type ear struct {
	in     chan []byte
	probes atomic.Int32
	closed chan struct{}
}

func newEar() *ear { return &ear{in: make(chan []byte), closed: make(chan struct{})} }

func (e *ear) Hardware() net.HardwareAddr { return net.HardwareAddr{0x52, 0x54, 0, 0, 1, 1} }
func (e *ear) Carrier() (bool, error)     { return true, nil }
func (e *ear) Probe([]byte) error         { e.probes.Add(1); return nil }
func (e *ear) Close() error               { close(e.closed); return nil }

func (e *ear) Read(b []byte) (int, error) {
	select {
	case m := <-e.in:
		return copy(b, m), nil
	case <-e.closed:
		return 0, net.ErrClosed
	}
}

// bench is a server on a pipe, with a state that takes delay to commit.
type bench struct {
	*pipe
	ear    *ear
	server *Server

	mu        sync.Mutex
	world     *world
	committed []state.Command
	delay     time.Duration
	err       func(state.Command) error // of a commit
	why       []string                  // new clients are not served
}

func newBench() *bench {
	b := &bench{pipe: newPipe(), ear: newEar(), world: newWorld()}
	b.server = &Server{
		Links: []Link{testLink()}, View: func() State { return locked{b} },
		Propose: b.propose, Logger: slog.New(slog.DiscardHandler), Hindered: b.hinder,
		openSocket: func(context.Context, Link) (conn, error) { return b.pipe, nil },
		wire:       func(Link) (foreign.Wire, error) { return b.ear, nil },
	}
	return b
}

// run runs f against a server in virtual time.
func run(t *testing.T, f func(t *testing.T, b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- b.server.Run(ctx) }()
		time.Sleep(listening) // virtual
		f(t, b)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func (b *bench) propose(ctx context.Context, _ string, c state.Command) error {
	select {
	case <-time.After(b.delay):
	case <-ctx.Done():
		return ctx.Err()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		if err := b.err(c); err != nil {
			return err
		}
	}
	b.world.apply(c)
	b.committed = append(b.committed, c)
	return nil
}

func (b *bench) hinder(why []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.why = why
}

func (b *bench) hindrance() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Join(b.why, "; ")
}

// locked is the bench's world for many readers.
type locked struct{ b *bench }

func (l locked) lock() (*world, func()) { l.b.mu.Lock(); return l.b.world, l.b.mu.Unlock }

func (l locked) MachineByMAC(m machine.MAC) (machine.Machine, bool) {
	w, unlock := l.lock()
	defer unlock()
	return w.MachineByMAC(m)
}

func (l locked) MachineByUUID(u string) (machine.Machine, bool) {
	w, unlock := l.lock()
	defer unlock()
	return w.MachineByUUID(u)
}

func (l locked) Machines() []machine.Machine {
	w, unlock := l.lock()
	defer unlock()
	return w.Machines()
}

func (l locked) Lease(a netip.Addr) (machine.Lease, bool) {
	w, unlock := l.lock()
	defer unlock()
	return w.Lease(a)
}

func (l locked) LeaseByMAC(m machine.MAC) (machine.Lease, bool) {
	w, unlock := l.lock()
	defer unlock()
	return w.LeaseByMAC(m)
}

func (l locked) InstallIntent(id machine.ID) *machine.Intent {
	w, unlock := l.lock()
	defer unlock()
	return w.InstallIntent(id)
}

func (l locked) Circumstances(m machine.Machine, now time.Time) machine.Circumstances {
	w, unlock := l.lock()
	defer unlock()
	return w.Circumstances(m, now)
}

// kinds are the committed commands.
func (b *bench) kinds() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := ""
	for _, c := range b.committed {
		s += c.Kind() + " "
	}
	return s
}

func TestServerCommitsFirst(t *testing.T) {
	run(t, func(t *testing.T, b *bench) {
		b.delay = time.Second
		b.in <- packet4{kind: discover, mac: macA, options: pxe(7)}.build(t).ToBytes()
		offer := <-b.out
		if got := b.kinds(); got != "machine.see/1 " {
			t.Errorf("committed before the offer: %q", got)
		}
		if see := b.committed[0].(state.MachineSee); len(see.ID) != 10 || see.ID[:2] != "m-" {
			t.Errorf("machine ID %q", see.ID)
		}
		b.in <- packet4{kind: request, mac: macA, server: "10.77.0.3", requested: offer.YourIPAddr.String()}.build(t).ToBytes()
		synctest.Wait()
		if len(b.out) != 0 {
			t.Error("an ACK left before the commit")
		}
		if ack := <-b.out; ack.MessageType() != dhcpv4.MessageTypeAck || !ack.YourIPAddr.Equal(offer.YourIPAddr) {
			t.Errorf("got %s", ack.Summary())
		}
		if got := b.kinds(); got != "machine.see/1 lease.bind/1 " {
			t.Errorf("committed %q", got)
		}
	})
}

func TestServerDropsLateReplies(t *testing.T) {
	run(t, func(t *testing.T, b *bench) {
		b.delay = answerTime + time.Second
		b.in <- packet4{kind: request, mac: macA, server: "10.77.0.3", requested: "10.77.0.100"}.build(t).ToBytes()
		time.Sleep(b.delay + time.Second) // virtual
		if len(b.out) != 0 {
			t.Errorf("an answer after %v: %s", b.delay, (<-b.out).Summary())
		}
		if s := b.server.Stats(); s.Received != 1 || s.Sent != 0 || s.Refused+s.Late != 1 {
			t.Errorf("stats %+v", s)
		}
	})
}

// What waited in the kernel while this process was stopped is not answered: not even
// an OFFER, which waits for no commit.
func TestServerDropsWhatWaited(t *testing.T) {
	run(t, func(t *testing.T, b *bench) {
		b.waited.Store(int64(answerTime + time.Second))
		b.in <- packet4{kind: discover, mac: macA}.build(t).ToBytes()
		b.in <- packet4{kind: request, mac: macA, server: "10.77.0.3", requested: "10.77.0.100"}.build(t).ToBytes()
		synctest.Wait()
		if len(b.out) != 0 || b.kinds() != "" {
			t.Errorf("%d answers, committed %q", len(b.out), b.kinds())
		}
		if s := b.server.Stats(); s.Received != 2 || s.Late != 2 {
			t.Errorf("stats %+v", s)
		}
	})
}

// A client that lost a race is told so, from the state as it is then.
func TestServerDecidesAgain(t *testing.T) {
	run(t, func(t *testing.T, b *bench) {
		b.err = func(c state.Command) error {
			if bind, ok := c.(state.LeaseBind); ok {
				b.world.lease(macB, bind.Lease.Address.String(), time.Hour)
				return fmt.Errorf("proposing: %w", &state.Refusal{Text: "taken"})
			}
			return nil
		}
		b.in <- packet4{kind: request, mac: macA, server: "10.77.0.3", requested: "10.77.0.100"}.build(t).ToBytes()
		if r := <-b.out; r.MessageType() != dhcpv4.MessageTypeNak {
			t.Errorf("got %s", r.Summary())
		}
		if got := b.kinds(); got != "note/1 " {
			t.Errorf("committed %q", got)
		}
	})
}

func TestServerIsSilentWithoutAuthority(t *testing.T) {
	run(t, func(t *testing.T, b *bench) {
		b.err = func(state.Command) error { return errors.New("not the leader") }
		b.in <- packet4{kind: request, mac: macA, server: "10.77.0.3", requested: "10.77.0.100"}.build(t).ToBytes()
		synctest.Wait()
		if len(b.out) != 0 || b.server.Stats().Refused != 1 {
			t.Errorf("answered %d times, stats %+v", len(b.out), b.server.Stats())
		}
	})
}

func TestServerOffersNothingTwice(t *testing.T) {
	run(t, func(t *testing.T, b *bench) {
		for i := range 20 {
			b.in <- packet4{kind: discover, mac: fmt.Sprintf("52:54:00:00:01:%02x", i)}.build(t).ToBytes()
		}
		synctest.Wait()
		// Four in the pool, of which one is reserved.
		if len(b.out) != 3 {
			t.Fatalf("%d offers of 3 addresses", len(b.out))
		}
		seen := map[string]bool{}
		for range 3 {
			seen[(<-b.out).YourIPAddr.String()] = true
		}
		if len(seen) != 3 {
			t.Errorf("offered %v", seen)
		}
		if got := b.kinds(); got != "note/1 " {
			t.Errorf("exhaustion was told as %q, want one note", got)
		}
		time.Sleep(offerTime + time.Second) // virtual
		b.in <- packet4{kind: discover, mac: macA}.build(t).ToBytes()
		if r := <-b.out; r.MessageType() != dhcpv4.MessageTypeOffer {
			t.Errorf("after the offers ran out: %s", r.Summary())
		}
	})
}

// Where another server shows new clients are left to it, and told of; whoever
// has a lease goes on. Later all go on.
func TestServerYields(t *testing.T) {
	run(t, func(t *testing.T, b *bench) {
		ask := func(mac string) string {
			b.in <- packet4{kind: discover, mac: mac}.build(t).ToBytes()
			synctest.Wait()
			if len(b.out) == 0 {
				return "silence"
			}
			return (<-b.out).YourIPAddr.String()
		}
		if got := b.hindrance(); got != "" {
			t.Fatalf("hindered by %q", got)
		}
		b.world.lease(macA, "10.77.0.100", time.Hour)
		hw, _ := net.ParseMAC("52:54:00:00:00:99")
		offer := packet4{kind: dhcpv4.MessageTypeOffer, mac: macB, server: "10.77.0.9"}.build(t)
		offer.OpCode = dhcpv4.OpcodeBootReply
		b.ear.in <- frame.UDP(hw, everyone, netip.MustParseAddrPort("10.77.0.9:67"), broadcastPort, offer.ToBytes())
		synctest.Wait()
		if got := b.hindrance(); !strings.HasPrefix(got, "eth0: the DHCP server 10.77.0.9 (hardware address 52:54:00:00:00:99) answers DHCP too") {
			t.Errorf("hindered by %q", got)
		}
		if a, n := ask(macA), ask(macB); a != "10.77.0.100" || n != "silence" {
			t.Errorf("who has a lease hears %s, a new one %s", a, n)
		}
		if got := b.kinds(); got != "note/1 " {
			t.Errorf("committed %q", got)
		}
		time.Sleep(6 * time.Minute) // virtual
		if got := b.hindrance(); got != "" {
			t.Errorf("hindered by %q", got)
		}
		if n := ask(macB); n == "silence" {
			t.Error("a new one is not served again")
		}
		if got := b.kinds(); got != "note/1 note/1 " {
			t.Errorf("committed %q", got)
		}
		// A client's word is enough.
		b.in <- packet4{kind: request, mac: macB, server: "10.77.0.9", requested: "10.77.0.222"}.build(t).ToBytes()
		synctest.Wait()
		if n := ask("52:54:00:00:00:0c"); n != "silence" {
			t.Errorf("a new one hears %s", n)
		}
	})
}

// What was learned of other servers is not forgotten with the Server: the next
// one, with a changed site file, says so at once and yields too.
func TestServerKnowsWhatTheLastOneLearned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		known := map[string]*foreign.Watcher{}
		during := func(f func(b *bench)) {
			b := newBench()
			b.server.Watchers = known
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- b.server.Run(ctx) }()
			f(b)
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		during(func(b *bench) {
			time.Sleep(listening) // virtual
			b.in <- packet4{kind: request, mac: macB, server: "10.77.0.9", requested: "10.77.0.222"}.build(t).ToBytes()
			synctest.Wait()
			if got := b.hindrance(); !strings.Contains(got, "10.77.0.9") {
				t.Fatalf("hindered by %q", got)
			}
		})
		during(func(b *bench) {
			synctest.Wait()
			if got := b.hindrance(); !strings.Contains(got, "listening") {
				t.Errorf("at once: hindered by %q", got)
			}
			time.Sleep(listening) // virtual
			if got := b.hindrance(); !strings.Contains(got, "10.77.0.9") {
				t.Errorf("after listening: hindered by %q", got)
			}
			b.in <- packet4{kind: discover, mac: macA}.build(t).ToBytes()
			synctest.Wait()
			if len(b.out) != 0 {
				t.Errorf("a new one hears %s", (<-b.out).Summary())
			}
			time.Sleep(6 * time.Minute) // virtual
			if got := b.hindrance(); got != "" {
				t.Errorf("in the end: hindered by %q", got)
			}
		})
	})
}

// searched counts how often addresses of the pool are looked at.
type searched struct {
	State
	looks *atomic.Int64
}

func (s searched) Lease(a netip.Addr) (machine.Lease, bool) {
	s.looks.Add(1)
	return s.State.Lease(a)
}

// A flood of new clients does not have an exhausted pool searched for each; an
// address that becomes free is found a second later.
func TestServerSearchesAFullPoolOnce(t *testing.T) {
	run(t, func(t *testing.T, b *bench) {
		for i := range 3 { // of four; one is reserved
			b.world.lease(machine.MAC(fmt.Sprintf("52:54:00:00:02:%02x", i)), fmt.Sprintf("10.77.0.%d", 100+i), time.Hour)
		}
		var looks atomic.Int64
		b.server.View = func() State { return searched{locked{b}, &looks} }
		flood := func(from int) {
			for i := range 500 {
				b.in <- packet4{kind: discover, mac: fmt.Sprintf("52:54:00:00:%02x:%02x", from+i>>8, i&255)}.build(t).ToBytes()
			}
			synctest.Wait()
		}
		flood(0x10)
		// The first few are decided at once; each search looks at four.
		if n := looks.Load(); n > 4*workers+500 || len(b.out) != 0 {
			t.Errorf("%d looks, %d answers", n, len(b.out))
		}
		looks.Store(0)
		flood(0x20)
		if n := looks.Load(); n != 0 {
			t.Errorf("%d looks in the same second", n)
		}
		delete(b.world.leases, ip("10.77.0.101"))
		time.Sleep(exhaustedTime + time.Millisecond) // virtual
		b.in <- packet4{kind: discover, mac: macA}.build(t).ToBytes()
		if r := <-b.out; r.YourIPAddr.String() != "10.77.0.101" {
			t.Errorf("got %s", r.Summary())
		}
	})
}

// Another appliance that asks is told of once.
func TestServerTellsOfAnAppliance(t *testing.T) {
	run(t, func(t *testing.T, b *bench) {
		probe := packet4{kind: discover, mac: macA, options: []dhcpv4.Option{dhcpv4.OptClientIdentifier([]byte("\x00rackseed-probe:c-2"))}}.build(t).ToBytes()
		for range 3 {
			b.in <- probe
			if r := <-b.out; r.ClassIdentifier() != "rackseed-server:c-1" {
				t.Errorf("answer %s", r.Summary())
			}
		}
		if got := b.kinds(); got != "note/1 " {
			t.Errorf("committed %q", got)
		}
	})
}

// A flood fills the queue and no more.
func TestServerDropsAFlood(t *testing.T) {
	run(t, func(t *testing.T, b *bench) {
		b.delay = time.Second
		const flood = workers + queueLength + 300
		for i := range flood {
			b.in <- packet4{kind: request, mac: fmt.Sprintf("52:54:00:00:%02x:%02x", i/256, i%256), server: "10.77.0.3", requested: "10.77.0.100"}.build(t).ToBytes()
			synctest.Wait()
		}
		if s := b.server.Stats(); s.Received != flood || s.Dropped != 300 {
			t.Errorf("stats %+v, want %d received and 300 dropped", s, flood)
		}
	})
}

// Over the limit of sightings a machine is not noted, and answered all the same.
func TestServerAnswersWhomItCannotNote(t *testing.T) {
	b := &bench{pipe: newPipe(), world: newWorld()}
	w := &worker{
		Server: &Server{View: func() State { return locked{b} }, Propose: b.propose, Now: func() time.Time { return start }},
		link:   testLink(), offers: newOffers(), limits: newLimits(testLink()), open: func() bool { return true }, log: slog.New(slog.DiscardHandler),
	}
	w.sightings = newBucket(1, 0)
	for _, mac := range []string{macA, macB} {
		w.handle(t.Context(), b, arrival{packet4{kind: discover, mac: mac, options: pxe(7)}.build(t).ToBytes(), start})
		if len(b.out) != 1 {
			t.Fatalf("%s: %d answers", mac, len(b.out))
		}
		offer := <-b.out
		w.handle(t.Context(), b, arrival{packet4{kind: request, mac: mac, server: "10.77.0.3",
			requested: offer.YourIPAddr.String(), options: pxe(7)}.build(t).ToBytes(), start})
		if len(b.out) != 1 || (<-b.out).MessageType() != dhcpv4.MessageTypeAck {
			t.Errorf("%s: its address is not acknowledged", mac)
		}
	}
	if got := b.kinds(); got != "machine.see/1 lease.bind/1 lease.bind/1 " {
		t.Errorf("committed %q", got)
	}
}

// Over the limit of events machines are noted, and leases bound, without.
func TestServerBoundsEventsOfMachines(t *testing.T) {
	b := &bench{pipe: newPipe(), world: newWorld()}
	w := &worker{
		Server: &Server{View: func() State { return locked{b} }, Propose: b.propose, Now: func() time.Time { return start }},
		link:   testLink(), offers: newOffers(), limits: newLimits(testLink()), open: func() bool { return true }, log: slog.New(slog.DiscardHandler),
	}
	w.events = newBucket(1, 0)
	w.handle(t.Context(), b, arrival{packet4{kind: discover, mac: macA, options: pxe(7)}.build(t).ToBytes(), start})
	w.handle(t.Context(), b, arrival{packet4{kind: request, mac: macB, server: "10.77.0.3", requested: "10.77.0.100", options: pxe(7)}.build(t).ToBytes(), start})
	if got := b.kinds(); got != "machine.see/1 machine.see/1 lease.bind/1 " {
		t.Fatalf("committed %q", got)
	}
	first, second, bind := b.committed[0].(state.MachineSee), b.committed[1].(state.MachineSee), b.committed[2].(state.LeaseBind)
	if first.Text == "" || second.Text != "" || second.ID == "" || bind.Event {
		t.Errorf("events: of the first machine %q, of the second %q, of its lease %v", first.Text, second.Text, bind.Event)
	}
}

// A client that asks for one address after the other, gives each back or
// declines it, can neither push everybody's events out of the log nor empty the
// pool. It has its answers all the same.
func TestServerBoundsWhatOneClientWrites(t *testing.T) {
	const rounds = 3000
	for name, test := range map[string]struct {
		ending                        dhcpv4.MessageType
		acks, events, ended, declined int
	}{
		"moves":      {dhcpv4.MessageTypeNone, rounds, 2000, 0, 0},
		"gives back": {release, rounds, 2000, 200, 0},
		"declines":   {decline, 1 + rounds/2, 2000, 1, 1}, // the second address stays its own
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T, b *bench) {
				acks := 0
				for i := range rounds {
					a := fmt.Sprintf("10.77.0.%d", 100+i%2)
					b.in <- packet4{kind: request, mac: macA, server: "10.77.0.3", requested: a, options: pxe(7)}.build(t).ToBytes()
					synctest.Wait()
					for len(b.out) > 0 {
						if r := <-b.out; r.MessageType() == dhcpv4.MessageTypeAck {
							acks++
						}
					}
					switch test.ending {
					case release:
						b.in <- packet4{kind: release, mac: macA, own: a}.build(t).ToBytes()
					case decline:
						b.in <- packet4{kind: decline, mac: macA, requested: a, server: "10.77.0.3"}.build(t).ToBytes()
					}
					synctest.Wait()
				}
				var events, ended, declined int
				for _, c := range b.committed {
					switch x := c.(type) {
					case state.MachineSee:
						if x.Text != "" {
							events++
						}
					case state.LeaseBind:
						if x.Event {
							events++
						}
					case state.LeaseRelease:
						ended++
					case state.LeaseDecline:
						ended++
						declined++
					}
				}
				if acks != test.acks || events > test.events || ended > test.ended || declined > test.declined {
					t.Errorf("%d of %d acknowledged; %d events of sightings and bindings, %d of endings, %d addresses are given to nobody", acks, rounds, events, ended, declined)
				}
			})
		})
	}
}

// A flood that one link's NAKs are bounded by is not another link's.
func TestServerBoundsEachLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bench{world: newWorld()}
		quiet := testLink()
		quiet.Interface = "eth1"
		pipes := map[string]*pipe{"eth0": newPipe(), "eth1": newPipe()}
		b.server = &Server{
			Links: []Link{testLink(), quiet}, View: func() State { return locked{b} },
			Propose: b.propose, Logger: slog.New(slog.DiscardHandler),
			openSocket: func(_ context.Context, l Link) (conn, error) { return pipes[l.Interface], nil },
			wire:       func(Link) (foreign.Wire, error) { return newEar(), nil },
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- b.server.Run(ctx) }()
		time.Sleep(listening) // virtual
		nak := packet4{kind: request, mac: macA, server: "10.77.0.3", requested: "10.99.0.1"}.build(t).ToBytes()
		for range 60 {
			pipes["eth0"].in <- nak
		}
		synctest.Wait()
		if n := len(pipes["eth0"].out); n != 50 {
			t.Errorf("%d NAKs on the flooded link", n)
		}
		pipes["eth1"].in <- nak
		synctest.Wait()
		if n := len(pipes["eth1"].out); n != 1 {
			t.Errorf("%d NAKs on the other link", n)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestServerCountsNoise(t *testing.T) {
	run(t, func(t *testing.T, b *bench) {
		b.in <- []byte("noise")
		b.in <- nil
		synctest.Wait()
		if s := b.server.Stats(); s.Malformed != 2 {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestStatsText(t *testing.T) {
	for want, s := range map[string]Stats{
		"0 packets, 0 answers": {},
		"9 packets, 1 answers, 2 dropped as too many at once, 3 answers too late to be sent, 1 over a limit or refused by the state, 2 malformed": {
			Received: 9, Dropped: 2, Malformed: 2, Sent: 1, Late: 3, Refused: 1,
		},
	} {
		if got := s.String(); got != want {
			t.Errorf("got %s", got)
		}
	}
}

func TestLinks(t *testing.T) {
	hw, _ := net.ParseMAC(macA)
	site := machine.Site{
		ServiceAddress: service,
		Links: []machine.SiteLink{
			{MAC: macA, Address: netip.MustParsePrefix("10.77.0.2/24"), DHCP: &machine.SiteDHCP{From: ip("10.77.0.100"), To: ip("10.77.0.199"), LeaseTime: machine.Duration(time.Hour)}},
			{Interface: "eth1", Address: netip.MustParsePrefix("10.78.0.2/24")}, // not served
			{Interface: "eth9", Address: netip.MustParsePrefix("10.79.0.2/24"), DHCP: &machine.SiteDHCP{}},
			{Interface: "eth1", VLAN: 7, Address: netip.MustParsePrefix("10.80.0.2/24"), DHCP: &machine.SiteDHCP{Others: true}},
			{MAC: macA, VLAN: 8, Address: netip.MustParsePrefix("10.81.0.2/24"), DHCP: &machine.SiteDHCP{}},
		},
		Machines: []machine.ListedMachine{{MAC: macB}, {MAC: macB, Address: ip("10.77.0.11")}},
	}
	links, err := Links(site, "c-1", []net.Interface{{Name: "lo"}, {Name: "enp1s0", HardwareAddr: hw}, {Name: "enp1s0.9", HardwareAddr: hw}, {Name: "eth1"}, {Name: "eth1.7"}})
	if len(links) != 2 || links[1].Interface != "eth1.7" || !links[1].Others || links[0].Interface != "enp1s0" || links[0].Prefix.String() != "10.77.0.0/24" || links[0].Own != ip("10.77.0.2") || len(links[0].Listed) != 2 || links[0].Others || links[0].Cluster != "c-1" {
		t.Errorf("links %+v", links)
	}
	if err == nil || err.Error() != "links[2] of the site file: there is no network interface eth9; it is not served until one appears\n"+
		"links[4] of the site file: there is no network interface 52:54:00:00:00:0a in VLAN 8; it is not served until one appears" {
		t.Errorf("error %v", err)
	}
}

func TestOffersTableIsBounded(t *testing.T) {
	o := newOffers()
	mac := func(i int) machine.MAC {
		return machine.MAC(fmt.Sprintf("52:54:00:%02x:%02x:%02x", i>>16, i>>8&255, i&255))
	}
	first := number(ip("10.0.0.0"))
	for i := range maxOffers + 100 {
		if !o.take(address(first+uint32(i)), mac(i), start) {
			t.Fatalf("offer %d was refused", i)
		}
	}
	if len(o.byIP) != maxOffers || len(o.byMAC) != maxOffers {
		t.Errorf("%d and %d entries, want %d", len(o.byIP), len(o.byMAC), maxOffers)
	}
	if o.take(address(first), mac(1), start) {
		t.Error("an address was offered twice")
	}
	o.take(ip("10.99.0.1"), "52:54:01:00:00:00", start.Add(offerTime))
	if len(o.byIP) != 1 {
		t.Errorf("%d entries remain after they ran out", len(o.byIP))
	}
}

func TestDeclines(t *testing.T) {
	d := newDeclines(32) // 4 for a client, 16 for all
	decline := func(n int, mac machine.MAC, minute int) bool {
		now := start.Add(time.Duration(minute) * time.Minute)
		return d.add(address(number(ip("10.77.0.100"))+uint32(n)), mac, now, now.Add(declinePause))
	}
	for n := range 5 {
		if got := decline(n, macA, n); got != (n < 4) {
			t.Errorf("decline %d of one client: %v", n, got)
		}
	}
	for n := range 13 {
		if got := decline(10+n, machine.MAC(fmt.Sprint(n)), 5); got != (n < 12) {
			t.Errorf("decline %d of others: %v", n, got)
		}
	}
	// The first one's pause is over, and one that is declined again counts once.
	if !decline(20, macA, 10) || !decline(20, macA, 10) || decline(21, macA, 10) {
		t.Error("after the first address is free again")
	}
	if d := newDeclines(1); d.each != 1 || d.all != 1 {
		t.Errorf("of one address: %+v", d)
	}
	if d := newDeclines(65536); d.each != 8 || d.all != 32768 {
		t.Errorf("of a /16: %+v", d)
	}
}

func TestBucket(t *testing.T) {
	b := newBucket(2, 1)
	var got []bool
	for _, second := range []int{0, 0, 0, 1, 1, 60, 60, 60} {
		got = append(got, b.take(start.Add(time.Duration(second)*time.Second)))
	}
	if want := "[true true false true false true true false]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
}
