// Package netns gives tests networks of their own: the test process runs in a
// network namespace that nothing else is in, and peers are further ones, each
// at the other end of a cable. Nothing is left behind, even by a killed test:
// a namespace ends with its last process. Programs are found in PATH, where
// "make test-host" puts ip and others' clients first.
package netns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const inside = "RACKSEED_TEST_NETNS"

// Main runs the tests in a network namespace, with mounts of their own; call it
// from TestMain. Without
// root it fails, since tests that need a network and skip would prove nothing.
func Main(m *testing.M) {
	if os.Getenv(inside) != "" {
		// What a test mounts is seen by nobody else, and goes with the process.
		if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
			fmt.Fprintf(os.Stderr, "the tests' mounts of their own: %v\n", err)
			os.Exit(1)
		}
		if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "loopback in the tests' namespace: %v: %s\n", err, out)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	self := exec.Command("/proc/self/exe", os.Args[1:]...)
	self.Args[0] = os.Args[0]
	self.Env = append(os.Environ(), inside+"=1")
	self.Stdin, self.Stdout, self.Stderr = os.Stdin, os.Stdout, os.Stderr
	self.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err := self.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		os.Exit(0)
	case errors.As(err, &exit):
		os.Exit(exit.ExitCode())
	}
	fmt.Fprintf(os.Stderr, "these tests run in a network namespace, which needs root: %v\n", err)
	os.Exit(1)
}

// Peer is another host.
type Peer struct {
	t     testing.TB
	sleep *exec.Cmd // keeps its namespace
}

// Join makes a peer at the other end of a cable: here it is the interface
// name, there eth0. Addresses (with prefix length) may be empty.
func Join(t testing.TB, name, here, there string) *Peer {
	t.Helper()
	p := host(t)
	Run(t, "ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", p.PID())
	Run(t, "ip", "link", "set", name, "up")
	t.Cleanup(func() { Run(t, "ip", "link", "del", name) })
	if here != "" {
		Run(t, "ip", "addr", "add", here, "dev", name)
	}
	p.up(there)
	return p
}

// host is a host without a cable.
func host(t testing.TB) *Peer {
	t.Helper()
	p := &Peer{t: t, sleep: exec.Command("sleep", "3600")}
	p.sleep.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := p.sleep.Start(); err != nil {
		t.Fatalf("a peer's namespace: %v", err)
	}
	t.Cleanup(func() {
		if err := p.sleep.Process.Kill(); err != nil {
			t.Error(err)
		}
		p.sleep.Wait() // tells of the kill
	})
	return p
}

// up brings its interfaces up, with an address if there is one.
func (p *Peer) up(address string) {
	p.t.Helper()
	p.Run("ip", "link", "set", "lo", "up")
	p.Run("ip", "link", "set", "eth0", "up")
	if address != "" {
		p.Run("ip", "addr", "add", address, "dev", "eth0")
	}
}

// Switch is a switch, which several hosts are plugged into.
type Switch struct {
	*Peer
	ports int
}

// JoinSwitch is Join with a switch at the other end, whose eth0 is a port of
// its bridge br0.
func JoinSwitch(t testing.TB, name, here string) *Switch {
	t.Helper()
	s := &Switch{Peer: Join(t, name, here, "")}
	s.Run("ip", "link", "add", "br0", "type", "bridge")
	s.Run("ip", "link", "set", "eth0", "master", "br0")
	s.Run("ip", "link", "set", "br0", "up")
	return s
}

// Plug makes a further host, with an eth0 that is plugged into the switch.
func (s *Switch) Plug(address string) *Peer {
	s.t.Helper()
	p := host(s.t)
	s.ports++
	port := "port" + strconv.Itoa(s.ports)
	s.Run("ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", p.PID())
	s.Run("ip", "link", "set", port, "master", "br0")
	s.Run("ip", "link", "set", port, "up")
	p.up(address)
	return p
}

// PID is that of a process in the peer's namespace, by which ip names it.
func (p *Peer) PID() string { return strconv.Itoa(p.sleep.Process.Pid) }

// Command is a program that runs on the peer, for at most a minute.
func (p *Peer) Command(name string, args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	p.t.Cleanup(cancel)
	return exec.CommandContext(ctx, "nsenter", append([]string{"-t", strconv.Itoa(p.sleep.Process.Pid), "-n", name}, args...)...)
}

// Run runs a program on the peer and returns what it printed; a failure ends
// the test.
func (p *Peer) Run(name string, args ...string) string {
	p.t.Helper()
	return output(p.t, p.Command(name, args...))
}

// UntilListening waits until a program on p listens on a UDP port of IPv4
// (/proc/net/udp, proc_net_udp(5)).
func (p *Peer) UntilListening(port int) {
	p.t.Helper()
	Until(p.t, fmt.Sprintf("listening on UDP port %d", port), func() bool {
		return strings.Contains(p.Run("cat", "/proc/net/udp"), fmt.Sprintf(":%04X ", port))
	})
}

// Until waits for a condition, at most 20 seconds.
func Until(t testing.TB, what string, condition func() bool) {
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

// Run runs a program in the test's own namespace.
func Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return output(t, exec.CommandContext(ctx, name, args...))
}

func output(t testing.TB, c *exec.Cmd) string {
	t.Helper()
	var both bytes.Buffer
	c.Stdout, c.Stderr = &both, &both
	if err := c.Run(); err != nil {
		t.Fatalf("%v: %v\n%s", c.Args, err, both.String())
	}
	return both.String()
}
