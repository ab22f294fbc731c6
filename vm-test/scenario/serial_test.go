//go:build vm || full

package scenario

import (
	"bytes"
	"net"
	"testing"
	"time"
)

// serialLine is a person at a machine's serial port.
type serialLine struct {
	t    *testing.T
	conn net.Conn
	rest []byte // read, and not expected yet
}

func connect(t *testing.T, socket string) *serialLine {
	t.Helper()
	var conn net.Conn
	eventually(t, 20*time.Second, "QEMU makes the serial port", func() (err error) {
		conn, err = (&net.Dialer{}).DialContext(t.Context(), "unix", socket)
		return err
	})
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return &serialLine{t: t, conn: conn}
}

// expect reads until something is printed after what was expected before, and
// types an answer. What is printed is as wide as a terminal: the part must not
// be broken over lines.
func (s *serialLine) expect(part, answer string) {
	s.t.Helper()
	const limit = 2 * time.Minute // the first one waits for the boot
	if err := s.conn.SetReadDeadline(time.Now().Add(limit)); err != nil {
		s.t.Fatal(err)
	}
	b := make([]byte, 4096)
	for {
		if _, after, ok := bytes.Cut(s.rest, []byte(part)); ok {
			s.rest = after
			break
		}
		n, err := s.conn.Read(b)
		s.rest = append(s.rest, b[:n]...)
		if err != nil {
			s.t.Fatalf("waiting for %q: %v; printed since the last: %s", part, err, s.rest)
		}
	}
	if _, err := s.conn.Write([]byte(answer)); err != nil {
		s.t.Fatal(err)
	}
}
