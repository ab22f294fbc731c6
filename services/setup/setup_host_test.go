//go:build host

package setup

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/netns"
)

func TestMain(m *testing.M) { netns.Main(m) }

// dnsmasq runs on a peer until the test ends. It returns where it keeps leases.
func dnsmasq(t *testing.T, p *netns.Peer, args ...string) (leases string) {
	t.Helper()
	dir := t.TempDir()
	leases = filepath.Join(dir, "leases")
	server := p.Command("dnsmasq", append([]string{
		"--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--interface=eth0", "--log-facility=-",
		"--pid-file=" + filepath.Join(dir, "pid"), "--dhcp-leasefile=" + leases,
	}, args...)...)
	server.Stdout, server.Stderr = t.Output(), t.Output()
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Process.Kill(); err != nil {
			t.Error(err)
		}
		server.Wait() // tells of the kill
	})
	p.UntilListening(67)
	return leases
}

// Other programs' DHCP servers are found and named, for addresses and for
// netboot alone, all links at once; where there is none, nobody is.
func TestLook(t *testing.T) {
	server := netns.Join(t, "veth0", "", "10.0.0.1/24")
	proxy := netns.Join(t, "veth1", "", "10.1.0.5/24")
	netns.Join(t, "veth2", "", "")
	leases := dnsmasq(t, server, "--dhcp-range=10.0.0.20,10.0.0.30,1h", "--dhcp-option=option:router,10.0.0.254", "--dhcp-option=option:dns-server,10.0.0.253")
	dnsmasq(t, proxy, "--dhcp-range=10.1.0.0,proxy", "--pxe-service=x86-64_EFI,boot,boot")
	links := []Link{{Name: "veth0", Carrier: true}, {Name: "veth1", Carrier: true}, {Name: "veth2", Carrier: true}, {Name: "veth2"}, {Name: "veth9", Carrier: true}}
	begun := time.Now()
	found := Look(t.Context(), links)
	t.Logf("looked for %v", time.Since(begun))

	got := found[0].Offers
	if len(got) != 1 || got[0].Server != ip("10.0.0.1") || got[0].Router != ip("10.0.0.254") || got[0].Network != netip.MustParsePrefix("10.0.0.0/24") ||
		got[0].Address.Less(ip("10.0.0.20")) || ip("10.0.0.30").Less(got[0].Address) || len(got[0].DNS) != 1 || len(got[0].MAC) != 17 {
		t.Errorf("beside a DHCP server: %+v, %s", got, found[0].Fault)
	}
	if got := found[1].Offers; len(got) != 1 || got[0].Server != ip("10.1.0.5") || got[0].Address.IsValid() {
		t.Errorf("beside a ProxyDHCP server: %+v, %s", got, found[1].Fault)
	}
	for i, want := range map[int]string{2: "nobody", 3: "no carrier", 4: "veth9"} {
		if got := found[i].Answers()[0]; !strings.Contains(got, want) {
			t.Errorf("link %d: %s, want %s", i, got, want)
		}
	}
	for _, f := range found {
		t.Logf("%s: %s", f.Name, strings.Join(f.Answers(), "; "))
	}
	if b, err := os.ReadFile(leases); err != nil || len(b) != 0 {
		t.Errorf("leases were taken: %q, %v", b, err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if offers, err := Probe(ctx, "veth0"); err != nil || len(offers) != 0 {
		t.Errorf("by somebody who does not wait: %v, %v", offers, err)
	}
}

// A proposal avoids what somebody has.
func TestProposeOnAWire(t *testing.T) {
	peer := netns.Join(t, "veth3", "", "10.77.0.2/24")
	for _, a := range []string{"10.77.0.5/24", "10.77.0.150/24"} {
		peer.Run("ip", "addr", "add", a, "dev", "eth0")
	}
	s := &Service{Files: FilesOf("", t.TempDir()), List: func() ([]Link, error) {
		return []Link{{Name: "veth3", Carrier: true}}, nil
	}}
	got, err := s.Propose(t.Context(), Draft{Interface: "veth3"})
	if err != nil || got.Address != "10.77.0.4/24" || got.Service != "10.77.0.6" || got.From != "10.77.0.100" || got.To != "10.77.0.149" || !got.DHCP {
		t.Errorf("proposed %+v, %v", got, err)
	}
	if _, err := s.Files.Keep(got.YAML()); err != nil {
		t.Errorf("what is proposed is no site file: %v\n%s", err, got.YAML())
	}
	owners, err := Owners(t.Context(), "veth3", ip("10.77.0.2"), ip("10.77.0.3"))
	if err != nil || len(owners) != 1 || len(owners[ip("10.77.0.2")]) != 17 {
		t.Errorf("owners %v, %v", owners, err)
	}
	if _, err := s.Propose(t.Context(), Draft{Interface: "veth4"}); err == nil || !strings.Contains(err.Error(), "veth4") {
		t.Errorf("another link: %v", err)
	}
}
