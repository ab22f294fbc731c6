//go:build host || full

package moving

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sys/unix"

	"github.com/rackseed/rackseed/services/api"
	"github.com/rackseed/rackseed/services/machine"
)

// askEvery is how often the client of a silence asks: so exact it is known.
const askEvery = 10 * time.Millisecond

// asker is a DHCP client with a lease, which asks for it again and again, as one
// that was restarted does (INIT-REBOOT, RFC 2131, section 3.2), and notes when it
// was answered. Each answer is a lease that was committed for its request.
type asker struct {
	conn    net.PacketConn
	mac     net.HardwareAddr
	address net.IP

	mu       sync.Mutex
	answered time.Time
	longest  time.Duration // between two answers, since it was reset
}

var everybody = &net.UDPAddr{IP: net.IPv4bcast, Port: dhcpv4.ServerPort}

// ask gives a client a lease, and asks so often until ctx ends.
func (r *room) ask(ctx context.Context, mac machine.MAC, every time.Duration) *asker {
	r.t.Helper()
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		return errors.Join(c.Control(func(fd uintptr) {
			err = errors.Join(unix.SetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE, "veth0"), unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1))
		}), err)
	}}
	conn, err := config.ListenPacket(ctx, "udp4", fmt.Sprintf("0.0.0.0:%d", dhcpv4.ClientPort))
	if err != nil {
		r.t.Fatal(err)
	}
	hardware, err := net.ParseMAC(string(mac))
	if err != nil {
		r.t.Fatal(err)
	}
	a := &asker{conn: conn, mac: hardware}
	r.t.Cleanup(func() { conn.Close() }) //nolint // it is over
	r.until("there is a lease", time.Minute, func() error {
		offer, err := a.exchange(dhcpv4.MessageTypeOffer, dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover))
		if err != nil {
			return err
		}
		ack, err := a.exchange(dhcpv4.MessageTypeAck, dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest),
			dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(offer.YourIPAddr)), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(offer.ServerIdentifier())))
		if err == nil {
			a.address = ack.YourIPAddr
		}
		return err
	})
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		r.t.Fatal(err)
	}
	a.answered = time.Now()
	go a.listen()
	go a.asks(ctx, every)
	return a
}

func (a *asker) send(with ...dhcpv4.Modifier) error {
	m, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithHwAddr(a.mac), dhcpv4.WithBroadcast(true)}, with...)...)
	if err == nil {
		_, err = a.conn.WriteTo(m.ToBytes(), everybody)
	}
	return err
}

// exchange sends a message, and waits a second for its answer.
func (a *asker) exchange(want dhcpv4.MessageType, with ...dhcpv4.Modifier) (*dhcpv4.DHCPv4, error) {
	if err := errors.Join(a.conn.SetReadDeadline(time.Now().Add(time.Second)), a.send(with...)); err != nil {
		return nil, err
	}
	for {
		m, err := a.next()
		if err != nil || m != nil && m.MessageType() == want {
			return m, err
		}
	}
}

// next is the next message to this client; nil: it is something else.
func (a *asker) next() (*dhcpv4.DHCPv4, error) {
	var b [1500]byte
	n, _, err := a.conn.ReadFrom(b[:])
	if err != nil {
		return nil, err
	}
	m, err := dhcpv4.FromBytes(b[:n])
	if err != nil || m.OpCode != dhcpv4.OpcodeBootReply || m.ClientHWAddr.String() != a.mac.String() {
		return nil, nil
	}
	return m, nil
}

func (a *asker) asks(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for ctx.Err() == nil {
		// A link that is down is silence too.
		a.send(dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(a.address))) //nolint
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

func (a *asker) listen() {
	for {
		m, err := a.next()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || m == nil || m.MessageType() != dhcpv4.MessageTypeAck {
			continue
		}
		a.mu.Lock()
		now := time.Now()
		a.longest = max(a.longest, now.Sub(a.answered))
		a.answered = now
		a.mu.Unlock()
	}
}

// reset begins to look for the longest silence anew.
func (a *asker) reset() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.longest = 0
}

// silence is the longest between two answers since the last reset.
func (a *asker) silence() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	return max(a.longest, time.Since(a.answered))
}

