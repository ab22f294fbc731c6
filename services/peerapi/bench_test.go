package peerapi

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/statetest"
)

// atOnce does something n times, some at a time.
func atOnce(n, callers int, do func(n int)) {
	work := make(chan int)
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for i := range work {
				do(i)
			}
		})
	}
	for i := range n {
		work <- i
	}
	close(work)
	all.Wait()
}

// BenchmarkCommits commits leases with fsync on every voter, over TLS on loopback:
// all voters write to the same disk here.
func BenchmarkCommits(b *testing.B) {
	for _, voters := range []int{1, 3, 5} {
		leader, authority := first(b)
		for range voters - 1 {
			n := leader.grow(authority, leader.endpoint)
			if err := leader.store.Change(b.Context(), state.Promote, n.id); err != nil {
				b.Fatal(err)
			}
		}
		for _, callers := range []int{1, 64} {
			b.Run(fmt.Sprintf("voters=%d/callers=%d", voters, callers), func(b *testing.B) {
				atOnce(b.N, callers, func(n int) {
					now := time.Now()
					leader.must(state.LeaseBind{Lease: machine.Lease{Address: netip.AddrFrom4([4]byte{10, 77, byte(n >> 8 & 127), byte(n)}), MAC: statetest.MAC(n & 0x7fff), Bound: now, Expires: now.Add(time.Hour)}})
				})
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
			})
		}
	}
}

// BenchmarkCatchUp is how long an empty replica takes to have the state of a large
// site: 10,000 machines that wait to be installed, and 100,000 events.
func BenchmarkCatchUp(b *testing.B) {
	const machines, events = 10_000, 100_000
	leader, authority := first(b)
	site := statetest.Site()
	site.ServiceAddress = netip.MustParseAddr("10.77.0.1")
	site.Links[0].Address = netip.MustParsePrefix("10.77.0.2/16")
	site.Links[0].DHCP = &machine.SiteDHCP{From: netip.MustParseAddr("10.77.128.0"), To: netip.MustParseAddr("10.77.250.0")}
	digest := "sha256:" + strings.Repeat("ab", 32)
	leader.must(state.SiteApply{Site: site})
	leader.must(state.ImagePublish{Images: []machine.Image{{Ref: "node", Digest: digest}}})
	leader.must(state.DiscoveryWindow{Until: time.Now().Add(24 * time.Hour)})
	word := func(what string, n int) []byte { return []byte(fmt.Sprintf("%-26s%06d", what, n)) } // of 32 bytes
	atOnce(machines, 64, func(n int) {
		id, session := statetest.ID(n), fmt.Sprintf("s-%d", n)
		leader.must(state.SessionOpen{
			NewID:     id,
			Session:   machine.Session{ID: session, SignKey: word("sign", n), SealKey: word("seal", n), Opened: time.Now().UTC()},
			Inventory: statetest.Inventory(n),
		})
		leader.must(state.MachineApprove{
			Machine: id, Session: session, Intent: fmt.Sprintf("i-%d", n), Name: fmt.Sprintf("node-%d", n),
			Profile: machine.Profile{Name: "worker", Role: machine.RoleWorker}, Address: netip.AddrFrom4([4]byte{10, 77, byte(1 + n>>8), byte(n)}),
			Image: digest, NodeKey: word("key", n),
		})
	})
	for last := uint64(0); last < events; last = leader.store.View().LastEvent() {
		atOnce(int(events-last), 64, func(n int) {
			leader.must(state.Note{What: "note", Severity: machine.Info, Text: fmt.Sprintf("something that is told of in some words, and has happened for the %d. time", n)})
		})
	}
	b.ResetTimer()
	for range b.N {
		n := leader.grow(authority, leader.endpoint)
		b.StopTimer()
		if got := len(n.store.View().Machines()); got != machines {
			b.Fatalf("it has %d machines", got)
		}
		if err := leader.store.Change(b.Context(), state.Remove, n.id); err != nil {
			b.Fatal(err)
		}
		n.stop()
		leader.must(state.ReplicaLeave{ID: n.id})
		b.StartTimer()
	}
	b.ReportMetric(b.Elapsed().Seconds()/float64(b.N), "s/replica")
}
