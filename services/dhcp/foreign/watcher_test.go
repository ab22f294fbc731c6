package foreign

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

	"github.com/rackseed/rackseed/services/internal/frame"
	"github.com/rackseed/rackseed/services/state"
)

// wire is a link without a network.
type wire struct {
	in     chan []byte
	out    chan []byte
	down   atomic.Bool
	gone   atomic.Bool
	closed chan struct{}
}

func newWire() *wire {
	return &wire{in: make(chan []byte), out: make(chan []byte, 1000), closed: make(chan struct{})}
}

func (w *wire) Hardware() net.HardwareAddr { return card }
func (w *wire) Probe(b []byte) error       { w.out <- b; return nil }
func (w *wire) Close() error               { close(w.closed); return nil }

func (w *wire) Carrier() (bool, error) {
	if w.gone.Load() {
		return false, errors.New("there is no such link")
	}
	return !w.down.Load(), nil
}

func (w *wire) Read(b []byte) (int, error) {
	select {
	case m := <-w.in:
		return copy(b, m), nil
	case <-w.closed:
		return 0, net.ErrClosed
	}
}

// bench is a watcher in virtual time.
type bench struct {
	*wire
	watcher *Watcher
	notes   chan state.Note
	changes atomic.Int32
}

func run(t *testing.T, f func(t *testing.T, b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{wire: newWire(), notes: make(chan state.Note, 100)}
		b.watcher = &Watcher{
			Self: self, Now: time.Now, Logger: slog.New(slog.DiscardHandler),
			Propose: func(_ context.Context, n state.Note) error { b.notes <- n; return nil },
			Changed: func() { b.changes.Add(1) },
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- b.watcher.Run(ctx, b.wire) }()
		f(t, b)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if b.watcher.Open() {
			t.Error("new clients are served while nobody watches")
		}
	})
}

// told are the kinds of events since the last time.
func (b *bench) told() string {
	synctest.Wait()
	var out []string
	for len(b.notes) > 0 {
		out = append(out, (<-b.notes).What)
	}
	return strings.Join(out, " ")
}

// asked is the request in a frame; nil, and the test failed, if there is none.
func asked(t *testing.T, b []byte) *dhcpv4.DHCPv4 {
	f, err := frame.ParseUDP(b)
	if err != nil {
		t.Error(err)
		return nil
	}
	request, err := dhcpv4.FromBytes(f.Payload)
	if err != nil {
		t.Error(err)
		return nil
	}
	return request
}

// serverOn is a DHCP server that answers each probe until it is switched off.
func (b *bench) serverOn(t *testing.T, mods ...dhcpv4.Modifier) (off func()) {
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case p := <-b.out:
				request := asked(t, p)
				if request == nil {
					return
				}
				answer := said(t, dhcpv4.MessageTypeOffer, request.ClientHWAddr, append(mods, dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(192, 168, 1, 1))))...)
				select {
				case b.in <- answer:
				case <-stop:
					return
				}
			case <-stop:
				return
			}
		}
	}()
	return func() { close(stop); <-stopped }
}

func TestServesWhereNobodyAnswers(t *testing.T) {
	run(t, func(t *testing.T, b *bench) {
		time.Sleep(listenTime - time.Millisecond)
		if b.watcher.Open() || b.watcher.Hindrance() == "" || len(b.out) != 3 {
			t.Errorf("before it has listened: open %v, %q, %d probes", b.watcher.Open(), b.watcher.Hindrance(), len(b.out))
		}
		time.Sleep(2 * time.Millisecond)
		if !b.watcher.Open() || b.watcher.Hindrance() != "" || b.changes.Load() != 2 {
			t.Errorf("open %v, %q, changed %d times", b.watcher.Open(), b.watcher.Hindrance(), b.changes.Load())
		}
		if told := b.told(); told != "" {
			t.Errorf("told %q", told)
		}
	})
}

