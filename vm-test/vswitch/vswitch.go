// Package vswitch is an Ethernet switch for QEMU's stream sockets (netdev
// stream: each frame after its length, 4 bytes big-endian). It needs no root
// and no bridge, and has no way out by construction: a frame goes to another
// port of the same switch or nowhere.
//
// Each port can be cut, slowed, delayed and made lossy, and all traffic can be
// recorded.
package vswitch

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// MaxFrame is the longest frame that is taken, in bytes; a longer one ends the
// connection, since the stream can't be in step any more.
const MaxFrame = 65550

// queueFrames is how many frames may wait at a port. As in a real switch, one
// more is dropped: a stopped machine must not hold up the others.
const queueFrames = 8192

// Switch learns addresses and forwards frames between its ports.
type Switch struct {
	mu    sync.RWMutex
	ports []*Port
	table map[[6]byte]*Port

	recordMu sync.Mutex
	record   *pcapWriter
}

// New makes a switch without ports.
func New() *Switch { return &Switch{table: map[[6]byte]*Port{}} }

// Port is one socket of the switch; one machine's interface is plugged in.
type Port struct {
	Name string

	sw       *Switch
	listener net.Listener
	queue    chan queued

	mu     sync.Mutex
	shaper shaper
	cut    bool
	edit   func(frame []byte)

	sent, dropped atomic.Uint64
}

type queued struct {
	frame []byte
	due   time.Time
}

// Listen adds a port on a unix socket. Whoever connects is plugged in; a later
// connection (the machine was powered on again) replaces the one before.
func (s *Switch) Listen(name, path string) (*Port, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("switch port %s: %w", name, err)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("switch port %s: %w", name, err)
	}
	p := &Port{Name: name, sw: s, listener: listener, queue: make(chan queued, queueFrames)}
	s.mu.Lock()
	s.ports = append(s.ports, p)
	s.mu.Unlock()
	go p.accept()
	return p, nil
}

// Close unplugs all and removes the sockets.
func (s *Switch) Close() error {
	s.mu.Lock()
	ports := s.ports
	s.ports, s.table = nil, map[[6]byte]*Port{}
	s.mu.Unlock()
	var errs []error
	for _, p := range ports {
		errs = append(errs, p.listener.Close())
	}
	return errors.Join(append(errs, s.StopRecording())...)
}

// Cut unplugs the port's cable, or plugs it in again. Both ends keep their
// link up: it is the switch that forwards nothing.
func (p *Port) Cut(cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = cut
}

// Impair makes frames towards the port late, slow or lost. The zero value
// ends it.
func (p *Port) Impair(i Impairment) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shaper = newShaper(i)
}

// Edit has f change each frame that the machine sends, before it is forwarded,
// for a machine that shall speak otherwise than it does. f is called by one
// goroutine at a time; nil ends it.
func (p *Port) Edit(f func(frame []byte)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.edit = f
}

// Stats are counts of frames sent to the port, and dropped on the way.
func (p *Port) Stats() (sent, dropped uint64) { return p.sent.Load(), p.dropped.Load() }

func (p *Port) accept() {
	unplug := func() {}
	defer func() { unplug() }()
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			return // the switch was closed
		}
		unplug()
		ctx, cancel := context.WithCancel(context.Background())
		unplug = func() { cancel(); conn.Close() }
		go p.write(ctx, conn)
		go p.read(conn)
	}
}

func (p *Port) read(conn net.Conn) {
	defer conn.Close()
	r := bufio.NewReaderSize(conn, 1<<18)
	var header [4]byte
	for {
		if _, err := io.ReadFull(r, header[:]); err != nil {
			return // unplugged
		}
		n := binary.BigEndian.Uint32(header[:])
		if n > MaxFrame {
			return
		}
		frame := make([]byte, n)
		if _, err := io.ReadFull(r, frame); err != nil {
			return
		}
		p.sw.forward(p, frame, time.Now())
	}
}

func (p *Port) write(ctx context.Context, conn net.Conn) {
	w := bufio.NewWriterSize(conn, 1<<18)
	var header [4]byte
	for {
		select {
		case <-ctx.Done():
			return
		case q := <-p.queue:
			if wait := time.Until(q.due); wait > 0 {
				if w.Flush() != nil {
					return
				}
				timer := time.NewTimer(wait)
				select {
				case <-timer.C:
				case <-ctx.Done():
					timer.Stop()
					return
				}
			}
			binary.BigEndian.PutUint32(header[:], uint32(len(q.frame)))
			w.Write(header[:]) // a bufio.Writer keeps its first error for Flush
			w.Write(q.frame)
			p.sent.Add(1)
			if len(p.queue) == 0 && w.Flush() != nil {
				return
			}
		}
	}
}

// send queues a frame towards the port.
func (p *Port) send(frame []byte, now time.Time) {
	p.mu.Lock()
	due, drop := p.shaper.plan(now, len(frame))
	drop = drop || p.cut
	p.mu.Unlock()
	if !drop {
		select {
		case p.queue <- queued{frame, due}:
			return
		default: // full
		}
	}
	p.dropped.Add(1)
}

func (s *Switch) forward(from *Port, frame []byte, now time.Time) {
	if len(frame) < 14 {
		return // not even an Ethernet header
	}
	from.mu.Lock()
	cut := from.cut
	if from.edit != nil && !cut {
		from.edit(frame)
	}
	from.mu.Unlock()
	if cut {
		return
	}
	s.capture(frame, now)
	to, source := [6]byte(frame[0:6]), [6]byte(frame[6:12])
	s.mu.RLock()
	learned := s.table[source] == from
	target := s.table[to]
	ports := s.ports
	s.mu.RUnlock()
	if !learned && source[0]&1 == 0 {
		s.mu.Lock()
		s.table[source] = from
		s.mu.Unlock()
	}
	if target != nil && to[0]&1 == 0 {
		if target != from {
			target.send(frame, now)
		}
		return
	}
	for _, p := range ports {
		if p != from {
			p.send(frame, now)
		}
	}
}
