package vswitch

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

// host is one machine's interface, as QEMU plugs it in.
type host struct {
	t    *testing.T
	conn net.Conn
	mac  [6]byte
}

func plug(t *testing.T, s *Switch, name string, last byte) (*host, *Port) {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	port, err := s.Listen(name, path)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &host{t, conn, [6]byte{0x52, 0x54, 0, 0, 0, last}}, port
}

func (h *host) send(to [6]byte, text string) {
	h.t.Helper()
	frame := append(append(append([]byte{}, to[:]...), h.mac[:]...), 0x88, 0xb5)
	frame = append(frame, text...)
	if _, err := h.conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...)); err != nil {
		h.t.Fatal(err)
	}
}

// next returns the text of the next frame.
func (h *host) next() string {
	h.t.Helper()
	h.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	var header [4]byte
	if _, err := io.ReadFull(h.conn, header[:]); err != nil {
		h.t.Fatalf("no frame came: %v", err)
	}
	frame := make([]byte, binary.BigEndian.Uint32(header[:]))
	if _, err := io.ReadFull(h.conn, frame); err != nil {
		h.t.Fatal(err)
	}
	return string(frame[14:])
}

var broadcast = [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

func TestForwarding(t *testing.T) {
	s := New()
	defer s.Close()
	var record bytes.Buffer
	if err := s.Record(&record); err != nil {
		t.Fatal(err)
	}
	a, _ := plug(t, s, "a", 1)
	b, portB := plug(t, s, "b", 2)
	c, _ := plug(t, s, "c", 3)

	a.send(broadcast, "who is there")
	for _, h := range []*host{b, c} {
		if got := h.next(); got != "who is there" {
			t.Errorf("broadcast: got %q", got)
		}
	}
	b.send(a.mac, "I am")
	if got := a.next(); got != "I am" {
		t.Errorf("unicast: got %q", got)
	}
	// c did not get the unicast: the next frame it sees is this one.
	b.send(broadcast, "to all")
	if got := c.next(); got != "to all" {
		t.Errorf("a frame for another port came: %q", got)
	}
	if got := a.next(); got != "to all" {
		t.Errorf("broadcast: got %q", got)
	}

	// What is sent to or from a cut port is gone; what comes after is not.
	portB.Cut(true)
	a.send(b.mac, "lost")
	b.send(a.mac, "lost too")
	c.send(a.mac, "c is not cut")
	if got := a.next(); got != "c is not cut" {
		t.Errorf("from a cut port came %q", got)
	}
	// Wait until the switch has seen it: it arrives at another port's pace.
	for deadline := time.Now().Add(10 * time.Second); ; runtime.Gosched() {
		if _, dropped := portB.Stats(); dropped > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the frame to the cut port was not dropped")
		}
	}
	portB.Cut(false)
	a.send(b.mac, "again")
	if got := b.next(); got != "again" {
		t.Errorf("after the cut: %q", got)
	}
	if err := s.StopRecording(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(record.Bytes(), []byte("who is there")) || binary.LittleEndian.Uint32(record.Bytes()) != 0xa1b2c3d4 {
		t.Error("the recording lacks the first frame or its header")
	}
}

func TestPluggedInAgain(t *testing.T) {
	s := New()
	defer s.Close()
	a, _ := plug(t, s, "a", 1)
	b, port := plug(t, s, "b", 2)
	b.conn.Close()
	conn, err := net.Dial("unix", port.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	b.conn = conn
	b.send(a.mac, "back")
	if got := a.next(); got != "back" {
		t.Errorf("got %q", got)
	}
	a.send(b.mac, "welcome")
	if got := b.next(); got != "welcome" {
		t.Errorf("got %q", got)
	}
}

func TestShaper(t *testing.T) {
	now := time.Unix(0, 0)
	t.Run("rate and delay", func(t *testing.T) {
		s := newShaper(Impairment{Rate: 1000, Delay: time.Second})
		for i, want := range []time.Duration{1500 * time.Millisecond, 2000 * time.Millisecond} {
			due, drop := s.plan(now, 500)
			if drop || due.Sub(now) != want {
				t.Errorf("frame %d: due after %v, dropped %t; want %v", i, due.Sub(now), drop, want)
			}
		}
	})
	t.Run("loss", func(t *testing.T) {
		lost := func(seed uint64) (n int) {
			s := newShaper(Impairment{Loss: 0.1, Seed: seed})
			for range 10000 {
				if _, drop := s.plan(now, 100); drop {
					n++
				}
			}
			return n
		}
		if n := lost(1); n < 800 || n > 1200 {
			t.Errorf("%d of 10000 frames lost, asked for a tenth", n)
		}
		if lost(7) != lost(7) {
			t.Error("the same seed lost other frames")
		}
	})
	t.Run("none", func(t *testing.T) {
		var s shaper
		if due, drop := s.plan(now, 100); drop || !due.Equal(now) {
			t.Errorf("due %v, dropped %t", due, drop)
		}
	})
}

func BenchmarkForward(b *testing.B) {
	s := New()
	defer s.Close()
	path := filepath.Join(b.TempDir(), "b")
	port, err := s.Listen("b", path)
	if err != nil {
		b.Fatal(err)
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		b.Fatal(err)
	}
	go io.Copy(io.Discard, conn)
	defer conn.Close()
	frame := make([]byte, 1514)
	copy(frame, broadcast[:])
	from := &Port{sw: s}
	b.SetBytes(int64(len(frame)))
	for b.Loop() {
		s.forward(from, frame, time.Time{})
	}
	_, dropped := port.Stats()
	b.ReportMetric(float64(dropped)/float64(b.N), "dropped/op")
}
