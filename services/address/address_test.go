package address

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/bpf"

	"github.com/rackseed/rackseed/services/freeport"
)

var (
	macA = net.HardwareAddr{0x52, 0x54, 0, 0, 0, 1}
	macB = net.HardwareAddr{0x52, 0x54, 0, 0, 0, 2}
	ours = netip.MustParseAddr("10.77.0.3")
)

func TestARP(t *testing.T) {
	got := probe(macA, ours).bytes()
	want := []byte{0, 1, 8, 0, 6, 4, 0, 1, 0x52, 0x54, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 77, 0, 3}
	if !bytes.Equal(got, want) {
		t.Errorf("probe\n% x, want\n% x", got, want)
	}
	p, ok := parseARP(append(announcement(macB, ours).bytes(), make([]byte, 18)...))
	if !ok || p.operation != 1 || p.senderIP != ours || p.targetIP != ours || !bytes.Equal(p.senderMAC, macB) {
		t.Errorf("announcement read as %+v, %v", p, ok)
	}
	for _, b := range [][]byte{nil, want[:27], append([]byte{0, 6}, want[2:]...)} {
		if _, ok := parseARP(b); ok {
			t.Errorf("% x was taken for ARP over Ethernet", b)
		}
	}
}

func TestClaims(t *testing.T) {
	other := netip.MustParseAddr("10.77.0.9")
	const reply = 2
	tests := []struct {
		name string
		p    arp
		want bool
	}{
		{"a reply of its owner", arp{reply, macB, macA, ours, other}, true},
		{"its owner asks for another", arp{arpRequest, macB, noMAC, ours, other}, true},
		{"another one probes for it", arp{arpRequest, macB, noMAC, unknownIP, ours}, true},
		{"our own probe", arp{arpRequest, macA, noMAC, unknownIP, ours}, false},
		{"somebody asks who has it", arp{arpRequest, macB, noMAC, other, ours}, false},
		{"a reply about another", arp{reply, macB, macA, other, ours}, false},
	}
	for _, test := range tests {
		if got := test.p.claims(macA, ours); got != test.want {
			t.Errorf("%s: %v", test.name, got)
		}
	}
}

func TestAbout(t *testing.T) {
	filter, err := bpf.NewVM(about(ours))
	if err != nil {
		t.Fatal(err)
	}
	other := netip.MustParseAddr("10.77.0.9")
	for _, test := range []struct {
		name string
		p    arp
		want bool
	}{
		{"a probe", probe(macB, ours), true},
		{"an announcement", announcement(macB, ours), true},
		{"its owner asks for another", arp{arpRequest, macB, noMAC, ours, other}, true},
		{"somebody asks who has it", arp{arpRequest, macB, noMAC, other, ours}, true},
		{"others among themselves", arp{arpRequest, macB, noMAC, other, netip.MustParseAddr("10.77.0.8")}, false},
	} {
		if n, err := filter.Run(test.p.bytes()); err != nil || n > 0 != test.want {
			t.Errorf("%s: %d bytes pass, %v", test.name, n, err)
		}
	}
}

func TestDefence(t *testing.T) {
	start := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	var d defence
	if d.over(at(0)) {
		t.Error("over before it began")
	}
	got := ""
	for _, s := range []int{1, 2, 10, 11, 15, 25} {
		if d.conflict(at(s)) {
			got += fmt.Sprint(s, " ")
		}
	}
	if got != "1 11 25 " {
		t.Errorf("defended at %s", got)
	}
	got = ""
	for s := 26; s < 200; s++ {
		if d.over(at(s)) {
			got += fmt.Sprint(s, " ")
		}
	}
	if got != "85 " {
		t.Errorf("over at %s", got)
	}
}

