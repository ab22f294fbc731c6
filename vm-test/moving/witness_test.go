//go:build full

package moving

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"github.com/rackseed/rackseed/console/client"
	"github.com/rackseed/rackseed/services/api"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/wire"
	"github.com/rackseed/rackseed/vm-test/simulate"
)

// witness uses the boot service in all ways at once, and keeps what it was answered,
// to be compared with what is in the log.
type witness struct {
	*room
	client *asker // renews one lease all the time
	stop   func() // ends everything

	mu     sync.Mutex // of what follows
	calls  []call
	frames []frame
	events []machine.Event
	said   map[string][]string // lines of an install, by its boots

	mayBeLate bool // the fault makes answers late

	installed chan struct{} // closed once the node that was installed meanwhile is Ready
}

// Those whom the witness plays beside perfdhcp's clients.
const (
	renewing  = 6 // hardware
	refused   = "02:00:00:00:aa:01"
	strange   = "02:00:00:00:aa:02"
	someUUID  = "7a6b2b0e-3f51-4d6c-9f1e-0000000000aa"
	addresses = 5 // that perfdhcp asks for, each second

	renewEvery = 50 * time.Millisecond
)

// witness begins. Everything ends with the test.
func (r *room) witness() *witness {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.t.Context())
	var all sync.WaitGroup
	w := &witness{room: r, said: map[string][]string{}, installed: make(chan struct{})}
	w.stop = func() { cancel(); all.Wait() }
	r.t.Cleanup(w.stop)
	w.sniff(ctx, &all)
	w.client = r.ask(ctx, hardware(renewing).BootMAC, renewEvery)
	for _, h := range append([]*host{r.stick}, r.nodes...) {
		all.Go(func() { h.keep(ctx) })
	}
	all.Go(func() { r.carry(ctx) })
	all.Go(func() { w.watch(ctx) })
	all.Go(func() { w.boot(ctx) })
	all.Go(func() { w.overreach(ctx) })
	var number atomic.Int64
	for id := range 5 {
		all.Go(func() { w.call(ctx, id, &number, id < 3) })
	}
	perfdhcp := exec.CommandContext(ctx, "perfdhcp", "-4", "-B", "-l", "veth0", "-r", fmt.Sprint(addresses), "-R", "1000000", "-p", "3600")
	log, err := os.Create(filepath.Join(r.dir, "perfdhcp"))
	if err != nil {
		r.t.Fatal(err)
	}
	perfdhcp.Stdout, perfdhcp.Stderr = log, log
	if err := perfdhcp.Start(); err != nil {
		r.t.Fatal(err)
	}
	all.Go(func() {
		err := perfdhcp.Wait()
		if log.Close(); ctx.Err() == nil {
			text, _ := os.ReadFile(log.Name())
			r.t.Errorf("perfdhcp ended: %v\n%s", err, text)
		}
	})
	all.Go(func() { w.install(ctx) })
	r.until("a machine installs", time.Minute, func() error {
		var m api.Machine
		err := r.client.Call(ctx, http.MethodGet, "/api/machines/node-4", nil, nil, &m)
		if err == nil && m.Phase != machine.PhaseInstalling {
			err = fmt.Errorf("it is %s", m.Phase)
		}
		return err
	})
	return w
}

// pause waits; false: ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// judge ends everything and compares.
func (w *witness) judge() {
	w.until("the install that went on is over", 10*time.Minute, func() error {
		select {
		case <-w.installed:
			return nil
		default:
			return errors.New("it goes on")
		}
	})
	w.until("the watcher of events has the newest", 2*time.Minute, func() error {
		all := w.room.events()
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.events) < len(all) {
			return fmt.Errorf("it has %d of %d", len(w.events), len(all))
		}
		return nil
	})
	w.stop()
	all := w.room.events()
	w.judgeEvents(all)
	w.judgeCalls(all)
	w.judgeLeases(all)
	w.judgeLines()
}

