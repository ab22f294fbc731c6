//go:build host

package bench

import (
	"bytes"
	"errors"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
)

// newTestCable is a cable that the test's end takes away.
func newTestCable(t *testing.T) *cable {
	t.Helper()
	c, err := newCable(t.Context(), "10.77.0.2/24", "10.77.0.9/24")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// The ends reach each other, and there is nothing else to reach.
func TestCable(t *testing.T) {
	c := newTestCable(t)
	// A host that has no such port says so; one that is not there is silent.
	connect := exec.Command("timeout", "20", "bash", "-c", "exec 3<>/dev/tcp/10.77.0.2/9")
	if out, err := c.client.inside(t.Context(), connect).CombinedOutput(); err == nil || !bytes.Contains(out, []byte("Connection refused")) {
		t.Errorf("the other end: %v: %s", err, out)
	}
	out, err := c.client.inside(t.Context(), exec.Command("ip", "-o", "link")).CombinedOutput()
	if err != nil || strings.Count(string(out), "\n") != 2 || !bytes.Contains(out, []byte(" eth0@")) || !bytes.Contains(out, []byte(" lo:")) {
		t.Errorf("links: %v\n%s", err, out)
	}
	if out, err := c.client.inside(t.Context(), exec.Command("ip", "route")).CombinedOutput(); err != nil || bytes.Contains(out, []byte("default")) {
		t.Errorf("routes: %v\n%s", err, out)
	}
}

// A socket that is opened inside reaches the other end, and afterwards the
// thread is at home again.
func TestDo(t *testing.T) {
	c := newTestCable(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home := ownNamespace(t)
	var l net.Listener
	if err := c.server.do(func() (err error) {
		if ownNamespace(t) == home {
			t.Error("the thread is still at home")
		}
		l, err = net.Listen("tcp", "10.77.0.2:80")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var conn net.Conn
	if err := c.client.do(func() (err error) {
		conn, err = net.Dial("tcp", "10.77.0.2:80")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := conn.LocalAddr().(*net.TCPAddr).IP.String(); got != "10.77.0.9" {
		t.Errorf("the client's address is %s", got)
	}
	broken := errors.New("it broke")
	if err := c.client.do(func() error { return broken }); !errors.Is(err, broken) {
		t.Error(err)
	}
	if got := ownNamespace(t); got != home {
		t.Errorf("the thread is in %s, not at home in %s", got, home)
	}
}

func ownNamespace(t *testing.T) string {
	t.Helper()
	name, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	return name
}
