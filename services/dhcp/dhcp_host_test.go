//go:build host

package dhcp

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/netns"
	"github.com/rackseed/rackseed/services/state"
)

// serveHere makes the test binary a second appliance, on its namespace's eth0,
// that prints why it does not serve new machines.
const serveHere = "RACKSEED_TEST_SERVE"

func TestMain(m *testing.M) {
	if dir := os.Getenv(serveHere); dir != "" {
		second(dir)
	}
	netns.Main(m)
}

// hostLink is the link of the host tests: the service address is the second
// address of veth0, as it is on an appliance.
func hostLink() Link {
	l := testLink()
	l.Interface, l.To = "veth0", ip("10.77.0.199")
	return l
}

// second serves as another appliance of another site until it is killed.
func second(dir string) {
	store, err := state.Open(state.Config{Dir: dir, ID: "b"})
	if err == nil {
		err = store.WaitLeader(context.Background())
	}
	if err == nil {
		l := hostLink()
		l.Interface, l.Service, l.Own, l.Cluster, l.Site = "eth0", ip("10.77.0.5"), ip("10.77.0.4"), "c-2", "rack2"
		err = newServer(store, l, func(why []string) { fmt.Println(strings.Join(why, "; ")) }).Run(context.Background())
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func newServer(store *state.Store, link Link, hindered func([]string)) *Server {
	return &Server{
		Links: []Link{link}, View: func() State { return store.View() }, Hindered: hindered,
		Propose: func(ctx context.Context, by string, c state.Command) error {
			_, err := store.Propose(ctx, by, c)
			return err
		},
	}
}

// serve runs the server over a real state until the test ends, and waits until
// new clients are served.
func serve(t testing.TB, dir string) *state.Store {
	t.Helper()
	store, hindered := serveLink(t, dir, hostLink())
	served(t, hindered)
	return store
}

// served waits until new clients are served.
func served(t testing.TB, hindered <-chan []string) {
	t.Helper()
	for {
		select {
		case why := <-hindered:
			if len(why) == 0 {
				return
			}
		case <-time.After(20 * time.Second):
			t.Fatal("new clients are not served")
		}
	}
}

// serveLink runs the server; hindered has why new clients are not served, as it
// changes.
func serveLink(t testing.TB, dir string, link Link) (_ *state.Store, hindered <-chan []string) {
	t.Helper()
	store, err := state.Open(state.Config{Dir: dir, ID: "a"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	if err := store.WaitLeader(ctx); err != nil {
		t.Fatal(err)
	}
	changes := make(chan []string, 100)
	server := newServer(store, link, func(why []string) { changes <- why })
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
	return store, changes
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
	return readMAC(t, p.Run("ip", "-o", "link", "show", "eth0"))
}

// mac is the hardware address of an interface here.
func mac(t *testing.T, name string) machine.MAC {
	t.Helper()
	return readMAC(t, netns.Run(t, "ip", "-o", "link", "show", name))
}

func readMAC(t *testing.T, line string) machine.MAC {
	t.Helper()
	_, rest, _ := strings.Cut(line, "link/ether ")
	m, err := machine.ParseMAC(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return m
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
	for _, want := range []string{"boot_file=shimx64.efi", "siaddr=10.77.0.3", "serverid=10.77.0.3", "router=10.77.0.1", "dns=10.77.0.1", "lease=3600", "mask=24"} {
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
	netns.Until(t, "binding again", func() bool { return bound().After(lease.Bound) })
	netns.Until(t, "setting the address", func() bool {
		return strings.Contains(peer.Run("ip", "addr", "show", "eth0"), lease.Address.String())
	})
	before := bound()
	// Once: udhcpc takes a second signal for impatience and gives its lease up.
	if err := running.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	netns.Until(t, "renewing", func() bool { return bound().After(before) })
	netns.Until(t, "hearing of it", func() bool { return strings.Count(got(t, dir), "ip="+lease.Address.String()+"\n") >= 3 })
	// It releases when it ends (-R).
	if err := running.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	netns.Until(t, "the release", func() bool { _, held := store.View().LeaseByMAC(mac); return !held })
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
	netns.Until(t, "the release", func() bool { _, held := store.View().LeaseByMAC(mac); return !held })
}

// dnsmasq is somebody's DHCP server, until the test ends or off is called.
func dnsmasq(t *testing.T, on *netns.Peer, args ...string) (off func()) {
	t.Helper()
	c := on.Command("dnsmasq", append([]string{"--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--interface=eth0", "--bind-interfaces",
		"--dhcp-range=10.77.0.200,10.77.0.210,1h", "--dhcp-leasefile=" + filepath.Join(t.TempDir(), "leases"), "--pid-file="}, args...)...)
	c.Stderr = t.Output()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	off = sync.OnceFunc(func() {
		if err := c.Process.Kill(); err != nil {
			t.Error(err)
		}
		c.Wait() // tells of the kill
	})
	t.Cleanup(off)
	on.UntilListening(67)
	return off
}

// note is the newest event of a kind, with its number of times.
func note(store *state.Store, kind string) (newest machine.Event, times int) {
	for _, e := range store.View().Events(0, "", 0) {
		if e.Kind == kind {
			newest, times = e, times+1
		}
	}
	return newest, times
}

// asks lets a host ask as firmware does, for a few seconds, and says what it was
// told.
func asks(t *testing.T, host *netns.Peer, script string, args ...string) (told string, ok bool) {
	t.Helper()
	c := host.Command("busybox", append([]string{"udhcpc", "-i", "eth0", "-f", "-n", "-q", "-t", "5", "-T", "1", "-s", script}, args...)...)
	out, err := c.CombinedOutput()
	return string(out), err == nil
}

var asFirmware = []string{"-V", "PXEClient:Arch:00007:UNDI:003016", "-x", "0x5d:0007"}

// Another DHCP server that is there already is found before anybody is served,
// and told of: also one that takes three seconds to answer, since it pings.
func TestForeignServer(t *testing.T) {
	for name, args := range map[string][]string{"at once": {"--no-ping"}, "that pings": nil} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			wire := netns.JoinSwitch(t, "veth0", "10.77.0.2/24")
			netns.Run(t, "ip", "addr", "add", "10.77.0.3/24", "dev", "veth0")
			other, client := wire.Plug("10.77.0.9/24"), wire.Plug("")
			dnsmasq(t, other, append(args, "--domain=example.org")...)
			store, hindered := serveLink(t, dir, hostLink())
			var why string
			netns.Until(t, "finding the other server", func() bool {
				select {
				case list := <-hindered:
					if len(list) == 0 {
						t.Fatal("new clients were served")
					}
					why = list[0]
				default:
				}
				return strings.Contains(why, "10.77.0.9")
			})
			netns.Until(t, "the event", func() bool { _, n := note(store, "dhcp.foreign"); return n == 1 })
			e, _ := note(store, "dhcp.foreign")
			if e.Severity != machine.Error || e.Data["server"] != "10.77.0.9" || e.Data["hardware"] != string(peerMAC(t, other)) ||
				e.Data["domain"] != "example.org" || !strings.HasPrefix(e.Data["offered"], "10.77.0.2") {
				t.Errorf("event %+v", e)
			}
			if told, ok := asks(t, client, script(t, dir), asFirmware...); !ok || !strings.Contains(told, "obtained from 10.77.0.9") {
				t.Errorf("a new client: %s", told)
			}
			if leases := store.View().Leases(); len(leases) != 0 {
				t.Errorf("leases %+v", leases)
			}
		})
	}
}

// One that comes later stops service to new clients; who has a lease keeps it.
func TestForeignServerComesLater(t *testing.T) {
	dir := t.TempDir()
	wire := netns.JoinSwitch(t, "veth0", "10.77.0.2/24")
	netns.Run(t, "ip", "addr", "add", "10.77.0.3/24", "dev", "veth0")
	other, first, second := wire.Plug("10.77.0.9/24"), wire.Plug(""), wire.Plug("")
	store := serve(t, dir)
	running := first.Command("busybox", append([]string{"udhcpc", "-i", "eth0", "-f", "-s", script(t, dir)}, asFirmware...)...)
	if err := running.Start(); err != nil {
		t.Fatal(err)
	}
	bound := func() time.Time { l, _ := store.View().LeaseByMAC(peerMAC(t, first)); return l.Bound }
	netns.Until(t, "binding", func() bool { return !bound().IsZero() })
	netns.Until(t, "setting the address", func() bool { return strings.Contains(first.Run("ip", "addr", "show", "eth0"), "10.77.0.") })

	off := dnsmasq(t, other, "--no-ping")
	// It shows when a client asks, or when it is asked.
	netns.Until(t, "finding it", func() bool {
		asks(t, second, script(t, dir), asFirmware...)
		_, n := note(store, "dhcp.foreign")
		return n > 0
	})
	off() // what happens now is this server's doing alone
	before := bound()
	if err := running.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	netns.Until(t, "renewing", func() bool { return bound().After(before) })
	third := wire.Plug("")
	if told, ok := asks(t, third, script(t, dir), asFirmware...); ok {
		t.Errorf("a new client: %s", told)
	}
	if _, known := store.View().LeaseByMAC(peerMAC(t, third)); known {
		t.Error("a new client has a lease")
	}
	if err := running.Process.Kill(); err != nil {
		t.Error(err)
	}
	running.Wait() // tells of the kill
}

// Behind a port that spanning tree keeps shut a server does not show at first.
func TestForeignServerBehindSpanningTree(t *testing.T) {
	wire := netns.JoinSwitch(t, "veth0", "10.77.0.2/24")
	netns.Run(t, "ip", "addr", "add", "10.77.0.3/24", "dev", "veth0")
	dnsmasq(t, wire.Plug("10.77.0.9/24"), "--no-ping")
	// Listening and learning, 2.5 s each: longer than a link is listened to.
	wire.Run("ip", "link", "set", "br0", "type", "bridge", "stp_state", "1", "forward_delay", "250")
	wire.Run("ip", "link", "set", "eth0", "down")
	store, hindered := serveLink(t, t.TempDir(), hostLink())
	wire.Run("ip", "link", "set", "eth0", "up")
	served(t, hindered)
	netns.Until(t, "finding the other server", func() bool { _, n := note(store, "dhcp.foreign"); return n > 0 })
}

// Of two appliances on a wire the later one serves nobody that is new, and both
// name the other.
func TestSecondAppliance(t *testing.T) {
	dir := t.TempDir()
	wire := netns.JoinSwitch(t, "veth0", "10.77.0.2/24")
	netns.Run(t, "ip", "addr", "add", "10.77.0.3/24", "dev", "veth0")
	store := serve(t, dir)
	later := wire.Plug("10.77.0.4/24")
	later.Run("ip", "addr", "add", "10.77.0.5/24", "dev", "eth0")
	c := later.Command("/proc/" + fmt.Sprint(os.Getpid()) + "/exe")
	c.Env = append(os.Environ(), serveHere+"="+t.TempDir())
	out, in := io.Pipe()
	c.Stdout, c.Stderr = in, t.Output()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Process.Kill(); err != nil {
			t.Error(err)
		}
		c.Wait() // tells of the kill
	})
	said := make(chan string, 100)
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			said <- lines.Text()
		}
	}()
	want := fmt.Sprintf(`veth0: another Rackseed appliance, of site "lab", at 10.77.0.3 (hardware address %s) answers DHCP too`, mac(t, "veth0"))
	want = strings.Replace(want, "veth0:", "eth0:", 1)
	for heard := ""; !strings.Contains(heard, want); {
		select {
		case heard = <-said:
			if heard == "" {
				t.Fatal("the later one serves new machines")
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("the later one says %q, want %q", heard, want)
		}
	}
	netns.Until(t, "the first one's event", func() bool { _, n := note(store, "dhcp.asked"); return n == 1 })
	if e, _ := note(store, "dhcp.asked"); !strings.Contains(e.Text, `site "rack2"`) {
		t.Errorf("event %+v", e)
	}
	if told, ok := asks(t, wire.Plug(""), script(t, dir), asFirmware...); !ok || !strings.Contains(told, "obtained from 10.77.0.3") {
		t.Errorf("a new client: %s", told)
	}
	if e, n := note(store, "dhcp.foreign"); n != 0 {
		t.Errorf("the first one yields: %+v", e)
	}
}

