package freeport

import (
	"fmt"
	"net"
	"testing"
)

// A port is free, found once, and none that the kernel gives to a connection that goes
// out.
func TestFind(t *testing.T) {
	found := map[int]bool{}
	for range 1000 {
		port, err := Find()
		if err != nil {
			t.Fatal(err)
		}
		if port >= 32768 { // the kernel's own default
			t.Errorf("%d", port)
		}
		if found[port] {
			t.Errorf("%d was found before", port)
		}
		found[port] = true
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
