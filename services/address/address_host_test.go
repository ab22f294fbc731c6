//go:build host

package address

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/netns"
)

// holdHere makes the test binary a process that holds the address, so that a
// test can kill it.
const holdHere = "RACKSEED_TEST_HOLD"

func TestMain(m *testing.M) {
	if link := os.Getenv(holdHere); link != "" {
		if err := Hold(context.Background(), link, netip.MustParsePrefix("10.77.0.3/24"), nil, func(error) {}); err != nil {
			println(err.Error())
		}
		os.Exit(1)
	}
	netns.Main(m)
}

func has(t *testing.T, link string) bool {
	t.Helper()
	return strings.Contains(netns.Run(t, "ip", "-4", "addr", "show", "dev", link), "10.77.0.3/24")
}

// mac is the hardware address in a line of ip link.
func mac(line string) string {
	_, rest, _ := strings.Cut(line, "link/ether ")
	address, _, _ := strings.Cut(rest, " ")
	return address
}

func TestHoldAndRelease(t *testing.T) {
	peer := netns.Join(t, "veth0", "10.77.0.2/24", "10.77.0.9/24")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Hold(ctx, "veth0", netip.MustParsePrefix("10.77.0.3/24"), nil, func(error) {}) }()
	netns.Until(t, "taking the address", func() bool { return has(t, "veth0") })
	// The peer learns by ARP who has the address.
	peer.Run("bash", "-c", "echo > /dev/udp/10.77.0.3/9")
	own := mac(netns.Run(t, "ip", "-o", "link", "show", "veth0"))
	netns.Until(t, "answering ARP", func() bool {
		return strings.Contains(peer.Run("ip", "neigh", "show", "10.77.0.3"), own)
	})
	// It outlives what the kernel grants.
	for outlived := time.After(2 * lifetime); ; {
		if !has(t, "veth0") {
			t.Fatal("the address was lost while held")
		}
		select {
		case <-outlived:
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
			if has(t, "veth0") {
				t.Error("the address is still there after its release")
			}
			return
		case <-time.After(lifetime / 4):
		}
	}
}

func TestHoldFindsAnotherOwner(t *testing.T) {
	peer := netns.Join(t, "veth1", "10.77.0.2/24", "10.77.0.3/24")
	owner := mac(peer.Run("ip", "-o", "link", "show", "eth0"))
	err := Hold(t.Context(), "veth1", netip.MustParsePrefix("10.77.0.3/24"), nil, func(error) {})
	var conflict *Conflict
	if !errors.As(err, &conflict) || conflict.Owner.String() != owner {
		t.Fatalf("got %v, want a conflict with %s", err, owner)
	}
	if has(t, "veth1") {
		t.Error("the address was taken all the same")
	}
}