// Laptops and the like get addresses where the site file says so, and never
// become machines.
func TestOthers(t *testing.T) {
	for _, others := range []bool{false, true} {
		t.Run(fmt.Sprint(others), func(t *testing.T) {
			dir := t.TempDir()
			peer := join(t)
			link := hostLink()
			link.Others = others
			store, hindered := serveLink(t, dir, link)
			for why := <-hindered; len(why) > 0; why = <-hindered {
			}
			if told, ok := asks(t, peer, script(t, dir)); ok != others {
				t.Errorf("a laptop: %s", told)
			}
			if told, ok := asks(t, peer, script(t, dir), "-V", "rackseed-installer"); !ok {
				t.Errorf("an installer: %s", told)
			}
			if machines := store.View().Machines(); len(machines) != 0 {
				t.Errorf("machines %+v", machines)
			}
			if told, ok := asks(t, peer, script(t, dir), asFirmware...); !ok {
				t.Errorf("firmware: %s", told)
			}
			if _, known := store.View().MachineByMAC(peerMAC(t, peer)); !known {
				t.Error("what netboots is no machine")
			}
			if told, ok := asks(t, peer, script(t, dir)); !ok {
				t.Errorf("a machine's operating system: %s", told)
			}
		})
	}
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

// What a whole room sends at once waits in the kernel until it is read. The
// kernel counts twice what was asked for (socket(7)).
func TestReceiveBuffer(t *testing.T) {
	join(t)
	c, err := openSocket(t.Context(), hostLink())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}()
	raw, err := c.(*socket).udp.PacketConn.(*net.UDPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) {
		if n, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF); err != nil || n != 2*receiveBuffer {
			t.Errorf("the receive buffer has %d bytes, %v", n, err)
		}
	}); err != nil {
		t.Error(err)
	}
}

