//go:build host

package bench

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"
)

// The ends reach each other, and there is nothing else to reach.
func TestCable(t *testing.T) {
	c, err := newCable(t.Context(), "10.77.0.2/24", "10.77.0.9/24")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.close(); err != nil {
			t.Error(err)
		}
	}()
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