// Who is seen in the first minute after the carrier came had the address first,
// unless it is known to have come later.
func TestTenure(t *testing.T) {
	start := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	macC := net.HardwareAddr{0x52, 0x54, 0, 0, 0, 3}
	n := tenure{trial: trialTime}
	if !n.carrier(true, at(0)) || n.carrier(true, at(1)) {
		t.Error("the carrier came once")
	}
	for _, step := range []struct {
		seconds       int
		owner         net.HardwareAddr
		first, defend bool
	}{{59, macB, true, false}, {60, macB, false, true}, {61, macB, false, false}} {
		if first, defend := n.seen(step.owner, at(step.seconds)); first != step.first || defend != step.defend {
			t.Errorf("seen after %d s: had it first %v, defend %v", step.seconds, first, defend)
		}
	}
	n.carrier(false, at(100))
	if first, _ := n.seen(macC, at(101)); !first {
		t.Error("seen before the carrier was noticed: it came later")
	}
	n.carrier(true, at(102))
	if first, defend := n.seen(macB, at(103)); first || !defend {
		t.Error("a host that came later has the address because the switch restarted")
	}
	if first, _ := n.seen(macC, at(161)); !first {
		t.Error("seen in the minute after the carrier came back: it came later")
	}
	if n.onTrial(at(162)) {
		t.Error("the trial lasts more than a minute")
	}
}

// After the kernel may have forgotten it the address is another's to take.
func TestLapse(t *testing.T) {
	start := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	n := tenure{sure: start}
	for after, want := range map[time.Duration]bool{0: false, renewal: false, lifetime: false, lifetime + time.Millisecond: true, time.Hour: true} {
		if got := n.lapsed(start.Add(after)); got != want {
			t.Errorf("after %v: lapsed %v", after, got)
		}
	}
}

func TestConflictText(t *testing.T) {
	for held, want := range map[bool]string{
		false: "address 10.77.0.3 on eth0: 52:54:00:00:00:02 has it already; give that host another address, or choose another serviceAddress in the site file",
		true:  "address 10.77.0.3 on eth0: 52:54:00:00:00:02 uses it too, so that machines reach one or the other; give that host another address, or choose another serviceAddress in the site file",
	} {
		if got := (&Conflict{ours, "eth0", macB, held}).Error(); got != want {
			t.Errorf("got %s", got)
		}
	}
}

func TestOrder(t *testing.T) {
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	bad := map[string]time.Time{"b": now.Add(-time.Second), "c": now.Add(-badTime)}
	for turn, want := range []string{"[a c b]", "[c a b]", "[c a b]", "[a c b]"} {
		if got := fmt.Sprint(order([]string{"a", "b", "c"}, uint64(turn), bad, now)); got != want {
			t.Errorf("turn %d: %s, want %s", turn, got, want)
		}
	}
}

// listen makes a TCP listener on loopback.
func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// answerer answers each connection with name and all that was sent, once the
// client has ended its half.
func answerer(t *testing.T, name string) string {
	t.Helper()
	l := listen(t)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				all, err := io.ReadAll(c)
				if err == nil {
					fmt.Fprintf(c, "%s: %s", name, all)
				}
			}()
		}
	}()
	return l.Addr().String()
}

// startForwarder forwards until the test ends; it returns where.
func startForwarder(t *testing.T, slots int, targets func() []string) (at string, stop func()) {
	t.Helper()
	l := listen(t)
	return startChoosing(t, NewForwarder("", slots, &turns{targets: targets, bad: map[string]time.Time{}}), l)
}

func startChoosing(t *testing.T, f *Forwarder, l net.Listener) (at string, stop func()) {
	t.Helper()
	f.log = slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.serve(ctx, l) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return l.Addr().String(), stop
}

