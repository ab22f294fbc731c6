//go:build host

package replica

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/netns"
)

func TestMain(m *testing.M) { netns.Main(m) }

const hostSite = `version: 1
name: lab
serviceAddress: 10.77.0.3
links:
  - interface: veth0
    address: 10.77.0.2/24
    dhcp:
      from: 10.77.0.100
      to: 10.77.0.200
`

// A host with the service address keeps it; the screen and an event say who,
// and nobody is served meanwhile. It is taken when it is free, and DHCP is
// served once nobody else was heard to.
func TestServiceAddressIsTaken(t *testing.T) {
	peer := netns.Join(t, "veth0", "10.77.0.2/24", "10.77.0.3/24")
	_, owner, _ := strings.Cut(peer.Run("ip", "-o", "link", "show", "eth0"), "link/ether ")
	owner = strings.Fields(owner)[0]
	r, _ := serveSiteFile(t)
	s := r.until("the conflict is shown", func(s Status) bool {
		return strings.Contains(health(s, "address").Text, owner) && strings.Contains(health(s, "dhcp").Text, "waiting for the service address")
	})
	if a, d := health(s, "address"), health(s, "dhcp"); a.OK || !strings.Contains(a.Text, "choose another serviceAddress") || d.OK || !strings.Contains(d.Text, "waiting for the service address 10.77.0.3") {
		t.Errorf("address %+v, DHCP %+v", a, d)
	}
	portIsFree(t)
	peer.Run("ip", "addr", "del", "10.77.0.3/24", "dev", "eth0")
	r.until("DHCP is served", func(s Status) bool { return health(s, "address").OK && health(s, "dhcp").OK })
	// What is noise on the link is counted there.
	peer.Run("ip", "addr", "add", "10.77.0.9/24", "dev", "eth0")
	peer.Run("bash", "-c", "echo noise > /dev/udp/10.77.0.3/67")
	r.until("the packet is counted", func(s Status) bool {
		return health(s, "dhcp").Text == "served on 1 links; 1 packets, 0 answers, 1 malformed"
	})
	// A host that shows in the first minute had it first: nothing is served any
	// more, until it is free again.
	peer.Run("ip", "addr", "add", "10.77.0.3/24", "dev", "eth0")
	r.until("nothing is served", func(s Status) bool {
		return strings.Contains(health(s, "address").Text, owner+" has it already") && strings.Contains(health(s, "dhcp").Text, "waiting for the service address")
	})
	portIsFree(t)
	peer.Run("ip", "addr", "del", "10.77.0.3/24", "dev", "eth0")
	r.until("DHCP is served again", func(s Status) bool { return health(s, "address").OK && health(s, "dhcp").OK })
}

// portIsFree fails the test if DHCP's port is open.
func portIsFree(t *testing.T) {
	t.Helper()
	if l, err := net.ListenPacket("udp4", "0.0.0.0:67"); err != nil {
		t.Errorf("port 67 is open: %v", err)
	} else if err := l.Close(); err != nil {
		t.Error(err)
	}
}

// serveSiteFile runs a replica with hostSite until the test ends.
func serveSiteFile(t *testing.T) (r *running, site string) {
	t.Helper()
	dir := t.TempDir()
	site = filepath.Join(dir, "site.yaml")
	if err := os.WriteFile(site, []byte(hostSite), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	r = &running{t: t, ctx: ctx, local: filepath.Join(dir, "local.sock")}
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, Config{Data: filepath.Join(dir, "data"), Site: site, Local: r.local, Out: io.Discard, Logger: slog.New(slog.DiscardHandler)})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	untilSocket(t, ctx, r.local)
	return r, site
}

// A changed site file does not make another DHCP server forgotten.
func TestForeignServerOutlivesTheSiteFile(t *testing.T) {
	peer := netns.Join(t, "veth0", "10.77.0.2/24", "10.77.0.9/24")
	other := peer.Command("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--interface=eth0", "--bind-interfaces",
		"--dhcp-range=10.77.0.210,10.77.0.220,1h", "--no-ping", "--dhcp-leasefile="+filepath.Join(t.TempDir(), "leases"), "--pid-file=")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	peer.UntilListening(67)
	r, site := serveSiteFile(t)
	found := func(s Status) bool { return strings.Contains(health(s, "dhcp").Text, "the DHCP server 10.77.0.9") }
	r.until("the other server is found", found)
	if err := other.Process.Kill(); err != nil { // from now on it can only be remembered
		t.Fatal(err)
	}
	other.Wait() // tells of the kill
	if err := os.WriteFile(site, []byte(strings.Replace(hostSite, "name: lab", "name: moved", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	listens := func(s Status) bool {
		return strings.Contains(health(s, "dhcp").Text, "listening for other DHCP servers")
	}
	r.until("the links are listened to again", func(s Status) bool { return s.Site == "moved" && listens(s) })
	if s := r.until("the links were listened to", func(s Status) bool { return !listens(s) }); !found(s) {
		t.Errorf("DHCP: %+v", health(s, "dhcp"))
	}
}

// untilSocket waits until somebody listens.
func untilSocket(t *testing.T, ctx context.Context, path string) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if c, err := net.Dial("unix", path); err == nil {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("nobody listens on the local socket")
		}
	}
}
