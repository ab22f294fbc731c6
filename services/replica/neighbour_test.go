package replica

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/address"
	"github.com/rackseed/rackseed/services/bounded"
	"github.com/rackseed/rackseed/services/dhcp"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/statetest"
)

func TestDHCPHealth(t *testing.T) {
	gone := errors.New("links[0] of the site file: there is no network interface eth9")
	for name, c := range map[string]struct {
		links    int
		missing  error
		hindered []string
		counts   dhcp.Stats
		ok       bool
		text     string
	}{
		"served":                 {2, nil, nil, dhcp.Stats{}, true, "served on 2 links"},
		"somebody was served":    {2, nil, nil, dhcp.Stats{Received: 3, Sent: 2, Dropped: 1}, true, "served on 2 links; 3 packets, 2 answers, 1 dropped as too many at once"},
		"no link with dhcp":      {0, nil, nil, dhcp.Stats{}, true, "the site file has no link with dhcp: nobody is served"},
		"a link is missing":      {1, gone, nil, dhcp.Stats{}, false, gone.Error()},
		"another server answers": {2, nil, []string{"eth0: the DHCP server 192.0.2.1 answers DHCP too"}, dhcp.Stats{}, false, "eth0: the DHCP server 192.0.2.1 answers DHCP too"},
		"all at once":            {2, gone, []string{"eth0: another", "eth1: another"}, dhcp.Stats{Received: 1}, false, gone.Error() + "; eth0: another; eth1: another; 1 packets, 0 answers"},
	} {
		if ok, text := dhcpHealth(c.links, c.missing, c.hindered, c.counts); ok != c.ok || text != c.text {
			t.Errorf("%s: %v, %q", name, ok, text)
		}
	}
}

// That the same cluster is served elsewhere is read from what answers there.
func TestOtherAuthority(t *testing.T) {
	own := state.Cluster{Generation: 2, Epoch: 7}
	for there, want := range map[string]string{
		"": "", "x": "", "2/7": "", "x/7/r-2": "",
		"2/3/r-2": "old copy", "2/8/r-2": "replica r-2 leads it, in epoch 8 of generation 2", "3/1/r-1": "old copy", "1/90/r-2": "from before this cluster was recovered",
	} {
		if got := otherAuthority(own, "r-1", there); (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%q: %q", there, got)
		}
	}
}

// A host with the service address is told of once, and after a while again.
func TestTellConflict(t *testing.T) {
	s := statetest.Open(t)
	s.Begin(nil, statetest.Site())
	now := time.Now()
	r := &replica{Config: Config{Now: func() time.Time { return now }, Logger: slog.New(slog.DiscardHandler)}}
	r.store.Store(s.Store)
	told := &bounded.Repeat{Pause: conflictPause, Most: 16}
	one := &address.Conflict{Address: netip.MustParseAddr("192.0.2.1"), Interface: "eth0", Owner: net.HardwareAddr{2, 0, 0, 0, 0, 1}}
	other := *one
	other.Owner, other.Held = net.HardwareAddr{2, 0, 0, 0, 0, 2}, true
	for _, c := range []*address.Conflict{one, one, &other, one} {
		r.tellConflict(t.Context(), c, c, told)
	}
	now = now.Add(conflictPause)
	r.tellConflict(t.Context(), one, one, told)
	var owners []string
	for _, e := range s.View().Events(0, "", 0) {
		if e.Kind == "address.conflict" {
			owners = append(owners, e.Data["hardware"])
			if e.Severity != machine.Error || e.Data["link"] != "eth0" || e.Data["address"] != "192.0.2.1" {
				t.Errorf("event %+v", e)
			}
		}
	}
	if len(owners) != 3 || owners[0] != "02:00:00:00:00:01" || owners[1] != "02:00:00:00:00:02" || owners[2] != "02:00:00:00:00:01" {
		t.Errorf("told of %v", owners)
	}
}