func TestYieldsToWhoAnswers(t *testing.T) {
	run(t, func(t *testing.T, b *bench) {
		off := b.serverOn(t)
		time.Sleep(time.Second / 2)
		if told := b.told(); told != "dhcp.foreign" || b.watcher.Open() {
			t.Errorf("told %q, open %v", told, b.watcher.Open())
		}
		time.Sleep(30 * time.Minute)
		if told := b.told(); told != strings.TrimSpace(strings.Repeat("dhcp.foreign ", 6)) || b.watcher.Open() {
			t.Errorf("told %q in half an hour, open %v", told, b.watcher.Open())
		}
		off()
		time.Sleep(quietTime - time.Minute - time.Second)
		if b.watcher.Open() {
			t.Error("open too early")
		}
		time.Sleep(time.Minute + spread + listenTime + 2*time.Second)
		if told := b.told(); told != "dhcp.foreign-gone" || !b.watcher.Open() {
			t.Errorf("told %q, open %v", told, b.watcher.Open())
		}
	})
}

// A server that spanning tree hid is found within a minute.
func TestFindsWhatWasHidden(t *testing.T) {
	run(t, func(t *testing.T, b *bench) {
		time.Sleep(40 * time.Second)
		if !b.watcher.Open() {
			t.Fatal("not open")
		}
		defer b.serverOn(t)()
		for len(b.out) > 0 { // those were lost
			<-b.out
		}
		time.Sleep(11 * time.Second)
		if told := b.told(); told != "dhcp.foreign" || b.watcher.Open() {
			t.Errorf("told %q, open %v", told, b.watcher.Open())
		}
	})
}

func TestHearsClientsAndItself(t *testing.T) {
	run(t, func(t *testing.T, b *bench) {
		time.Sleep(listenTime + time.Second)
		b.in <- []byte("noise")
		b.in <- frame.UDP(card, everyone, servers, nobody, nil)
		b.watcher.Named(service, clientMAC)
		if told := b.told(); told != "" || !b.watcher.Open() {
			t.Errorf("told %q, open %v", told, b.watcher.Open())
		}
		b.watcher.Named(router, clientMAC)
		if told := b.told(); told != "dhcp.foreign" || b.watcher.Open() {
			t.Errorf("told %q, open %v", told, b.watcher.Open())
		}
	})
}

func TestCarrier(t *testing.T) {
	run(t, func(t *testing.T, b *bench) {
		time.Sleep(listenTime + time.Second)
		b.down.Store(true)
		time.Sleep(2 * look)
		if b.watcher.Open() {
			t.Error("open without a carrier")
		}
		b.down.Store(false)
		time.Sleep(look + listenTime/2)
		if b.watcher.Open() {
			t.Error("open at once after the carrier came back")
		}
		time.Sleep(listenTime)
		if !b.watcher.Open() {
			t.Error("not open again")
		}
	})
}