// watch watches the events, from the last one on whenever the stream is cut.
func (w *witness) watch(ctx context.Context) {
	cuts := 0
	for ctx.Err() == nil {
		w.mu.Lock()
		last := len(w.events)
		w.mu.Unlock()
		err := w.people().Stream(ctx, "/api/stream", url.Values{"after": {fmt.Sprint(last)}}, func(text []byte) error {
			var m struct {
				Type  string        `json:"type"`
				Event machine.Event `json:"event"`
			}
			if err := json.Unmarshal(text, &m); err != nil {
				return err
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			switch {
			case m.Type == "gap":
				w.t.Errorf("the stream of events has a gap after %d", len(w.events))
			case m.Type == "event" && m.Event.Seq != uint64(len(w.events))+1:
				w.t.Errorf("the stream of events has %d after %d", m.Event.Seq, len(w.events))
			case m.Type == "event":
				w.events = append(w.events, m.Event)
			}
			return nil
		})
		if lost := (*client.LostError)(nil); !errors.As(err, &lost) && ctx.Err() == nil {
			w.t.Logf("the stream of events ended: %v", err)
		}
		cuts++
		pause(ctx, 200*time.Millisecond)
	}
	w.t.Logf("the stream of events was opened %d times", cuts)
}

// people is a client with connections of its own.
func (w *witness) people() *client.Client {
	c, err := client.New("https://"+service, w.fingerprint, token)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// judgeEvents compares what was streamed with the log.
func (w *witness) judgeEvents(all []machine.Event) {
	for i, e := range w.events {
		if i >= len(all) || all[i].Seq != e.Seq || all[i].Text != e.Text || !all[i].Time.Equal(e.Time) {
			w.t.Fatalf("the stream had event %+v, which is not in the log", e)
		}
	}
}

// call is one write, or one read, of the time until which the discovery window is
// open: a register that people share.
type call struct {
	who          int
	write        int // its number: for how many times windowStep; 0: a read
	begun, ended time.Time
	acknowledged bool
	read         time.Time // what a read had
}

// windowStep is by how much a write opens the window longer than the one before:
// its number is known by that.
const windowStep = 100 * time.Second

// call writes, or reads, again and again.
func (w *witness) call(ctx context.Context, who int, number *atomic.Int64, writes bool) {
	people := w.people()
	for pause(ctx, 400*time.Millisecond) {
		c := call{who: who, begun: time.Now()}
		method, path, body := http.MethodGet, "/api/discovery", any(nil)
		if writes {
			c.write = int(number.Add(1))
			method, path, body = http.MethodPost, "/api/discovery/open", map[string]string{"for": (time.Duration(c.write) * windowStep).String()}
		}
		var now api.Discovery
		one, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := people.Call(one, method, path, nil, body, &now)
		cancel()
		c.ended, c.acknowledged, c.read = time.Now(), err == nil, now.Until
		w.mu.Lock()
		w.calls = append(w.calls, c)
		w.mu.Unlock()
	}
}

// register is what porcupine takes for right: a read has what was written last.
var register = porcupine.Model{
	Init: func() any { return 0 },
	Step: func(state, input, output any) (bool, any) {
		if n := input.(int); n > 0 {
			return true, n
		}
		return output == state, state
	},
}

// judgeCalls says whether writes and reads are linearizable, and what was
// acknowledged is in the log once.
func (w *witness) judgeCalls(all []machine.Event) {
	times, numbers := map[int]int{}, map[int64]int{0: 0}
	for _, e := range all {
		until, err := time.Parse(time.RFC3339, e.Data["until"])
		if e.Kind != "discovery.window" || err != nil {
			continue
		}
		n := int(math.Ceil(float64(until.Sub(e.Time)) / float64(windowStep)))
		times[n]++
		numbers[until.Unix()] = n
	}
	var history []porcupine.Operation
	counts := map[string]int{}
	for _, c := range w.calls {
		op := porcupine.Operation{ClientId: c.who, Input: c.write, Call: c.begun.UnixNano(), Return: c.ended.UnixNano()}
		switch {
		case c.write > 0 && times[c.write] > 1, c.write > 0 && c.acknowledged && times[c.write] == 0:
			w.t.Errorf("write %d (acknowledged: %v) is %d times in the log", c.write, c.acknowledged, times[c.write])
		case c.write > 0 && c.acknowledged:
			counts["writes"]++
		case c.write > 0 && times[c.write] == 1: // it may have happened at any time
			counts["writes without an answer that happened"]++
			op.ClientId, op.Return = 1000+c.write, math.MaxInt64
		case !c.acknowledged:
			counts["without an answer"]++
			continue
		default:
			counts["reads"]++
			var until int64
			if !c.read.IsZero() {
				until = c.read.Unix()
			}
			n, known := numbers[until]
			if !known {
				w.t.Errorf("a window until %s was read, which is not in the log", c.read)
			}
			op.Output = n
		}
		history = append(history, op)
	}
	if counts["writes"] < 50 || counts["reads"] < 50 {
		w.t.Errorf("too few writes and reads: %v", counts)
	}
	result := porcupine.CheckOperationsTimeout(register, history, 2*time.Minute)
	w.t.Logf("writes and reads are linearizable: %s, of %v", result, counts)
	if result != porcupine.Ok {
		w.t.Errorf("writes and reads: %s", result)
	}
}

// frame is a DHCP message as it was on the wire.
type frame struct {
	at time.Time
	*dhcpv4.DHCPv4
}

// sniff keeps every DHCP message that comes and goes here.
func (w *witness) sniff(ctx context.Context, all *sync.WaitGroup) {
	link, err := net.InterfaceByName("veth0")
	if err != nil {
		w.t.Fatal(err)
	}
	conn, err := packet.Listen(link, packet.Raw, unix.ETH_P_ALL, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	context.AfterFunc(ctx, func() { conn.Close() }) //nolint // which ends the loop
	all.Go(func() {
		b := make([]byte, 4096)
		for {
			n, _, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			if m := dhcpIn(b[:n]); m != nil {
				w.mu.Lock()
				w.frames = append(w.frames, frame{time.Now(), m})
				w.mu.Unlock()
			}
		}
	})
}

// dhcpIn is the DHCP message in an Ethernet frame, or nil.
func dhcpIn(b []byte) *dhcpv4.DHCPv4 {
	const ethernet, udp = 14, 8
	if len(b) < ethernet+20 || b[12] != 8 || b[13] != 0 || b[ethernet+9] != unix.IPPROTO_UDP {
		return nil
	}
	b = b[ethernet+int(b[ethernet]&15)*4:]
	if len(b) < udp || b[2] != 0 || b[3] != 67 && b[3] != 68 {
		return nil
	}
	m, err := dhcpv4.FromBytes(b[udp:])
	if err != nil {
		return nil
	}
	return m
}

// overreach asks again and again for an address that is not of this network, and so
// is refused.
func (w *witness) overreach(ctx context.Context) {
	mac, err := net.ParseMAC(refused)
	if err != nil {
		w.t.Error(err)
	}
	for pause(ctx, time.Second) {
		w.client.send(dhcpv4.WithHwAddr(mac), dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.IPv4(10, 99, 0, 1)))) //nolint // a link that is down is one of the faults
	}
}

// lateAfter is when an answer comes late: clients have asked again by then.
const lateAfter = 2 * time.Second

// judgeLeases compares what each client was acknowledged last, and how often one was
// refused, with the log: no address is two clients' at once, and no answer is late.
func (w *witness) judgeLeases(all []machine.Event) {
	var list api.List[machine.Lease]
	if err := w.room.client.Call(w.t.Context(), http.MethodGet, "/api/leases", nil, nil, &list); err != nil {
		w.t.Fatal(err)
	}
	leases := map[string]machine.Lease{}
	for _, l := range list.Items {
		leases[string(l.MAC)] = l
	}
	naks := map[string]int{}
	for _, e := range all {
		if e.Kind == "dhcp.nak" {
			naks[e.Data["mac"]]++
		}
	}
	type exchange struct {
		id  dhcpv4.TransactionID
		mac string
	}
	asked, late, latest := map[exchange]time.Time{}, 0, time.Duration(0)
	newest, refusals := map[string]frame{}, map[string]int{}
	holder, until := map[string]string{}, map[string]time.Time{}
	for _, f := range w.frames {
		mac, x := f.ClientHWAddr.String(), exchange{f.TransactionID, f.ClientHWAddr.String()}
		if f.OpCode == dhcpv4.OpcodeBootRequest {
			asked[x] = f.at
			continue
		}
		if begun, ok := asked[x]; ok && f.at.Sub(begun) > lateAfter {
			late, latest = late+1, max(latest, f.at.Sub(begun))
		}
		switch f.MessageType() {
		case dhcpv4.MessageTypeNak:
			refusals[mac]++
		case dhcpv4.MessageTypeAck:
			address := f.YourIPAddr.String()
			if other := holder[address]; other != "" && other != mac && f.at.Before(until[address]) {
				w.t.Errorf("%s is acknowledged to %s at %s, and is that of %s until %s", address, mac, f.at, other, until[address])
			}
			holder[address], until[address], newest[mac] = mac, f.at.Add(f.IPAddressLeaseTime(0)), f
		}
	}
	for mac, f := range newest {
		l, ok := leases[mac]
		address, _ := netip.AddrFromSlice(f.YourIPAddr.To4())
		// Committed before it was sent, so that it ends a little sooner.
		if !ok || l.Address != address || l.Expires.Before(f.at.Add(f.IPAddressLeaseTime(0)-lateAfter-latest)) {
			w.t.Errorf("%s was acknowledged to %s at %s for %s; in the log: %+v", address, mac, f.at, f.IPAddressLeaseTime(0), l)
		}
	}
	for mac, n := range refusals {
		if n > naks[mac] {
			w.t.Errorf("%s was refused an address %d times, and %d times in the log", mac, n, naks[mac])
		}
	}
	w.t.Logf("%d clients have leases; %d refusals; %d answers came after more than %v, the latest after %v",
		len(newest), refusals[refused], late, lateAfter, latest.Round(100*time.Millisecond))
	if late > 0 && !w.mayBeLate {
		w.t.Errorf("%d answers came after more than %v, the latest after %v", late, lateAfter, latest)
	}
	if len(newest) < 100 || refusals[refused] < 20 {
		w.t.Error("too few leases or refusals")
	}
}

// boot asks again and again what a machine boots that nobody listed. What it is told
// must be in the log: the machine was seen by then, after it asked.
func (w *witness) boot(ctx context.Context) {
	web := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	people, told := w.people(), 0
	for pause(ctx, 700*time.Millisecond) {
		begun := time.Now()
		answer, err := web.Get("http://" + service + "/boot/script?arch=x86_64&platform=efi&mac=" + strange + "&uuid=" + someUUID)
		if err != nil {
			continue
		}
		script, err := io.ReadAll(answer.Body)
		answer.Body.Close() //nolint // it was read
		if err != nil || answer.StatusCode != http.StatusOK || strings.Contains(string(script), "could not decide") {
			continue
		}
		var m api.Machine
		one, cancel := context.WithTimeout(ctx, 5*time.Second)
		err = people.Call(one, http.MethodGet, "/api/machines/"+strange, nil, nil, &m)
		cancel()
		if err == nil && m.LastSeen.Before(begun) {
			w.t.Errorf("%s was told at %s what it boots, and was seen last at %s:\n%s", strange, begun, m.LastSeen, script)
		}
		if err == nil {
			told++
		}
	}
	w.t.Logf("%d boot decisions were compared with the log", told)
	if told < 20 {
		w.t.Error("too few")
	}
}

// installPace has an install take some minutes.
const installPace = 15 * time.Second

// install installs node-4, whose lines are kept as it says them.
func (w *witness) install(ctx context.Context) {
	defer close(w.installed)
	box := &simulate.Machine{URL: "http://" + service, Inventory: hardware(4), Pace: installPace, Log: slog.New(slog.DiscardHandler), Observer: observer{w}}
	if err := box.Run(ctx); err != nil && ctx.Err() == nil {
		w.t.Errorf("the install that went on: %v", err)
	}
}

// observer hears what an install says.
type observer struct{ w *witness }

func (o observer) Said(boot, line string) {
	o.w.mu.Lock()
	defer o.w.mu.Unlock()
	o.w.said[boot] = append(o.w.said[boot], line)
}

func (observer) Finds(d machine.Disk) string { return d.Contents }

func (observer) Writes(string, machine.Disk, wire.Order) {}

// judgeLines compares what an install said with what is kept of it.
func (w *witness) judgeLines() {
	kept := map[string][]string{}
	var after uint64
	for {
		var page api.List[api.Lines]
		query := url.Values{"limit": {"200"}, "after": {fmt.Sprint(after)}}
		if err := w.room.client.Call(w.t.Context(), http.MethodGet, "/api/machines/node-4/output", query, nil, &page); err != nil {
			w.t.Fatal(err)
		}
		if len(page.Items) == 0 {
			break
		}
		for _, l := range page.Items {
			if have := len(kept[l.Stream]); l.First != uint64(have)+1 {
				w.t.Errorf("output %s: line %d follows %d", l.Stream, l.First, have)
			}
			kept[l.Stream] = append(kept[l.Stream], l.Lines...)
			after = max(after, l.Seq)
		}
	}
	lines := 0
	for boot, said := range w.said {
		lines += len(said)
		if !slices.ContainsFunc(slices.Collect(maps.Values(kept)), func(k []string) bool { return slices.Equal(k, said) }) {
			w.t.Errorf("%d lines of %.20s… are not kept as they were said: %q; kept: %q", len(said), boot, said, kept)
		}
	}
	w.t.Logf("%d lines of %d boots were kept", lines, len(w.said))
}