// A packet that nobody reads for a while is known to be so old.
func TestHowLongAPacketWaited(t *testing.T) {
	peer := join(t)
	peer.Run("ip", "addr", "add", "10.77.0.9/24", "dev", "eth0")
	c, err := openSocket(t.Context(), hostLink())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}()
	raw, err := c.(*socket).udp.PacketConn.(*net.UDPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	// late sends a packet, and reads it a while after it came.
	late := func(after time.Duration) time.Duration {
		peer.Run("bash", "-c", "echo late > /dev/udp/10.77.0.2/67")
		netns.Until(t, "a packet came", func() bool {
			n := 0
			if ended := raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.SIOCINQ) }); ended != nil || err != nil {
				t.Fatal(ended, err)
			}
			return n > 0
		})
		came := time.Now()
		netns.Until(t, "waiting", func() bool { return time.Since(came) > after })
		n, waited, err := c.Read(make([]byte, maxPacket))
		if err != nil || n != len("late\n") {
			t.Fatalf("%d bytes, %v", n, err)
		}
		return waited
	}
	// The kernel notes when packets come only some moments after it was asked to.
	netns.Until(t, "noting when packets come", func() bool { return late(20*time.Millisecond) >= 20*time.Millisecond })
	if waited := late(500 * time.Millisecond); waited < 500*time.Millisecond {
		t.Errorf("it waited for %v", waited)
	}
}