// What was learned is kept when the link's sockets are opened anew.
func TestRunAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &Watcher{Self: self, Now: time.Now, Logger: slog.New(slog.DiscardHandler)}
		first := newWire()
		done := make(chan error, 1)
		go func() { done <- w.Run(t.Context(), first) }()
		w.Named(router, clientMAC)
		time.Sleep(time.Second)
		first.gone.Store(true)
		if err := <-done; err == nil || !strings.Contains(err.Error(), "listening for DHCP servers on eth0: there is no such link") {
			t.Errorf("ended with %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() { done <- w.Run(ctx, newWire()) }()
		time.Sleep(time.Minute)
		if w.Open() || !strings.Contains(w.Hindrance(), "192.168.1.1") {
			t.Errorf("open %v, %q", w.Open(), w.Hindrance())
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}

		// Another name for the site changes nothing about the wire; another card
		// is perhaps on another one.
		w.Self.Site, w.Self.Interface = "moved", "eth7"
		ctx, cancel = context.WithCancel(t.Context())
		go func() { done <- w.Run(ctx, newWire()) }()
		time.Sleep(listenTime + time.Second)
		if w.Open() || !strings.HasPrefix(w.Hindrance(), "eth7: ") || !strings.Contains(w.Hindrance(), "192.168.1.1") {
			t.Errorf("under another name: open %v, %q", w.Open(), w.Hindrance())
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		ctx, cancel = context.WithCancel(t.Context())
		go func() { done <- w.Run(ctx, newAppliance(9)) }()
		time.Sleep(listenTime + time.Second)
		if !w.Open() {
			t.Errorf("on another card: %q", w.Hindrance())
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// appliance is a watcher on a wire that two share. It answers a probe while it
// serves, as services/dhcp does.
type appliance struct {
	*wire
	self Self
	card net.HardwareAddr
	w    *Watcher
}

func (a *appliance) Hardware() net.HardwareAddr { return a.card }

func newAppliance(n byte) *appliance {
	a := &appliance{wire: newWire(), card: net.HardwareAddr{0x52, 0x54, 0, 0, 0, n}}
	a.self = Self{Interface: "eth0", Service: netip.AddrFrom4([4]byte{10, 77, 0, n}), Cluster: fmt.Sprint("c-", n), Site: fmt.Sprint("rack", n)}
	a.w = &Watcher{Self: a.self, Now: time.Now, Logger: slog.New(slog.DiscardHandler)}
	return a
}

// answers lets b answer a's probes until ctx ends.
func (a *appliance) answered(ctx context.Context, t *testing.T, b *appliance) {
	for {
		var p []byte
		select {
		case p = <-a.out:
		case <-ctx.Done():
			return
		}
		request := asked(t, p)
		if request == nil {
			return
		}
		if _, _, is := Probe(request); !is || !b.w.Open() {
			continue
		}
		offer, err := dhcpv4.New(dhcpv4.WithReply(request), dhcpv4.WithMessageType(dhcpv4.MessageTypeOffer),
			dhcpv4.WithOption(dhcpv4.OptServerIdentifier(b.self.Service.AsSlice())))
		if err != nil {
			t.Error(err)
			return
		}
		b.self.Answer(offer)
		select {
		case a.in <- frame.UDP(b.card, everyone, netip.AddrPortFrom(b.self.Service, serverPort), netip.MustParseAddrPort("255.255.255.255:68"), offer.ToBytes()):
		case <-ctx.Done():
			return
		}
	}
}

// Of two appliances on a wire one serves, whenever they start, and for good.
func TestTwoAppliances(t *testing.T) {
	for _, later := range []time.Duration{0, 500 * time.Millisecond, 3 * time.Second, 10 * time.Second, 90 * time.Second} {
		t.Run(later.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				a, b := newAppliance(1), newAppliance(2)
				var all sync.WaitGroup
				all.Go(func() { a.answered(ctx, t, b) })
				all.Go(func() { b.answered(ctx, t, a) })
				all.Go(func() { a.w.Run(ctx, a) })
				time.Sleep(later)
				all.Go(func() { b.w.Run(ctx, b) })
				var both, neither, changes time.Duration
				const step, whole = 100 * time.Millisecond, 40 * time.Minute
				last := ""
				for now := time.Duration(0); now < whole; now += step {
					time.Sleep(step)
					synctest.Wait()
					switch x, y := a.w.Open(), b.w.Open(); {
					case x && y:
						both += step
					case !x && !y:
						neither += step
					}
					if s := fmt.Sprint(a.w.Open(), b.w.Open()); s != last {
						last, changes = s, now
					}
				}
				if both > 2*time.Second || neither > 7*time.Minute || changes > 8*time.Minute || a.w.Open() == b.w.Open() {
					t.Errorf("both for %v, neither for %v; %s since %v", both, neither, last, changes)
				}
				if later >= 5*time.Second && !(a.w.Open() && strings.Contains(b.w.Hindrance(), "another Rackseed appliance, of site \"rack1\"")) {
					t.Errorf("the first one serves: %v; the later one says %q", a.w.Open(), b.w.Hindrance())
				}
				cancel()
				all.Wait()
			})
		})
	}
}

// Any two that start in the same moment find out which of them serves.
func TestTwoAppliancesAtOnce(t *testing.T) {
	for n := range byte(20) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			a, b := newAppliance(2*n+1), newAppliance(2*n+2)
			var all sync.WaitGroup
			all.Go(func() { a.answered(ctx, t, b) })
			all.Go(func() { b.answered(ctx, t, a) })
			all.Go(func() { a.w.Run(ctx, a) })
			all.Go(func() { b.w.Run(ctx, b) })
			time.Sleep(3*(quietTime+spread+listenTime) + time.Minute)
			synctest.Wait()
			if a.w.Open() == b.w.Open() {
				t.Errorf("%s and %s: both serve: %v", a.card, b.card, a.w.Open())
			}
			cancel()
			all.Wait()
		})
	}
}
