package freeport

import (
	"fmt"
	"net"
	"testing"
)

// A port is free, and none that the kernel gives to a connection that goes out.
func TestFind(t *testing.T) {
	for range 100 {
		port, err := Find()
		if err != nil {
			t.Fatal(err)
		}
		if port >= 32768 { // the kernel's own default
			t.Errorf("%d", port)
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}
}
