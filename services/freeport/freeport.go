// Package freeport finds ports of the loopback, for tests and virtual racks whose
// programs are told where to listen before they are started.
package freeport

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"syscall"
)

// Linux gives connections that go out ports from 32768 on (ip(7), ip_local_port_range):
// one of those may be taken by the next that comes, before a program listens there.
const first, last = 20000, 32767

// given are the ports that this process has found: who asked for one may not listen
// on it yet.
var given sync.Map

// Find is a TCP port of 127.0.0.1 that nobody listens on now, each time another one.
func Find() (int, error) {
	for tries := 0; ; tries++ {
		port := first + rand.IntN(last-first+1)
		if _, before := given.LoadOrStore(port, true); before && tries < 100 {
			continue
		}
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if errors.Is(err, syscall.EADDRINUSE) && tries < 100 {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("no free port on the loopback: %w", err)
		}
		return port, l.Close()
	}
}