// last is when it was answered last.
func (a *asker) last() time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.answered
}

// tellSilences reports the middle and the worst of some.
func tellSilences(b *testing.B, all []time.Duration) {
	slices.Sort(all)
	b.Logf("each: %v", all) // -v shows it
	b.ReportMetric(all[len(all)/2].Seconds(), "s-median")
	b.ReportMetric(all[len(all)-1].Seconds(), "s-worst")
	b.ReportMetric(0, "ns/op") // it is mostly waiting
}

// BenchmarkHandoffSilence is the longest time without a DHCP answer in a handoff to
// three nodes, from its start to its end.
func BenchmarkHandoffSilence(b *testing.B) {
	var all []time.Duration
	for range b.N {
		one := silenceOf(b)
		all = append(all, one)
	}
	tellSilences(b, all)
}

func silenceOf(b *testing.B) time.Duration {
	one := &round{TB: b}
	defer one.end()
	r := newRoom(one, 4, 3)
	ctx, stop := context.WithCancel(b.Context())
	defer stop()
	client := r.ask(ctx, hardware(4).BootMAC, askEvery)
	r.move(ctx, client.reset)
	return client.silence()
}

// round is one of several within a benchmark: what it made goes with it.
type round struct {
	testing.TB
	cleanups []func()
}

// Cleanup implements testing.TB.
func (r *round) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }

// TempDir implements testing.TB.
func (r *round) TempDir() string {
	r.Helper()
	dir := r.TB.TempDir()
	r.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			r.Error(err)
		}
	})
	return dir
}

func (r *round) end() {
	for _, f := range slices.Backward(r.cleanups) {
		f()
	}
}

// move moves the boot service to the nodes. begin is called as it begins.
func (r *room) move(ctx context.Context, begin func()) {
	r.t.Helper()
	ctx, stop := context.WithCancel(ctx)
	carried := make(chan struct{})
	go func() {
		defer close(carried)
		r.carry(ctx)
	}()
	defer func() { stop(); <-carried }()
	begin()
	if err := r.client.Call(ctx, http.MethodPost, "/api/handoff/start", nil, struct{}{}, nil); err != nil {
		r.t.Fatal(err)
	}
	r.reach(machine.HandoffDone, 6*time.Minute)
}

// BenchmarkLeaderKilled is the longest time without a DHCP answer when the leader
// of three is killed, as by a power cut.
func BenchmarkLeaderKilled(b *testing.B) {
	r := newRoom(b, 4, 3)
	ctx, stop := context.WithCancel(b.Context())
	defer stop()
	r.move(ctx, func() {})
	r.stick.kill()
	client := r.ask(ctx, hardware(4).BootMAC, askEvery)
	var all []time.Duration
	b.ResetTimer()
	for range b.N {
		leader := r.settled()
		client.reset()
		leader.kill()
		r.others(leader)
		led := time.Now()
		r.until("it answers clients", time.Minute, func() error {
			if !client.last().After(led) {
				return errors.New("not yet")
			}
			return nil
		})
		all = append(all, client.silence())
		leader.start()
	}
	tellSilences(b, all)
}

// settled waits until the three replicas on nodes work, and says which one leads.
func (r *room) settled() (leader *host) {
	r.t.Helper()
	r.until("all three are there, and one leads", time.Minute, func() error {
		h, err := r.handoff()
		if err != nil {
			return err
		}
		if leader = r.leader(h); leader == nil {
			return fmt.Errorf("nobody leads: %+v", h.Replicas)
		}
		for _, n := range r.nodes[:3] {
			s, err := n.status()
			if err != nil {
				return err
			}
			if !slices.ContainsFunc(s.Health, func(h api.Health) bool { return h.Name == "console" && h.OK }) {
				return fmt.Errorf("%s has not begun: %+v", n.name, s.Health)
			}
		}
		return nil
	})
	return leader
}

// others waits until another replica leads than the one that did.
func (r *room) others(old *host) {
	r.t.Helper()
	r.until("another replica leads", time.Minute, func() error {
		now, err := r.handoff()
		if err == nil && (r.leader(now) == nil || r.leader(now) == old) {
			err = fmt.Errorf("leads: %+v", now.Replicas)
		}
		return err
	})
}