func dial(t *testing.T, to string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// ask sends a question, ends its half, and reads the answer.
func ask(t *testing.T, to, question string) (string, error) {
	t.Helper()
	c := dial(t, to)
	if _, err := io.WriteString(c, question); err != nil {
		return "", err
	}
	if err := c.CloseWrite(); err != nil {
		return "", err
	}
	b, err := io.ReadAll(c)
	return string(b), err
}

func TestForwardPassesHalfCloseOn(t *testing.T) {
	target := answerer(t, "one")
	at, _ := startForwarder(t, 10, func() []string { return []string{target} })
	if got, err := ask(t, at, "hello"); got != "one: hello" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestForwardGoesToTheLiving(t *testing.T) {
	port, err := freeport.Find()
	if err != nil {
		t.Fatal(err)
	}
	dead := fmt.Sprintf("127.0.0.1:%d", port)
	alive := answerer(t, "alive")
	at, _ := startForwarder(t, 10, func() []string { return []string{dead, alive} })
	for range 4 {
		if got, err := ask(t, at, "x"); got != "alive: x" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
	}
}

func TestForwardTakesTurns(t *testing.T) {
	targets := []string{answerer(t, "a"), answerer(t, "b")}
	at, _ := startForwarder(t, 10, func() []string { return targets })
	seen := map[string]int{}
	for range 4 {
		got, err := ask(t, at, "")
		if err != nil {
			t.Fatal(err)
		}
		seen[got]++
	}
	if seen["a: "] != 2 || seen["b: "] != 2 {
		t.Errorf("answers: %v", seen)
	}
}

func TestForwardWithoutTargets(t *testing.T) {
	at, _ := startForwarder(t, 10, func() []string { return nil })
	if b, err := io.ReadAll(dial(t, at)); len(b) != 0 || err != nil && !isReset(err) {
		t.Errorf("got %q, %v; want the connection closed", b, err)
	}
}

// isReset: what a close looks like when something was not read yet.
func isReset(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && !op.Timeout()
}

func TestForwardLimitAndEnd(t *testing.T) {
	target := answerer(t, "one")
	at, stop := startForwarder(t, 1, func() []string { return []string{target} })
	first := dial(t, at)
	if _, err := io.WriteString(first, "x"); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(dial(t, at)); len(b) != 0 || err != nil && !isReset(err) {
		t.Errorf("one too many got %q, %v; want the connection closed", b, err)
	}
	stop() // must end the first one, which would wait for ever
	if _, err := io.ReadAll(first); err != nil && !isReset(err) {
		t.Errorf("after the end: %v", err)
	}
}

// TestForwardCuts: the connections with one target end, others go on.
func TestForwardCuts(t *testing.T) {
	one, two := answerer(t, "one"), answerer(t, "two")
	var first atomic.Pointer[string]
	first.Store(&one)
	f := NewForwarder("", 10, &turns{targets: func() []string { return []string{*first.Load()} }, bad: map[string]time.Time{}})
	at, _ := startChoosing(t, f, listen(t))
	open := func(want map[string]int) {
		t.Helper()
		for !maps.Equal(f.Open(), want) {
			if t.Context().Err() != nil {
				t.Fatalf("open: %v, want %v", f.Open(), want)
			}
			runtime.Gosched()
		}
	}
	a := dial(t, at)
	open(map[string]int{one: 1})
	first.Store(&two)
	b := dial(t, at)
	open(map[string]int{one: 1, two: 1})
	f.Cut(one)
	if rest, err := io.ReadAll(a); len(rest) != 0 || err != nil && !isReset(err) {
		t.Errorf("the cut one got %q, %v", rest, err)
	}
	open(map[string]int{two: 1})
	if err := b.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(b); string(rest) != "two: " || err != nil {
		t.Errorf("the other one got %q, %v", rest, err)
	}
}

func TestForwardCannotListen(t *testing.T) {
	l := listen(t)
	defer l.Close()
	if err := Forward(t.Context(), l.Addr().String(), 1, nil); err == nil {
		t.Error("two listen at one place")
	}
}

func TestHoldRefuses(t *testing.T) {
	for _, test := range []struct{ link, prefix, want string }{
		{"lo", "fd00::1/64", "address fd00::1/64 on lo: it is not IPv4"},
		{"rs-nothing0", "10.77.0.3/24", "address 10.77.0.3/24 on rs-nothing0: Link not found"},
	} {
		err := Hold(t.Context(), test.link, netip.MustParsePrefix(test.prefix), nil, func(error) {})
		if err == nil || err.Error() != test.want {
			t.Errorf("got %v, want %s", err, test.want)
		}
	}
}