// The replica that had the address was killed, and its kernel has it for a while:
// the next one takes it all the same, and says so as long as the other may answer.
func TestHoldAfterAReplica(t *testing.T) {
	sw := netns.JoinSwitch(t, "veth8", "10.77.0.2/24")
	dead, client := sw.Plug("10.77.0.8/24"), sw.Plug("10.77.0.9/24")
	dead.Run("ip", "addr", "add", "10.77.0.3/24", "valid_lft", "60", "preferred_lft", "60", "dev", "eth0")
	its := mac(dead.Run("ip", "-o", "link", "show", "eth0"))
	ctx, cancel := context.WithCancel(t.Context())
	done, told := make(chan error, 1), make(chan error, 16)
	go func() {
		done <- Hold(ctx, "veth8", netip.MustParsePrefix("10.77.0.3/24"), func(hw net.HardwareAddr) bool { return hw.String() == its }, func(err error) { told <- err })
	}()
	if err := <-told; err != nil || !has(t, "veth8") {
		t.Fatalf("told %v, and it is taken: %v", err, has(t, "veth8"))
	}
	if !strings.Contains(dead.Run("ip", "addr", "show", "dev", "eth0"), "10.77.0.3/24") {
		t.Error("it waited until the other's kernel had forgotten it")
	}
	dead.Run("ip", "addr", "change", "10.77.0.3/24", "valid_lft", "2", "preferred_lft", "2", "dev", "eth0")
	// Who asked the dead one meanwhile learns better.
	client.Run("ip", "neigh", "replace", "10.77.0.3", "lladdr", its, "dev", "eth0", "nud", "stale")
	own := mac(netns.Run(t, "ip", "-o", "link", "show", "veth8"))
	netns.Until(t, "the client knows who has it", func() bool { return strings.Contains(client.Run("ip", "neigh", "show", "10.77.0.3"), own) })
	netns.Until(t, "the dead one's kernel forgot it", func() bool {
		return !strings.Contains(dead.Run("ip", "addr", "show", "dev", "eth0"), "10.77.0.3/24")
	})
	select {
	case err := <-told:
		t.Errorf("told %v", err)
	default:
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Behind a port that spanning tree keeps shut nobody is heard at first: whoever
// has the address then, had it first.
func TestHoldBehindSpanningTree(t *testing.T) {
	wire := netns.JoinSwitch(t, "veth6", "10.77.0.2/24")
	other := wire.Plug("10.77.0.3/24")
	// Listening and learning, 2 s each: longer than is asked before it is taken.
	wire.Run("ip", "link", "set", "br0", "type", "bridge", "stp_state", "1", "forward_delay", "200")
	wire.Run("ip", "link", "set", "eth0", "down")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	taken, waits := false, make(chan error, 10)
	done := make(chan error, 1)
	go func() {
		done <- Hold(ctx, "veth6", netip.MustParsePrefix("10.77.0.3/24"), nil, func(err error) {
			taken = taken || err == nil
			waits <- err
		})
	}()
	select {
	case err := <-waits:
		if err == nil {
			t.Error("it was taken without a carrier")
		}
	case err := <-done:
		t.Fatal(err)
	}
	wire.Run("ip", "link", "set", "eth0", "up")
	err := <-done
	var conflict *Conflict
	if !errors.As(err, &conflict) || conflict.Held || conflict.Owner.String() != mac(other.Run("ip", "-o", "link", "show", "eth0")) {
		t.Errorf("got %v, want a conflict with the one who had it", err)
	}
	if !taken {
		t.Error("its owner was heard at once: the port was open")
	}
	if has(t, "veth6") {
		t.Error("the address was kept all the same")
	}
}

// Without a cable nobody can be asked, and nothing is taken.
func TestHoldWaitsForCarrier(t *testing.T) {
	peer := netns.Join(t, "veth7", "10.77.0.2/24", "10.77.0.3/24")
	peer.Run("ip", "link", "set", "eth0", "down")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	done, told := make(chan error, 1), make(chan error, 10)
	go func() {
		done <- Hold(ctx, "veth7", netip.MustParsePrefix("10.77.0.3/24"), nil, func(err error) { told <- err })
	}()
	if err := <-told; err == nil || !strings.Contains(err.Error(), "10.77.0.3 on veth7: the link has no carrier") {
		t.Errorf("told %v", err)
	}
	peer.Run("ip", "link", "set", "eth0", "up")
	var conflict *Conflict
	if err := <-done; !errors.As(err, &conflict) {
		t.Errorf("got %v, want a conflict", err)
	}
	if len(told) != 0 {
		t.Errorf("told %v", <-told)
	}
}

// A host that takes the address while it is held does not get it; it is told of,
// and that it is over.
func TestHoldDefends(t *testing.T) {
	peer := netns.Join(t, "veth3", "10.77.0.2/24", "")
	ctx, cancel := context.WithCancel(t.Context())
	done, told := make(chan error, 1), make(chan error, 10)
	go func() {
		done <- hold(ctx, "veth3", netip.MustParsePrefix("10.77.0.3/24"), nil, func(err error) { told <- err }, 0)
	}()
	if err := <-told; err != nil {
		t.Errorf("told %v, not that it is taken", err)
	}
	owner := mac(peer.Run("ip", "-o", "link", "show", "eth0"))
	peer.Run("ip", "addr", "add", "10.77.0.3/24", "dev", "eth0")
	// As soon as it talks to anybody it shows.
	peer.Run("bash", "-c", "echo > /dev/udp/10.77.0.77/9")
	select {
	case err := <-told:
		var c *Conflict
		if !errors.As(err, &c) || !c.Held || c.Owner.String() != owner {
			t.Errorf("told of %+v, want %s", err, owner)
		}
	case <-time.After(20 * time.Second):
		t.Error("not told")
	}
	if !has(t, "veth3") {
		t.Error("the address was given up")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// An address that this host has still, from a process that was killed, is no
// other's: not even where another of its network cards answers for it.
func TestHoldAfterRestart(t *testing.T) {
	wire := netns.JoinSwitch(t, "veth4", "10.77.0.2/24")
	netns.Run(t, "ip", "addr", "add", "10.77.0.3/24", "dev", "veth4", "valid_lft", "3", "preferred_lft", "3")
	// A second card of this host on the same wire.
	netns.Run(t, "ip", "link", "add", "veth5", "type", "veth", "peer", "name", "second", "netns", wire.PID())
	t.Cleanup(func() { netns.Run(t, "ip", "link", "del", "veth5") })
	netns.Run(t, "ip", "link", "set", "veth5", "up")
	wire.Run("ip", "link", "set", "second", "master", "br0", "up")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- Hold(ctx, "veth4", netip.MustParsePrefix("10.77.0.3/24"), nil, func(err error) {
			if err != nil {
				t.Errorf("told of %v", err)
			}
		})
	}()
	held := func() bool {
		text := netns.Run(t, "ip", "-4", "-o", "addr", "show", "dev", "veth4", "to", "10.77.0.3")
		return strings.Contains(text, "10.77.0.3/24")
	}
	for outlived := time.After(2 * lifetime); ; {
		select {
		case err := <-done:
			t.Fatal(err)
		case <-outlived:
			if !held() {
				t.Error("the address is not held")
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
			return
		case <-time.After(lifetime / 4):
		}
	}
}

// A holder that is killed, or stopped and so cannot renew, loses the address.
func TestKilledHolderLosesIt(t *testing.T) {
	netns.Join(t, "veth2", "10.77.0.2/24", "")
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP} {
		holder := exec.Command("/proc/self/exe")
		holder.Env = append(os.Environ(), holdHere+"=veth2")
		holder.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := holder.Start(); err != nil {
			t.Fatal(err)
		}
		netns.Until(t, "taking the address", func() bool { return has(t, "veth2") })
		if err := holder.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		netns.Until(t, "losing the address", func() bool { return !has(t, "veth2") })
		holder.Process.Kill() // may be dead already
		holder.Wait()         // tells of the kill
	}
}

// A holder that goes on after the kernel forgot the address does not take it back:
// another replica may have it.
func TestStoppedHolderDoesNotTakeItBack(t *testing.T) {
	peer := netns.Join(t, "veth9", "10.77.0.2/24", "")
	var said bytes.Buffer
	limit, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	holder := exec.CommandContext(limit, "/proc/self/exe")
	holder.Env, holder.Stderr = append(os.Environ(), holdHere+"=veth9"), &said
	holder.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	netns.Until(t, "taking the address", func() bool { return has(t, "veth9") })
	if err := holder.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	netns.Until(t, "losing the address", func() bool { return !has(t, "veth9") })
	peer.Run("ip", "addr", "add", "10.77.0.3/24", "dev", "eth0")
	if err := holder.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	holder.Wait() // tells that it failed, which is what is wanted
	if !strings.Contains(said.String(), errLapsed.Error()) {
		t.Errorf("it did not end by itself, and said %s", said.String())
	}
	if has(t, "veth9") {
		t.Error("it took the address back")
	}
}
