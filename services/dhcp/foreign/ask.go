package foreign

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// askPause is between questions: a frame may be lost.
const askPause = time.Second

// Ask asks on a link, as a new client would, whether this cluster's server answers
// there at the service address: by DHCPDISCOVER, each second until it does or ctx ends.
// It is for a replica that does not serve. No address is offered or kept, and nothing
// is noted anywhere. It closes wire.
func Ask(ctx context.Context, self Self, wire Wire) (Sighting, error) {
	b, err := probe(self, wire.Hardware())
	if err != nil {
		return Sighting{}, errors.Join(err, wire.Close())
	}
	heard := make(chan Sighting, queueLength)
	failed := make(chan error, 1)
	go func() { failed <- hear(wire, heard) }()
	s, asking := await(ctx, self, func() error { return wire.Probe(b) }, heard, failed)
	closing := wire.Close() // which ends hear
	if asking != nil {
		asking = fmt.Errorf("DHCP on %s: %w", self.Interface, asking)
	}
	return s, errors.Join(asking, closing)
}

// hear hands on the answers to this host's probes until the wire fails or is closed.
func hear(wire Wire, heard chan<- Sighting) error {
	asked := probeMAC(wire.Hardware())
	b := make([]byte, 2048)
	for {
		n, err := wire.Read(b)
		if err != nil {
			return err
		}
		if s, err := read(b[:n], asked); err == nil && s.Answer {
			select {
			case heard <- s:
			default: // who floods is answer enough
			}
		}
	}
}

// await asks until the answer is there.
func await(ctx context.Context, self Self, ask func() error, heard <-chan Sighting, failed <-chan error) (Sighting, error) {
	var other, unsent error
	again := time.NewTimer(0)
	defer again.Stop()
	for times := 0; ; {
		select {
		case <-again.C:
			unsent = ask()
			times++
			again.Reset(askPause)
		case s := <-heard:
			if s.Server == self.Service && s.Cluster == self.Cluster {
				return s, nil
			}
			other = fmt.Errorf("%s answers instead", s.who())
		case err := <-failed:
			return Sighting{}, err
		case <-ctx.Done():
			return Sighting{}, errors.Join(fmt.Errorf("%s answers no DISCOVER, %d times asked: do the switch's ports let DHCP through?", self.Service, times), other, unsent)
		}
	}
}
