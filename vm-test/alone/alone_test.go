package alone

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestPorts(t *testing.T) {
	for _, c := range []struct{ a, b, want string }{
		{"", "", ""},
		{"1", "65535", ""},
		{"foo", "", "A_PORT=foo: expected a number from 1 to 65535"},
		{"", "0", "B_PORT=0: expected a number from 1 to 65535"},
		{"", "65536", "B_PORT=65536: expected a number from 1 to 65535"},
		{"", "-1", "B_PORT=-1: expected"},
		{"80 ", "", "A_PORT=80 : expected"},
		{"8080", "", "A_PORT=8080 and B_PORT=8080: expected two ports"},
	} {
		t.Setenv("A_PORT", c.a)
		t.Setenv("B_PORT", c.b)
		ports, err := Ports(Port{"A_PORT", 8443}, Port{"B_PORT", 8080})
		if c.want == "" && (err != nil || len(ports) != 2) || c.want != "" && (err == nil || !strings.HasPrefix(err.Error(), c.want)) {
			t.Errorf("A_PORT=%s B_PORT=%s: %v, %v; want %q", c.a, c.b, ports, err, c.want)
		}
	}
}

func TestFree(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := Port{"B_PORT", l.Addr().(*net.TCPAddr).Port}
	err = Free("dev", taken)
	if err == nil || !strings.HasPrefix(err.Error(), fmt.Sprintf("B_PORT=%d: ", taken.Number)) || !strings.Contains(err.Error(), ", as make dev B_PORT=") {
		t.Errorf("a port that is taken: %v", err)
	}
	if strings.HasSuffix(err.Error(), fmt.Sprintf("=%d", taken.Number)) {
		t.Errorf("the same one is proposed: %v", err)
	}
}

func TestLock(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "dev")
	for _, who := range []string{"make dev, a rather long name", "make dev"} {
		unlock, err := Lock(dir, who)
		if err != nil {
			t.Fatal(err)
		}
		var busy *BusyError
		if _, err := Lock(dir, "a second one"); !errors.As(err, &busy) || err.Error() != dir+": "+who+" runs there already; end it with Ctrl-C there, or by: kill "+strconv.Itoa(os.Getpid()) {
			t.Errorf("got %v", err)
		}
		unlock()
	}
	if got := Second("dev", "DEV_DIR", ".run/dev"); got != "make dev DEV_DIR=.run/dev2" {
		t.Errorf("a second one: %s", got)
	}
}
