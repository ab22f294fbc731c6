//go:build host

package dhcp

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/internal/netns"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
)

func TestMain(m *testing.M) { netns.Main(m) }

// hostLink is the link of the host tests: the service address is the second
// address of veth0, as it is on an appliance.
func hostLink() Link {
	l := testLink()
	l.Interface, l.To = "veth0", ip("10.77.0.199")
	return l
}

// serve runs the server over a real state until the test ends.
func serve(t testing.TB, dir string) *state.Store {
	t.Helper()
	store, err := state.Open(state.Config{Dir: dir, ID: "a"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	if err := store.WaitLeader(ctx); err != nil {
		t.Fatal(err)
	}
	server := &Server{
		Links: []Link{hostLink()}, View: func() State { return store.View() },
		Propose: func(ctx context.Context, by string, c state.Command) error {
			_, err := store.Propose(ctx, by, c)
			return err
		},
	}
	opened := make(chan struct{})
	server.openSocket = func(ctx context.Context, l Link) (conn, error) {
		c, err := openSocket(ctx, l)
		if err == nil {
			close(opened) // a second time would be a failed socket
		}
		return c, err
	}
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	select {
	case <-opened:
	case <-time.After(10 * time.Second):
		t.Fatal("the server's socket was not opened")
	}
	return store
}

// script is what clients call with what they got: it keeps it and sets the
// address. dhclient gives it a PATH of its own.
func script(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "script")
	text := fmt.Sprintf(`#!/bin/sh
PATH='%[2]s'
env >> %[1]s/env
[ -n "$reason" ] && set "$reason"
case "$1" in
deconfig|PREINIT) ip link set eth0 up; ip addr flush dev eth0 ;;
bound|renew) ip addr replace "$ip/$mask" dev eth0 ;;
BOUND|RENEW) ip addr replace "$new_ip_address/24" dev eth0 ;;
esac
`, dir, os.Getenv("PATH"))
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// got is what the script was told.
func got(t *testing.T, dir string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "env"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func peerMAC(t *testing.T, p *netns.Peer) machine.MAC {
	t.Helper()
	_, rest, _ := strings.Cut(p.Run("ip", "-o", "link", "show", "eth0"), "link/ether ")
	m, err := machine.ParseMAC(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// until waits for a condition, at most 20 seconds.
func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s did not happen", what)
		}
	}
}

func join(t *testing.T) *netns.Peer {
	t.Helper()
	p := netns.Join(t, "veth0", "10.77.0.2/24", "")
	netns.Run(t, "ip", "addr", "add", "10.77.0.3/24", "dev", "veth0")
	return p
}

func TestUdhcpc(t *testing.T) {
	dir := t.TempDir()
	peer, script := join(t), script(t, dir)
	store := serve(t, dir)
	mac := peerMAC(t, peer)

	// As firmware asks.
	peer.Run("busybox", "udhcpc", "-i", "eth0", "-f", "-n", "-q", "-s", script,
		"-V", "PXEClient:Arch:00007:UNDI:003016", "-x", "0x5d:0007", "-O", "bootfile", "-O", "tftp", "-O", "broadcast")
	told := got(t, dir)
	for _, want := range []string{"boot_file=snponly.efi", "siaddr=10.77.0.3", "serverid=10.77.0.3", "router=10.77.0.1", "dns=10.77.0.1", "lease=3600", "mask=24"} {
		if !strings.Contains(told, want+"\n") {
			t.Errorf("the client was not told %s:\n%s", want, told)
		}
	}
	lease, ok := store.View().LeaseByMAC(mac)
	if !ok || !strings.Contains(told, "ip="+lease.Address.String()+"\n") {
		t.Errorf("lease %+v, client was told\n%s", lease, told)
	}
	m, ok := store.View().MachineByMAC(mac)
	if !ok || lease.Machine != m.ID {
		t.Errorf("the machine is %+v, its lease %+v", m, lease)
	}
	var kinds []string
	for _, e := range store.View().Events(0, m.ID, 100) {
		kinds = append(kinds, e.Kind)
	}
	if s := strings.Join(kinds, " "); s != "dhcp.discover dhcp.ack" {
		t.Errorf("events %q", s)
	}

	// Renewing goes by unicast, from an address to an address.
	running := peer.Command("busybox", "udhcpc", "-i", "eth0", "-f", "-R", "-s", script)
	if err := running.Start(); err != nil {
		t.Fatal(err)
	}
	bound := func() time.Time { l, _ := store.View().LeaseByMAC(mac); return l.Bound }
	until(t, "binding again", func() bool { return bound().After(lease.Bound) })
	until(t, "setting the address", func() bool {
		return strings.Contains(peer.Run("ip", "addr", "show", "eth0"), lease.Address.String())
	})
	before := bound()
	// Once: udhcpc takes a second signal for impatience and gives its lease up.
	if err := running.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	until(t, "renewing", func() bool { return bound().After(before) })
	until(t, "hearing of it", func() bool { return strings.Count(got(t, dir), "ip="+lease.Address.String()+"\n") >= 3 })
	// It releases when it ends (-R).
	if err := running.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	until(t, "the release", func() bool { _, held := store.View().LeaseByMAC(mac); return !held })
	running.Wait() // tells of the signal
}

func TestDhclient(t *testing.T) {
	dir := t.TempDir()
	peer := join(t)
	store := serve(t, dir)
	mac := peerMAC(t, peer)
	args := []string{"-1", "-sf", script(t, dir), "-lf", filepath.Join(dir, "leases"), "-pf", filepath.Join(dir, "pid"), "-cf", "/dev/null", "eth0"}
	peer.Run("dhclient", args...)
	lease, ok := store.View().LeaseByMAC(mac)
	if told := got(t, dir); !ok || !strings.Contains(told, "new_ip_address="+lease.Address.String()+"\n") || !strings.Contains(told, "new_dhcp_server_identifier=10.77.0.3\n") {
		t.Errorf("lease %+v, client was told\n%s", lease, told)
	}
	if _, known := store.View().MachineByMAC(mac); known {
		t.Error("a client that does not netboot became a machine")
	}
	peer.Run("dhclient", append([]string{"-r"}, args...)...)
	until(t, "the release", func() bool { _, held := store.View().LeaseByMAC(mac); return !held })
}

// A link that is not named has no socket, also while another one is served.
func TestOtherLinksAreNotServed(t *testing.T) {
	dir := t.TempDir()
	join(t)
	other := netns.Join(t, "veth1", "10.78.0.2/24", "")
	store := serve(t, dir)
	c := other.Command("busybox", "udhcpc", "-i", "eth0", "-f", "-n", "-q", "-t", "2", "-T", "1", "-s", script(t, dir))
	if out, err := c.CombinedOutput(); err == nil || !strings.Contains(string(out), "no lease") {
		t.Errorf("on the other link: %v\n%s", err, out)
	}
	if leases := store.View().Leases(); len(leases) != 0 {
		t.Errorf("leases %+v", leases)
	}
}

func TestPortIsNotShared(t *testing.T) {
	join(t)
	serve(t, t.TempDir())
	if c, err := openSocket(t.Context(), hostLink()); err == nil {
		t.Errorf("a second server on the same link: %v", c.Close())
	} else if !strings.Contains(err.Error(), "is another DHCP server running here?") {
		t.Error(err)
	}
}
